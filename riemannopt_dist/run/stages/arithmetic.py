"""What a worker computes in: its device, its precision, and how far its gradients are from float64's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.choices import Precision
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.estimators.converged import relative_distance
from riemannopt_dist.objective import Objective, explained_output
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.stages.batches import example_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.evaluate import Evaluation
from riemannopt_dist.storage.notes import note_of, noted

ARITHMETIC = b"arithmetic"
"""The key of a shard's schema metadata under which its arithmetic is, as a JSON object."""
TRIED = 2
"""Images whose gradients are computed in float64 as well."""


@dataclass(frozen=True)
class Arithmetic:
    """The device of a worker, the precision of maps and of scores, and the error of its gradients.

    That is their L1 distance from the same in float64, as a share of its norm: the mean of TRIED images, None
    where the model does not compute in float64.
    """

    device: str
    maps: Precision
    scores: Precision
    gradient_error: float | None

    def in_table(self, table: pa.Table) -> pa.Table:
        """`table` with this in its metadata."""
        return noted(table, ARITHMETIC, self)

    @classmethod
    def of(cls, schema: pa.Schema) -> "Arithmetic | None":
        """That of a shard with this schema, None where it tells none."""
        return note_of(schema, ARITHMETIC, cls)


def arithmetic_of(stage: Evaluation, engine: Engine, examples: Sequence[Example]) -> Arithmetic:
    """That of a worker, tried on the first of `examples`."""
    device = engine.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return Arithmetic(name, stage.precision, stage.scores, _tried(stage, engine, examples[:TRIED]))


def _tried(stage: Evaluation, engine: Engine, examples: Sequence[Example]) -> float | None:
    try:
        ((_, images, targets),) = engine.tally.awaited(example_batches(examples, engine, TRIED))
        objective = Objective(engine.model, targets, stage.explain, TRIED, stage.precision)
        error = gradient_error(objective, images)
        return error if math.isfinite(error) else None
    except (UnreadableImage, RuntimeError, TypeError):  # what is wrong the stage itself finds out
        return None


def gradient_error(objective: Objective, images: Tensor) -> float:
    """The L1 distance of gradients of images (B, C, H, W) from float64's, relative: the mean over images."""
    _, gradients = objective.gradients(images)
    wide = {
        name: value.double() if value.is_floating_point() else value
        for name, value in (*objective.model.named_parameters(), *objective.model.named_buffers())
    }
    with torch.enable_grad():
        inputs = images.detach().double().requires_grad_()
        logits = torch.func.functional_call(objective.model, wide, (inputs,))
        value = explained_output(logits, objective.targets, objective.output)
        (exact,) = torch.autograd.grad(value.sum(), inputs)
    return float(relative_distance(gradients.double(), exact).mean())

"""What a worker computes in: its device, its precision, and how far its gradients are from float64's."""

import math
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.choices import Precision
from riemannopt_dist.estimators.converged import relative_distance
from riemannopt_dist.objective import Objective, explained_output
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


def arithmetic_of(objective: Objective, images: Tensor, scores: Precision) -> Arithmetic:
    """That of a worker which makes maps of images (B, C, H, W), tried on the first of them."""
    device = images.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    few = images[:TRIED]
    try:
        error = gradient_error(objective.of([*range(len(few))]), few)
    except (RuntimeError, TypeError):  # no float64
        error = math.nan
    return Arithmetic(name, objective.precision, scores, error if math.isfinite(error) else None)


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

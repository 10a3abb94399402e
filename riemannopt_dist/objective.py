"""The objective: the output of a classifier that is explained, and its gradient, in micro-batches.

The gradient reaches the input alone: none is computed for the model's parameters. Values and gradients are
float32 or wider, whatever the model computes in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from riemannopt_dist.arguments import (
    check_choice,
    check_classes,
    check_model,
    check_positive,
    check_range,
    check_targets,
)
from riemannopt_dist.choices import OUTPUTS as OUTPUTS
from riemannopt_dist.choices import PRECISIONS, Precision
from riemannopt_dist.choices import Output as Output
from riemannopt_dist.differentiation import constant, leaf_of, recording
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.logits import (
    REPEATED,
    check_logits,
    check_no_probabilities,
    check_two_classes,
    moved,
)
from riemannopt_dist.paths.base import Path
from riemannopt_dist.precision import ROUNDED, products_in, relative_rounding, sum_type
from riemannopt_dist.transfer import on_device

Index = NDArray[np.int64]
DEFAULT_INTERNAL_BATCH_SIZE = 32

_SOUND: WeakKeyDictionary[nn.Module, set[tuple[Output, bool]]] = WeakKeyDictionary()
"""Models whose logits were looked at: for which output, and whether in training mode."""


def micro_batches(items: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that together cover `range(items)`."""
    check_positive(size, "internal_batch_size")
    for start in range(0, items, size):
        yield slice(start, min(start + size, items))


def logits_of(model: Callable[[Tensor], Tensor], images: Tensor, precision: Precision = "fp32") -> Tensor:
    """The model's logits (B, classes) of images (B, C, H, W): whatever calls a model does so here.

    The model gets a copy, for it may write into what it is given. Gradients reach `images` through the copy;
    who asks for them does so within `products_in` the same precision, as the model is called. Raises
    ValueError for what is no logits.
    """
    with products_in(precision, images.device):
        logits = model(images.clone())
    check_logits(logits, len(images))
    return logits


def explained_output(logits: Tensor, targets: Tensor, output: Output = "probability") -> Tensor:
    """The target's softmax probability in [0, 1] (or its logit) from logits (B, classes): (B,).

    In float32 or wider. Raises ValueError for what is no logits, for a single one whose probability is asked
    for, and for a target that has none.
    """
    check_choice(output, OUTPUTS, "output")
    check_logits(logits, len(targets))
    check_classes(targets, logits)
    if output == "probability":
        check_two_classes(logits)
    logits = logits.to(sum_type(logits.dtype))
    scores = logits.softmax(dim=1) if output == "probability" else logits
    return scores.gather(1, targets[:, None]).squeeze(1)


def output_rounding(size: Tensor, dtype: torch.dtype, output: Output = "probability") -> Tensor:
    """How far f of `size` |f| (…) may be off for rounding alone, the model computing in `dtype`: (…).

    A logit is a sum of what may be far larger, so no |f| below 1 makes it more exact; a probability's
    rounding is relative to itself, as p (1 − p) times that of the log-odds.
    """
    return relative_rounding(dtype) * size.abs().clamp_min(1.0 if output == "logit" else 0.0)


@dataclass(frozen=True, eq=False)
class Objective:
    """What is explained: the `output` of `model` for the class of each of B images, `targets` (B,).

    At most `internal_batch_size` images, or intervals and the last one's end, go through the model at once;
    it changes nothing beyond rounding. `precision` is that of the products; of gradients fp32 or tf32.
    """

    model: nn.Module
    targets: Tensor
    output: Output = "probability"
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE
    precision: Precision = "fp32"

    def check(self, images: Tensor) -> None:
        """Raise ValueError for a model that depends on chance, and targets or images that do not fit it."""
        check_model(self.model)
        check_targets(self.targets, images, self.model)
        if isinstance(self.model, Classifier):
            check_range(images)
        check_choice(self.output, OUTPUTS, "output")
        check_positive(self.internal_batch_size, "internal_batch_size")
        check_choice(self.precision, PRECISIONS, "precision")

    def rounding_type(self, dtype: torch.dtype) -> torch.dtype:
        """The type that rounds as f does of images in `dtype`."""
        return ROUNDED.get(self.precision, dtype)

    def logits(self, images: Tensor) -> Tensor:
        """The model's logits (N, classes) of images (N, C, H, W)."""
        logits = logits_of(self.model, images, self.precision)
        self.check_soundness(images, logits)
        return logits

    def check_soundness(self, images: Tensor, logits: Tensor) -> None:
        """Raise ValueError for logits that are probabilities, where one is explained, or depend on chance.

        The logits are those of images (N, C, H, W). A look waits for the device: there is one at a model's
        first logits alone. Chance is looked for in training mode, by a second pass.
        """
        looked_at = _SOUND.setdefault(self.model, set())
        if (state := (self.output, self.model.training)) in looked_at:
            return
        if self.output == "probability":
            check_no_probabilities(logits.detach())
        if any(layer.training for layer in self.model.modules()):
            with torch.no_grad():
                again = logits_of(self.model, images, self.precision)
            if moved(again, logits.detach()) > REPEATED:
                raise ValueError(
                    "model: its forward pass depends on chance, two passes of the same images differ: "
                    "expected evaluation mode (model.eval())"
                )
        looked_at.add(state)

    def of(self, rows: Tensor | list[int]) -> "Objective":
        """That of the images at `rows` (N,) of the B, in their order."""
        return replace(self, targets=self.targets[rows])

    def values(self, images: Tensor) -> Tensor:
        """f of images (B, C, H, W), (B,), without gradients."""
        with torch.no_grad():
            parts = [
                explained_output(self.logits(images[part]), self.targets[part], self.output)
                for part in micro_batches(len(images), self.internal_batch_size)
            ]
        return torch.cat(parts)

    def gradients(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """f, (B,), and ∂f/∂x, (B, C, H, W), for images (B, C, H, W)."""
        values, gradients = [], []
        for part in micro_batches(len(images), self.internal_batch_size):
            with recording(), products_in(self.precision, images.device):
                inputs = leaf_of(images[part])
                targets = constant(self.targets[part])
                value = explained_output(self.logits(inputs), targets, self.output)
                (gradient,) = torch.autograd.grad(value.sum(), inputs)
            values.append(value.detach())
            gradients.append(gradient.to(sum_type(gradient.dtype)))
        return (values[0], gradients[0]) if len(values) == 1 else (torch.cat(values), torch.cat(gradients))


@dataclass(frozen=True)
class PathSamples:
    """One micro-batch of N samples along the paths of some images, image by image in order of position.

    rows (N,) says which image each sample belongs to, columns (N,) which of its positions; both are on the
    host, and both on the device are the samples' `index`. inputs (N, C, H, W) is γ(α) in the images' type;
    in float32 or wider, values (N,) is f there, gradients (N, C, H, W) is ∂f/∂γ and velocity (N, C, H, W) is
    dγ/dα.
    """

    rows: Index
    columns: Index
    index: tuple[Tensor, Tensor]
    inputs: Tensor
    values: Tensor
    gradients: Tensor
    velocity: Tensor

    @property
    def integrand(self) -> Tensor:
        """g(α) = ∂f/∂γ · dγ/dα, (N, C, H, W)."""
        return self.gradients * self.velocity


def sample_path(objective: Objective, path: Path, alphas: NDArray[np.float64]) -> Iterator[PathSamples]:
    """Evaluate f and its gradient at positions `alphas` (B, K) of B paths, a micro-batch at a time.

    Samples come image by image, positions in the order given, in micro-batches that are full but for the
    last: memory depends on the objective's `internal_batch_size`, not on B × K.
    """
    rows, columns = np.divmod(np.arange(alphas.size), alphas.shape[1])
    device = path.images.device
    # All at once: a copy for every micro-batch would keep the device waiting.
    row_index, column_index = on_device(rows, device), on_device(columns, device)
    positions = on_device(alphas[rows, columns], device)
    for part in micro_batches(alphas.size, objective.internal_batch_size):
        index = row_index[part], column_index[part]
        inputs, velocity = path.at(index[0], positions[part])
        values, gradients = objective.of(index[0]).gradients(inputs)
        yield PathSamples(rows[part], columns[part], index, inputs, values, gradients, velocity)


def by_image(rows: Index) -> Iterator[tuple[int, slice]]:
    """The images that samples belong to by their rows (N,), which ascend, and the part of each."""
    for row in np.unique(rows).tolist():
        first, last = np.searchsorted(rows, [row, row + 1]).tolist()
        yield row, slice(first, last)

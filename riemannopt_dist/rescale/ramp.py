"""The rule of ramps: x between two bounds, as ReLU, ReLU6 and clamps are."""

from collections.abc import Iterator

import torch
from torch import Tensor

from riemannopt_dist.rescale.kernels import KERNELS
from riemannopt_dist.rescale.slopes import slope_products
from riemannopt_dist.rescale.tape import Ends, Recording

SLAB = 1 << 18
"""Numbers of one tensor that are worked on at a time on a CPU."""


def ramp(recording: Recording, x: Tensor, low: float = -torch.inf, high: float = torch.inf) -> Tensor:
    """x between two bounds. Exact in floating point: with both ends on the rising piece the slope is 1."""
    kernel = KERNELS.of(x, low, high)

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        tensors = _in_memory_order(*before, *after, grad, *gradients)
        if tensors is None:
            slope_products(before[0], after[0], grad, gradients[0], low, high)
        elif kernel is not None:
            kernel(*(part.view(-1) for part in tensors))
        else:
            for a, b, upstream, result in _slabs(*tensors):
                slope_products(a, b, upstream, result, low, high)

    return recording.operation("clamp", x.detach().clamp(low, high), mean_vjp, x)


def relu(recording: Recording, x: Tensor) -> Tensor:
    """x where it is positive, else 0."""
    return ramp(recording, x, 0.0)


def _in_memory_order(*tensors: Tensor) -> tuple[Tensor, ...] | None:
    """Tensors of equal shape as contiguous ones, None where they are not of one layout."""
    if all(x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) for x in tensors):
        tensors = tuple(x.movedim(1, -1) for x in tensors)
    return tensors if all(x.is_contiguous() for x in tensors) else None


def _slabs(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of contiguous tensors, all rows of some of their values: as many as a CPU's caches hold."""
    if any(x.device.type != "cpu" for x in tensors):
        yield tensors
        return
    flat = [x.view(len(x) if x.ndim else 1, -1) for x in tensors]
    width = max(SLAB // len(flat[0]), 1)
    yield from zip(*(torch.split(x, width, dim=1) for x in flat), strict=True)

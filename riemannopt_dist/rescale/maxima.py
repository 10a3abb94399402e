"""Rules of maxima: of two numbers by a ReLU, of more as maxima of two."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.products import with_values
from riemannopt_dist.rescale.ramp import relu
from riemannopt_dist.rescale.tape import Recording


def maximum(recording: Recording, a: Tensor, b: Tensor) -> Tensor:
    """The larger of two numbers, max(a, b) = a + ReLU(b − a)."""
    return with_values(a + relu(recording, b - a), torch.maximum(a, b))


def minimum(recording: Recording, a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two numbers."""
    return with_values(a - relu(recording, a - b), torch.minimum(a, b))


def amax(recording: Recording, x: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """The largest of some axes, all if none are told: of one half and the other, until one number is left."""
    dims = [dim] if isinstance(dim, int) else list(dim) or list(range(x.ndim))
    for axis in dims:
        while (count := x.shape[axis]) > 1:
            half = (count + 1) // 2  # of an odd count the middle one is in both
            x = maximum(recording, x.narrow(axis, 0, half), x.narrow(axis, count - half, half))
    return x if keepdim else x.squeeze(dims)


def amin(recording: Recording, x: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """The smallest of some axes."""
    return -amax(recording, -x, dim, keepdim)


def maximum_or_largest(recording: Recording, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """`torch.max`: of two tensors, of all of one, or of an axis, with indices."""
    if isinstance(dim, Tensor):
        return maximum(recording, x, dim)
    if dim is None:
        return amax(recording, x)
    indices = x.detach().argmax(dim, keepdim)
    return torch.return_types.max((amax(recording, x, dim, keepdim), indices))

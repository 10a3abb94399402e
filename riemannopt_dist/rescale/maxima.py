"""Rules of maxima: of two numbers by a ReLU, of more as maxima of two."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from riemannopt_dist.rescale.elementwise import relu
from riemannopt_dist.rescale.products import with_values
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


def max_pool2d(
    recording: Recording,
    x: Tensor,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    **options: Any,
) -> Tensor:
    """Rows of each window first, then columns, as maxima of two: max(a, b) = a + ReLU(b − a)."""
    if options.get("return_indices") or x.ndim != 4:
        raise ValueError("model: mean slopes are not known for max_pool2d with indices or without a batch")
    pooled = functional.max_pool2d(x.detach(), kernel_size, stride, padding, dilation, ceil_mode)
    kernel, steps, margins, distances = (
        (value, value) if isinstance(value, int) else (value[0], value[-1])
        for value in (kernel_size, stride or kernel_size, padding, dilation)
    )
    for axis in (2, 3):
        size, step, margin, distance = (of_both[axis - 2] for of_both in (kernel, steps, margins, distances))
        outputs = pooled.shape[axis]
        reach = (outputs - 1) * step + (size - 1) * distance + 1
        sides = (margin, max(reach - x.shape[axis] - margin, 0))
        x = functional.pad(x, (0, 0, *sides) if axis == 2 else sides, value=-torch.inf)
        x = torch.where(x == -torch.inf, _below(x), x)
        starts = [place * distance for place in range(size)]
        parts = [_strided(x, axis, start, outputs, step) for start in starts]
        x = parts[0]
        for part in parts[1:]:
            x = x + relu(recording, part - x)
    return with_values(x, pooled)


def _below(x: Tensor) -> Tensor:
    """What is less than all of a channel, but not by so much that differences would lose digits."""
    x = x.detach()
    return x.masked_fill(x == -torch.inf, torch.inf).amin((2, 3), keepdim=True) - 1


def _strided(x: Tensor, axis: int, start: int, count: int, step: int) -> Tensor:
    """`count` entries of an axis, `step` apart."""
    return x.movedim(axis, 0)[start : start + (count - 1) * step + 1 : step].movedim(0, axis)

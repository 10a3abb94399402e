"""The rule of max pools: the largest of a window as maxima of two, max(a, b) = a + ReLU(b − a)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from riemannopt_dist.rescale.slopes import slopes
from riemannopt_dist.rescale.tape import Ends, Recording


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
    """The largest of each window: of its rows first, then of its columns, each as maxima of two."""
    if options.get("return_indices") or x.ndim != 4:
        raise ValueError("model: mean slopes are not known for max_pool2d with indices or without a batch")
    pooled = functional.max_pool2d(x.detach(), kernel_size, stride, padding, dilation, ceil_mode)
    sizes, steps, margins, distances = (
        (value, value) if isinstance(value, int) else (value[0], value[-1])
        for value in (kernel_size, stride or kernel_size, padding, dilation)
    )
    rows, columns = (
        _Windows(axis, pooled.shape[axis], *of_axis)
        for axis, of_axis in zip((2, 3), zip(sizes, steps, margins, distances, strict=True), strict=True)
    )

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        start, end, of_rows = rows.maxima(before[0], after[0])
        _, _, of_columns = columns.maxima(start, end)
        over_rows = columns.shared_out(grad, of_columns, torch.zeros_like(start))
        rows.shared_out(over_rows, of_rows, gradients[0].zero_())

    return recording.operation("max_pool2d", pooled, mean_vjp, x)


@dataclass(frozen=True)
class _Windows:
    """The windows of one axis: `count`, each `step` after the one before, of `size` entries `distance` apart.

    The first starts `margin` before the axis does.
    """

    axis: int
    count: int
    size: int
    step: int
    margin: int
    distance: int

    def maxima(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The windows' maxima at both ends, and for each entry but the first the slope of ReLU(b − a).

        That says how b takes the place of a, the maximum of the entries before it, in max(a, b).
        """
        (a, *others), (b, *others_after) = (
            self._entries(self._padded(x, -torch.inf)) for x in (before, after)
        )
        ramps = []
        for other, other_after in zip(others, others_after, strict=True):
            ramps.append(slopes(_rise(a, other), _rise(b, other_after), low=0.0))
            a, b = torch.maximum(a, other), torch.maximum(b, other_after)
        return a, b, ramps

    def shared_out(self, grad: Tensor, ramps: list[Tensor], result: Tensor) -> Tensor:
        """The gradients of maxima, by the ramps of entries, added to `result`: zeros, and returned."""
        padded = self._padded(result, 0.0)
        first, *others = self._entries(padded)
        for entry, ramp in zip(reversed(others), reversed(ramps), strict=True):
            share = grad * ramp
            entry += share
            grad = grad - share
        first += grad
        if padded is not result:
            result.copy_(padded.narrow(self.axis, self.margin, result.shape[self.axis]))
        return result

    def _padded(self, x: Tensor, value: float) -> Tensor:
        """x with as much at either end of the axis as the windows reach beyond it."""
        reach = (self.count - 1) * self.step + (self.size - 1) * self.distance + 1
        sides = (self.margin, max(reach - x.shape[self.axis] - self.margin, 0))
        if not any(sides):
            return x
        return functional.pad(x, (0, 0, *sides) if self.axis == 2 else sides, value=value)

    def _entries(self, x: Tensor) -> list[Tensor]:
        """Views of all windows' first entries, of their second ones, and so on."""
        starts = range(0, self.size * self.distance, self.distance)
        length = (self.count - 1) * self.step + 1
        along = x.movedim(self.axis, 0)
        return [along[start : start + length : self.step].movedim(0, self.axis) for start in starts]


def _rise(x: Tensor, y: Tensor) -> Tensor:
    """y − x, of what is −∞ a number: there is no difference of infinities to divide by."""
    return (y - x).clamp_(min=torch.finfo(y.dtype).min / 4)

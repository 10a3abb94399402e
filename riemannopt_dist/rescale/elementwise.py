"""Rules of elementwise functions: the slope of the secant, for every number on its own."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.tape import Ends, MeanVJP, Recording, Rule

SLAB = 1 << 18
"""Numbers of one tensor that are worked on at a time on a CPU."""


def ramp(recording: Recording, x: Tensor, low: float = -torch.inf, high: float = torch.inf) -> Tensor:
    """x between two bounds. Exact in floating point: with both ends on the rising piece the slope is 1.

    The end is moved by 2 ε of itself, no more than rounding has moved it: so equal ends have the derivative
    there. What is 0 / 0 all the same, as for two zeros, counts as rising.
    """

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        for a, b, upstream, result in _slabs(*before, *after, grad, *gradients):
            end = torch.add(b, b, alpha=2 * torch.finfo(b.dtype).eps)
            step = end - a
            slope = end.clamp_(low, high).sub_(a.clamp(low, high)).div_(step)
            torch.mul(upstream, slope.nan_to_num_(1.0), out=result)

    return recording.operation("clamp", x.detach().clamp(low, high), mean_vjp, x)


def relu(recording: Recording, x: Tensor) -> Tensor:
    """x where it is positive, else 0."""
    return ramp(recording, x, 0.0)


def _slabs(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of tensors of equal layout, all rows of some of their values: as many as a CPU's caches hold."""
    if all(x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) for x in tensors):
        tensors = tuple(x.movedim(1, -1) for x in tensors)
    on_cpu = all(x.device.type == "cpu" and x.is_contiguous() for x in tensors)
    if not on_cpu:
        yield tensors
        return
    flat = [x.view(len(x) if x.ndim else 1, -1) for x in tensors]
    width = max(SLAB // len(flat[0]), 1)
    yield from zip(*(torch.split(x, width, dim=1) for x in flat), strict=True)


def smooth(function: Callable[..., Tensor]) -> Rule:
    """An elementwise function without kinks: its quotients, or its derivative in the middle of small steps.

    A quotient of rounded differences over a step h is off by about ε/h, the derivative by about h².
    """

    def rule(recording: Recording, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        def slope(a: Tensor, b: Tensor) -> Tensor:
            with torch.enable_grad():
                middle = ((a + b) / 2).requires_grad_()
                (derivative,) = torch.autograd.grad(function(middle, *args, **kwargs).sum(), middle)
            step = b - a
            small = step.abs() < torch.finfo(a.dtype).eps ** (1 / 3)
            rise = function(b, *args, **kwargs) - function(a, *args, **kwargs)
            return torch.where(small, derivative, rise / step)

        value = function(x.detach(), *args, **kwargs)
        return recording.operation(function.__name__, value, elementwise(slope), x)

    return rule


def closed_form(function: Callable[[Tensor], Tensor], slope: Callable[..., Tensor]) -> Rule:
    """An elementwise function whose quotient follows from x and y at both ends without a difference."""

    def rule(recording: Recording, x: Tensor) -> Tensor:
        mean_vjp = elementwise(lambda a, b: slope(a, b, function(a), function(b)))
        return recording.operation(function.__name__, function(x.detach()), mean_vjp, x)

    return rule


def elementwise(slope: Callable[[Tensor, Tensor], Tensor]) -> MeanVJP:
    """A gradient times the slope at every number, from its values at both ends."""

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        torch.mul(grad, slope(*before, *after), out=gradients[0])

    return mean_vjp


def _cube(x: Tensor) -> Tensor:
    return x**3


square = closed_form(torch.square, lambda a, b, p, q: a + b)
sqrt = closed_form(torch.sqrt, lambda a, b, p, q: 1 / (p + q))
rsqrt = closed_form(torch.rsqrt, lambda a, b, p, q: -((p * q) ** 2) / (p + q))
reciprocal = closed_form(torch.reciprocal, lambda a, b, p, q: -p * q)
cube = closed_form(_cube, lambda a, b, p, q: a * a + a * b + b * b)

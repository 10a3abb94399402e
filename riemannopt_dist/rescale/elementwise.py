"""Rules of elementwise functions: the slope of the secant, for every number on its own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.tape import Ends, MeanVJP, Recording, Rule


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

"""Rules of products: the mean of the Jacobian of a product is its Jacobian at the mean of both factors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.elementwise import reciprocal
from riemannopt_dist.rescale.tape import Ends, Recording, Rule


def followed(value: object) -> bool:
    """Whether gradients are asked of a value, or of one of several."""
    if isinstance(value, (list, tuple)):
        return any(map(followed, value))
    return isinstance(value, Tensor) and value.requires_grad


def with_values(other: Tensor, values: Tensor) -> Tensor:
    """The gradients of one tensor with the values of another."""
    return other + (values - other).detach()


def bilinear(function: Callable[[Any, Any], Tensor], name: str = "") -> Rule:
    """A product of two tensors, by the function's name unless another is told.

    Axes are matched from the last on: factors of different numbers of axes mix samples where there are many.
    """

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        with torch.enable_grad():
            means = [((x + y) / 2).requires_grad_() for x, y in zip(before, after, strict=True)]
            parts = torch.autograd.grad(function(*means), means, grad)
        for part, result in zip(parts, gradients, strict=True):
            result.copy_(part)

    def product(recording: Recording, a: Any, b: Any) -> Tensor:
        if not (followed(a) and followed(b)):
            return function(a, b)
        if a.ndim != b.ndim and recording.rows > 1:
            raise ValueError(
                f"model: mean slopes are not known for products of shapes {tuple(a.shape)}, {tuple(b.shape)}"
            )
        value = function(a.detach(), b.detach())
        return recording.operation(name or function.__name__, value, mean_vjp, a, b)

    return product


multiply = bilinear(torch.mul)
matmul = bilinear(torch.matmul)


def divide(recording: Recording, a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    """a / b, as a product with 1 / b."""
    if rounding_mode is not None:
        raise ValueError(f"model: mean slopes are not known for division with rounding_mode {rounding_mode}")
    if not followed(b):
        return torch.div(a, b)
    return with_values(multiply(recording, a, reciprocal(recording, b)), torch.div(a, b))


def add_product(
    recording: Recording, x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """baddbmm: β x + α a b, of matrices."""
    return beta * x + alpha * matmul(recording, a, b) if beta else alpha * matmul(recording, a, b)


def add_multiple(recording: Recording, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    """addcmul: x + value · a · b."""
    return x + value * multiply(recording, a, b)


def einsum(recording: Recording, equation: Any, *operands: Any) -> Tensor:
    """A sum of products of which two factors at most depend on the sample."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    moving = [place for place, x in enumerate(operands) if followed(x)]
    if not isinstance(equation, str) or len(moving) > 2:
        raise ValueError("model: the Rescale rule is not known for its operation einsum with such arguments")

    def summed(*factors: Tensor) -> Tensor:
        all_operands = list(operands)
        for place, factor in zip(moving, factors, strict=True):
            all_operands[place] = factor
        return torch.einsum(equation, *all_operands)

    factors = [operands[place] for place in moving]
    return bilinear(summed, "einsum")(recording, *factors) if len(moving) == 2 else summed(*factors)

"""Rules of normalisations: made of squares, means, roots and products, each by its own rule."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.elementwise import rsqrt, square
from riemannopt_dist.rescale.products import multiply
from riemannopt_dist.rescale.tape import Ends, Recording


def layer_norm(
    recording: Recording,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Over the last axes."""
    normal = _normalised(recording, x, _last(normalized_shape), eps)
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def group_norm(
    recording: Recording,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Over groups of channels, the second axis, and all axes behind."""
    normal = _normalised(recording, x.reshape(len(x), num_groups, -1), [-1], eps).reshape(x.shape)
    over_channels = (1, -1, *[1] * (x.ndim - 2))
    normal = normal if weight is None else normal * weight.view(over_channels)
    return normal if bias is None else normal + bias.view(over_channels)


def rms_norm(
    recording: Recording,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Over the last axes, without their mean taken off."""
    normal = _scaled(recording, x, _last(normalized_shape), torch.finfo(x.dtype).eps if eps is None else eps)
    return normal if weight is None else normal * weight


def _last(shape: Sequence[int]) -> list[int]:
    """The axes that a shape is of, counted from the last."""
    return list(range(-len(shape), 0))


def _normalised(recording: Recording, x: Tensor, dims: list[int], eps: float) -> Tensor:
    """x less its mean, over its standard deviation."""
    return _scaled(recording, x - x.mean(dims, keepdim=True), dims, eps)


def _scaled(recording: Recording, x: Tensor, dims: list[int], eps: float) -> Tensor:
    """x over the root of its mean square."""
    variance = square(recording, x).mean(dims, keepdim=True)
    return multiply(recording, x, rsqrt(recording, variance + eps))


def norm(
    recording: Recording,
    x: Tensor,
    p: Any = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Tensor:
    """The Euclidean norm: from a to b it changes by (a + b) · (b − a) / (|a| + |b|). Its slope at 0 is 0."""
    if p not in (2, "fro", None) or kwargs.get("dtype", x.dtype) not in (None, x.dtype):
        raise ValueError(f"model: the Rescale rule is not known for its operation norm with {p}")
    dims = list(range(x.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)

    def value(x: Tensor) -> Tensor:
        result: Tensor = torch.linalg.vector_norm(x, 2, dims, keepdim=True)
        return result

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        total = value(before[0]) + value(after[0])
        share = torch.where(total > 0, grad / total, 0)
        torch.mul(before[0] + after[0], share, out=gradients[0])

    result = recording.operation("norm", value(x.detach()), mean_vjp, x)
    return result if keepdim else result.squeeze(dims)


def vector_norm(recording: Recording, x: Tensor, ord: Any = 2, *args: Any, **kwargs: Any) -> Tensor:
    """torch.linalg's name of the same."""
    return norm(recording, x, ord, *args, **kwargs)

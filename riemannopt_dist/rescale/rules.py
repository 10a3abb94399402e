"""How each operation passes gradients back by its mean slopes, the Rescale rule of DeepLIFT.

Between two samples on a path a network's gradient changes wherever an activation passes its kink, and its
derivative at either sample knows nothing of it. But the inputs of each activation are known at both samples,
and so is the mean of its derivative on the straight line between them: the slope of the secant. Between a
baseline and the input it is what DeepLIFT's Rescale rule takes (Shrikumar et al., ICML 2017).

A product of two tensors takes the mean of the other factor, which is exact. Maxima and normalisations are
made of these.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from riemannopt_dist.quadrature.rules import gauss_legendre
from riemannopt_dist.rescale.tape import Ends, MeanVJP, Recording

JACOBIANS = 16
"""Gauss-Legendre points of a softmax's mean Jacobian, inside the model."""

SLAB = 1 << 18
"""Numbers of one tensor that are worked on at a time on a CPU."""

Rule = Callable[..., Tensor]
"""Takes the recording and an operation's arguments; gives its value, with the gradients of mean slopes."""


def ramp(recording: Recording, x: Tensor, low: float = -torch.inf, high: float = torch.inf) -> Tensor:
    """x between two bounds. Exact in floating point: with both ends on the rising piece the slope is 1."""

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        for a, b, upstream, result in _slabs(*before, *after, grad, *gradients):
            step = b - a
            clamped = a.clamp(low, high)
            slope = b.clamp(low, high).sub_(clamped).div_(step)
            # The derivative, already as a number: to convert from bool takes as long as all the rest.
            inside = torch.eq(a, clamped, out=clamped)
            torch.mul(upstream, torch.where(step == 0, inside, slope, out=slope), out=result)

    return recording.operation("clamp", x.detach().clamp(low, high), mean_vjp, x)


def _slabs(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of tensors of equal layout, all rows of some of their values: as many as a CPU's caches hold."""
    if all(x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) for x in tensors):
        tensors = tuple(x.movedim(1, -1) for x in tensors)
    on_cpu = all(x.device.type == "cpu" and x.is_contiguous() for x in tensors)
    if not on_cpu:
        yield tensors
        return
    flat = [x.view(len(x), -1) for x in tensors]
    width = max(SLAB // len(flat[0]), 1)
    for start in range(0, flat[0].shape[1], width):
        yield tuple(x[:, start : start + width] for x in flat)


def _smooth(function: Callable[..., Tensor]) -> Rule:
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
        return recording.operation(function.__name__, value, _elementwise(slope), x)

    return rule


def _closed_form(function: Callable[[Tensor], Tensor], slope: Callable[..., Tensor]) -> Rule:
    """An elementwise function whose quotient follows from x and y at both ends without a difference."""

    def rule(recording: Recording, x: Tensor) -> Tensor:
        mean_vjp = _elementwise(lambda a, b: slope(a, b, function(a), function(b)))
        return recording.operation(function.__name__, function(x.detach()), mean_vjp, x)

    return rule


def _elementwise(slope: Callable[[Tensor, Tensor], Tensor]) -> MeanVJP:
    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        torch.mul(grad, slope(*before, *after), out=gradients[0])

    return mean_vjp


_square = _closed_form(torch.square, lambda a, b, p, q: a + b)
_sqrt = _closed_form(torch.sqrt, lambda a, b, p, q: 1 / (p + q))
_rsqrt = _closed_form(torch.rsqrt, lambda a, b, p, q: -((p * q) ** 2) / (p + q))
_reciprocal = _closed_form(torch.reciprocal, lambda a, b, p, q: -p * q)


def _softmax(recording: Recording, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """It mixes the values of each row: the mean of its Jacobian by quadrature."""
    kwargs.pop("_stacklevel", None)

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        gradients[0].zero_()
        for node, weight in zip(*gauss_legendre(JACOBIANS), strict=True):
            with torch.enable_grad():
                between = torch.lerp(before[0], after[0], node).requires_grad_()
                (part,) = torch.autograd.grad(torch.softmax(between, *args, **kwargs), between, grad)
            gradients[0].add_(part, alpha=weight)

    return recording.operation("softmax", torch.softmax(x.detach(), *args, **kwargs), mean_vjp, x)


def _followed(value: object) -> bool:
    """Whether gradients are asked of a value, or of one of several."""
    if isinstance(value, (list, tuple)):
        return any(map(_followed, value))
    return isinstance(value, Tensor) and value.requires_grad


def _bilinear(function: Callable[[Any, Any], Tensor]) -> Rule:
    """A product: the mean of its Jacobian is its Jacobian at the mean of both factors."""

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        with torch.enable_grad():
            means = [((x + y) / 2).requires_grad_() for x, y in zip(before, after, strict=True)]
            parts = torch.autograd.grad(function(*means), means, grad)
        for part, result in zip(parts, gradients, strict=True):
            result.copy_(part)

    def product(recording: Recording, a: Any, b: Any) -> Tensor:
        if not (_followed(a) and _followed(b)):
            return function(a, b)
        if a.ndim != b.ndim:
            raise ValueError(
                f"model: mean slopes are not known for products of shapes {tuple(a.shape)}, {tuple(b.shape)}"
            )
        return recording.operation(function.__name__, function(a.detach(), b.detach()), mean_vjp, a, b)

    return product


def _with_values(other: Tensor, values: Tensor) -> Tensor:
    """The gradients of one tensor with the values of another."""
    return other + (values - other).detach()


_multiply = _bilinear(torch.mul)
_matmul = _bilinear(torch.matmul)


def _divide(recording: Recording, a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise ValueError(f"model: mean slopes are not known for division with rounding_mode {rounding_mode}")
    if not _followed(b):
        return torch.div(a, b)
    return _with_values(_multiply(recording, a, _reciprocal(recording, b)), torch.div(a, b))


def _divide_by(recording: Recording, b: Tensor, a: Any) -> Tensor:
    return _divide(recording, a, b)


def _relu(recording: Recording, x: Tensor) -> Tensor:
    return ramp(recording, x, 0.0)


def _relu6(recording: Recording, x: Tensor) -> Tensor:
    return ramp(recording, x, 0.0, 6.0)


def _hardtanh(recording: Recording, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return ramp(recording, x, min_val, max_val)


def _clamp(recording: Recording, x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    return ramp(recording, x, -torch.inf if min is None else min, torch.inf if max is None else max)


def _leaky_relu(recording: Recording, x: Tensor, negative_slope: float = 0.01) -> Tensor:
    sloped = negative_slope * x + (1 - negative_slope) * _relu(recording, x)
    return _with_values(sloped, functional.leaky_relu(x, negative_slope))


def _hardsigmoid(recording: Recording, x: Tensor) -> Tensor:
    return ramp(recording, x + 3, 0.0, 6.0) / 6


def _hardswish(recording: Recording, x: Tensor) -> Tensor:
    return _with_values(_multiply(recording, x, _hardsigmoid(recording, x)), functional.hardswish(x))


def _layer_norm(
    recording: Recording,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    normal = _normalised(recording, x, list(range(-len(normalized_shape), 0)), eps)
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _group_norm(
    recording: Recording,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    normal = _normalised(recording, x.reshape(len(x), num_groups, -1), [-1], eps).reshape(x.shape)
    over_channels = (1, -1, *[1] * (x.ndim - 2))
    normal = normal if weight is None else normal * weight.view(over_channels)
    return normal if bias is None else normal + bias.view(over_channels)


def _normalised(recording: Recording, x: Tensor, dims: list[int], eps: float) -> Tensor:
    """x less its mean, over its standard deviation."""
    centred = x - x.mean(dims, keepdim=True)
    variance = _square(recording, centred).mean(dims, keepdim=True)
    return _multiply(recording, centred, _rsqrt(recording, variance + eps))


def _max_pool2d(
    recording: Recording,
    x: Tensor,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Rows of each window first, then columns, as maxima of two: max(a, b) = a + ReLU(b − a)."""
    if return_indices or x.ndim != 4:
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
            x = x + _relu(recording, part - x)
    return _with_values(x, pooled)


def _below(x: Tensor) -> Tensor:
    """What is less than all of a channel, but not by so much that differences would lose digits."""
    x = x.detach()
    return x.masked_fill(x == -torch.inf, torch.inf).amin((2, 3), keepdim=True) - 1


def _strided(x: Tensor, axis: int, start: int, count: int, step: int) -> Tensor:
    """`count` entries of an axis, `step` apart."""
    return x.movedim(axis, 0)[start : start + (count - 1) * step + 1 : step].movedim(0, axis)


def _abs(recording: Recording, x: Tensor) -> Tensor:
    return _with_values(2 * _relu(recording, x) - x, x.abs())


def _prelu(recording: Recording, x: Tensor, weight: Tensor) -> Tensor:
    over_channels = weight.view(1, -1, *[1] * (x.ndim - 2)) if weight.numel() > 1 else weight
    sloped = over_channels * x + (1 - over_channels) * _relu(recording, x)
    return _with_values(sloped, functional.prelu(x, weight))


def _maximum(recording: Recording, a: Tensor, b: Tensor) -> Tensor:
    return _with_values(a + _relu(recording, b - a), torch.maximum(a, b))


def _minimum(recording: Recording, a: Tensor, b: Tensor) -> Tensor:
    return _with_values(a - _relu(recording, a - b), torch.minimum(a, b))


_POWERS: Mapping[float, Rule] = {2: _square, 0.5: _sqrt, -0.5: _rsqrt, -1: _reciprocal}


def _pow(recording: Recording, x: Tensor, exponent: Any) -> Tensor:
    if isinstance(exponent, Tensor) or exponent not in _POWERS:
        powers = ", ".join(f"{power:g}" for power in _POWERS)
        raise ValueError(f"model: the Rescale rule is not known for its operation pow but with {powers}")
    return _POWERS[exponent](recording, x)


RULES: Mapping[str, Rule] = {
    "abs": _abs,
    "bmm": _matmul,
    "celu": _smooth(functional.celu),
    "clamp": _clamp,
    "clamp_max": lambda recording, x, max: _clamp(recording, x, None, max),
    "clamp_min": _clamp,
    "clip": _clamp,
    "div": _divide,
    "divide": _divide,
    "elu": _smooth(functional.elu),
    "exp": _smooth(torch.exp),
    "gelu": _smooth(functional.gelu),
    "group_norm": _group_norm,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "hardtanh": _hardtanh,
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "matmul": _matmul,
    "max_pool2d": _max_pool2d,
    "maximum": _maximum,
    "minimum": _minimum,
    "mish": _smooth(functional.mish),
    "mm": _matmul,
    "mul": _multiply,
    "multiply": _multiply,
    "pow": _pow,
    "prelu": _prelu,
    "reciprocal": _reciprocal,
    "relu": _relu,
    "relu6": _relu6,
    "rdiv": _divide_by,
    "rmatmul": lambda recording, a, b: _matmul(recording, b, a),
    "rsqrt": _rsqrt,
    "rtruediv": _divide_by,
    "selu": _smooth(functional.selu),
    "sigmoid": _smooth(torch.sigmoid),
    "silu": _smooth(functional.silu),
    "softmax": _softmax,
    "softplus": _smooth(functional.softplus),
    "sqrt": _sqrt,
    "square": _square,
    "tanh": _smooth(torch.tanh),
    "true_divide": _divide,
    "truediv": _divide,
}
"""The rules by operation (operations.py). Those that are linear need none; others are refused."""

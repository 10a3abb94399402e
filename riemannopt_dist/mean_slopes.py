"""A model's operations with their mean slopes between neighbouring samples in place of derivatives.

Between two samples on a path a network's gradient changes wherever an activation passes its kink, and its
derivative at either sample knows nothing of it. But the inputs of each activation are known at both samples,
and so is the mean of its derivative on the straight line between them: the slope of the secant. Between a
baseline and the input it is what DeepLIFT's Rescale rule takes (Shrikumar et al., ICML 2017).

Operations that are linear in each sample, such as convolutions, keep their gradients. A product of two
tensors takes the mean of the other factor, which is exact. Maxima and normalisations are made of these.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from riemannopt_dist.schedule import gauss_legendre

JACOBIANS = 16
"""Gauss-Legendre points of a softmax's mean Jacobian, inside the model."""

SLAB = 1 << 18
"""Numbers of one tensor that are worked on at a time on a CPU."""

_ARITHMETIC = "add add_ addmm cat concat concatenate mean neg rsub stack sub sub_ subtract sum"
_OPERATORS = "__add__ __get__ __getitem__ __iadd__ __isub__ __neg__ __pos__ __radd__ __rsub__ __sub__"
_LAYERS = (
    "adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d batch_norm constant_pad_nd conv1d conv2d "
    "conv_transpose2d dropout dropout2d feature_dropout interpolate linear pad pixel_shuffle pixel_unshuffle"
)
_SHAPES = (
    "channel_shuffle chunk clone contiguous expand expand_as flatten flip movedim narrow permute repeat "
    "reshape reshape_as select split split_with_sizes squeeze swapaxes transpose unbind unflatten unfold "
    "unsqueeze view view_as"
)
_TYPES = "bfloat16 detach double float half to type_as"
LINEAR = frozenset(" ".join((_ARITHMETIC, _OPERATORS, _LAYERS, _SHAPES, _TYPES)).split())
"""Names of operations with the same gradient for all values of a sample; batch_norm in evaluation mode."""


class MeanSlopes(TorchFunctionMode):
    """While it is active, torch's functions are differentiated by mean slopes between a batch's rows.

    Row n of a gradient passes through an operation as by the mean of its Jacobian on the straight line from
    row n of the operation's input to row n + 1. The last row's gradient is zero. Values stay as they are, but
    for rounding. No gradient may be asked of the model's parameters.

    Raises ValueError, naming the operation, for one that is not known, and where an operation's input does
    not have a row for each of the batch's `rows` ≥ 2 samples.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        followed = [value for value in (*args, *kwargs.values()) if _followed(value)]
        handler = HANDLED.get(func)
        name = getattr(func, "__name__", str(func))
        if handler is None or not followed:
            result = func(*args, **kwargs)
            if _followed(result) and name not in LINEAR:
                raise ValueError(f"model: mean slopes are not known for its operation {name}")
            return result
        for value in followed:
            if value.ndim == 0 or len(value) != self._rows:
                raise ValueError(
                    f"model: its operation {name} has an input of shape {tuple(value.shape)}, "
                    f"expected a row for each of {self._rows} samples"
                )
        args = (*args, *(kwargs.pop(key) for key in ("input", "other") if key in kwargs))
        in_place = kwargs.pop("inplace", False) or name in IN_PLACE
        result = handler(*args, **kwargs)
        return _Written.apply(args[0], result) if in_place else result


class _Slanted(torch.autograd.Function):
    """y = φ(x) with the gradient of `slopes`, one for each row of x but the last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        passed = torch.empty_like(grad)
        torch.mul(grad[:-1], slopes, out=passed[:-1])
        passed[-1] = 0
        return passed, None, None


class _Written(torch.autograd.Function):
    """A tensor with other values in it; its own gradient ends there (`copy_` would add zeros to it)."""

    @staticmethod
    def forward(ctx: Any, target: Tensor, values: Tensor) -> Tensor:
        ctx.mark_dirty(target)
        return target.copy_(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def _slanted(x: Tensor, y: Tensor, slopes: Tensor) -> Tensor:
    result: Tensor = _Slanted.apply(x, y, slopes)
    return result


def ramp(x: Tensor, low: float = -torch.inf, high: float = torch.inf) -> Tensor:
    """x between two bounds. Exact in floating point: with both rows on the rising piece the slope is 1."""
    with torch.no_grad():
        y = torch.empty_like(x)
        slopes = torch.empty_like(x[1:])
        for before, after, slope in _slabs(x, y, slopes):
            torch.clamp(before, low, high, out=after)
            step = before[1:] - before[:-1]
            torch.sub(after[1:], after[:-1], out=slope).div_(step)
            # The derivative, already as a number: to convert from bool takes as long as all the rest.
            inside = torch.eq(before[:-1], after[:-1], out=torch.empty_like(step))
            torch.where(step == 0, inside, slope, out=slope)
    return _slanted(x, y, slopes)


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


def _smooth(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An elementwise function without kinks: its quotients, or its derivative in the middle of small steps.

    A quotient of rounded differences over a step h is off by about ε/h, the derivative by about h².
    """

    def slanted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        middle = ((x[1:] + x[:-1]) / 2).detach().requires_grad_()
        (derivative,) = torch.autograd.grad(function(middle, *args, **kwargs).sum(), middle)
        with torch.no_grad():
            y = function(x, *args, **kwargs)
            step = x[1:] - x[:-1]
            small = step.abs() < torch.finfo(x.dtype).eps ** (1 / 3)
            slopes = torch.where(small, derivative, (y[1:] - y[:-1]) / step)
        return _slanted(x, y, slopes)

    return slanted


def _closed_form(
    function: Callable[[Tensor], Tensor], slope: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """An elementwise function whose quotient follows from x and y at both rows without a difference."""

    def slanted(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = function(x)
            slopes = slope(x[:-1], x[1:], y[:-1], y[1:])
        return _slanted(x, y, slopes)

    return slanted


_square = _closed_form(torch.square, lambda a, b, p, q: a + b)
_sqrt = _closed_form(torch.sqrt, lambda a, b, p, q: 1 / (p + q))
_rsqrt = _closed_form(torch.rsqrt, lambda a, b, p, q: -((p * q) ** 2) / (p + q))
_reciprocal = _closed_form(torch.reciprocal, lambda a, b, p, q: -p * q)


class _Mixing(torch.autograd.Function):
    """A function that mixes the values of each row: the mean of its Jacobian by quadrature."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        result: Tensor = function(x)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        passed = torch.zeros_like(x)
        for node, weight in zip(*gauss_legendre(JACOBIANS), strict=True):
            with torch.enable_grad():
                between = torch.lerp(x[:-1], x[1:], node).requires_grad_()
                (part,) = torch.autograd.grad(ctx.function(between), between, grad[:-1])
            passed[:-1] += weight * part
        return passed, None


def _softmax(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    kwargs.pop("_stacklevel", None)
    result: Tensor = _Mixing.apply(x, lambda values: torch.softmax(values, *args, **kwargs))
    return result


def _followed(value: object) -> bool:
    """Whether gradients are asked of a value, or of one of several."""
    if isinstance(value, (list, tuple)):
        return any(map(_followed, value))
    return isinstance(value, Tensor) and value.requires_grad


def _bilinear(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """A product whose gradients are by the other factor's mean over both rows, its values as they are."""

    def product(a: Any, b: Any) -> Tensor:
        if not (_followed(a) and _followed(b)):
            return function(a, b)
        if a.ndim != b.ndim:
            raise ValueError(
                f"model: mean slopes are not known for products of shapes {tuple(a.shape)}, {tuple(b.shape)}"
            )
        linear = function(a, _row_means(b)) + function(_row_means(a), b)
        return _with_values(linear, function(a.detach(), b.detach()))

    return product


def _row_means(x: Tensor) -> Tensor:
    """The mean of each row and the next, constant; the last row has none, and stays."""
    x = x.detach()
    return torch.cat([(x[:-1] + x[1:]) / 2, x[-1:]])


def _with_values(slanted: Tensor, values: Tensor) -> Tensor:
    """The gradients of one tensor with the values of another."""
    return slanted + (values - slanted).detach()


_multiply = _bilinear(torch.mul)
_matmul = _bilinear(torch.matmul)


def _divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise ValueError(f"model: mean slopes are not known for division with rounding_mode {rounding_mode}")
    if not _followed(b):
        return torch.div(a, b)
    return _with_values(_multiply(a, _reciprocal(b)), torch.div(a, b))


def _divide_by(b: Tensor, a: Any) -> Tensor:
    return _divide(a, b)


def _relu(x: Tensor) -> Tensor:
    return ramp(x, 0.0)


def _relu6(x: Tensor) -> Tensor:
    return ramp(x, 0.0, 6.0)


def _hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return ramp(x, min_val, max_val)


def _clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    return ramp(x, -torch.inf if min is None else min, torch.inf if max is None else max)


def _leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    slanted = negative_slope * x + (1 - negative_slope) * _relu(x)
    return _with_values(slanted, functional.leaky_relu(x, negative_slope))


def _hardsigmoid(x: Tensor) -> Tensor:
    return ramp(x + 3, 0.0, 6.0) / 6


def _hardswish(x: Tensor) -> Tensor:
    return _with_values(_multiply(x, _hardsigmoid(x)), functional.hardswish(x))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    normal = _normalised(x, list(range(-len(normalized_shape), 0)), eps)
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    normal = _normalised(x.reshape(len(x), num_groups, -1), [-1], eps).reshape(x.shape)
    over_channels = (1, -1, *[1] * (x.ndim - 2))
    normal = normal if weight is None else normal * weight.view(over_channels)
    return normal if bias is None else normal + bias.view(over_channels)


def _normalised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    """x less its mean, over its standard deviation."""
    centred = x - x.mean(dims, keepdim=True)
    variance = _square(centred).mean(dims, keepdim=True)
    return _multiply(centred, _rsqrt(variance + eps))


def _max_pool2d(
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
            x = x + _relu(part - x)
    return _with_values(x, pooled)


def _below(x: Tensor) -> Tensor:
    """What is less than all of a channel, but not by so much that differences would lose digits."""
    x = x.detach()
    return x.masked_fill(x == -torch.inf, torch.inf).amin((2, 3), keepdim=True) - 1


def _strided(x: Tensor, axis: int, start: int, count: int, step: int) -> Tensor:
    """`count` entries of an axis, `step` apart."""
    return x.movedim(axis, 0)[start : start + (count - 1) * step + 1 : step].movedim(0, axis)


_SMOOTH: tuple[Callable[..., Tensor], ...] = (
    torch.sigmoid,
    torch.Tensor.sigmoid,
    functional.sigmoid,
    torch.tanh,
    torch.Tensor.tanh,
    functional.tanh,
    functional.silu,
    functional.gelu,
    functional.mish,
    functional.softplus,
    functional.elu,
    functional.selu,
    functional.celu,
    torch.exp,
    torch.Tensor.exp,
)

HANDLED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    **{function: _smooth(function) for function in _SMOOTH},
    **dict.fromkeys((torch.square, Tensor.square), _square),
    **dict.fromkeys((torch.sqrt, Tensor.sqrt), _sqrt),
    **dict.fromkeys((torch.rsqrt, Tensor.rsqrt), _rsqrt),
    **dict.fromkeys((torch.reciprocal, Tensor.reciprocal), _reciprocal),
    **dict.fromkeys((functional.softmax, torch.softmax, Tensor.softmax), _softmax),
    functional.layer_norm: _layer_norm,
    functional.group_norm: _group_norm,
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _relu),
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,
    **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip, Tensor.clamp_), _clamp),
    functional.leaky_relu: _leaky_relu,
    functional.hardsigmoid: _hardsigmoid,
    functional.hardswish: _hardswish,
    **dict.fromkeys((torch.mul, torch.multiply, Tensor.mul, Tensor.mul_), _multiply),
    **dict.fromkeys((Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__), _multiply),
    **dict.fromkeys((torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__), _matmul),
    **dict.fromkeys((torch.div, Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__), _divide),
    Tensor.__rtruediv__: _divide_by,
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _max_pool2d),
}
"""What replaces an operation; those in `LINEAR` are left as they are, and others refused."""

IN_PLACE = frozenset(("relu_", "clamp_", "mul_", "div_", "__imul__", "__itruediv__"))
"""Names of operations among these that write to their input, as others do that are called with `inplace`."""

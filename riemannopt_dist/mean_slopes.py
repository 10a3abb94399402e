"""A model's operations with their mean slopes between neighbouring samples in place of derivatives.

Between two samples on a path a network's gradient changes wherever an activation passes its kink, and its
derivative at either sample knows nothing of it. But the inputs of each activation are known at both samples,
and so is the mean of its derivative on the straight line between them: the slope of the secant. Between a
baseline and the input it is what DeepLIFT's Rescale rule takes (Shrikumar et al., ICML 2017).

Operations that are linear in each sample, such as convolutions, keep their gradients. A product of two
tensors takes the mean of the other factor, which is exact. Where an operation mixes the values of a sample
without being linear, as a layer's normalisation does, the mean of its Jacobian is taken by quadrature.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from riemannopt_dist.schedule import gauss_legendre

SMALL_STEP = 1e-2
"""Steps below this are no basis for a quotient of rounded differences: the derivative in their middle is."""

JACOBIANS = 8
"""Gauss-Legendre points of the mean of a Jacobian."""

_ARITHMETIC = "add add_ addmm cat concat concatenate mean neg rsub stack sub sub_ subtract sum"
_OPERATORS = "__add__ __get__ __getitem__ __iadd__ __isub__ __neg__ __pos__ __radd__ __rsub__ __sub__"
_LAYERS = (
    "adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d batch_norm constant_pad_nd conv1d conv2d "
    "conv_transpose2d dropout dropout2d feature_dropout interpolate linear pad pixel_shuffle pixel_unshuffle"
)
_SHAPES = (
    "chunk clone contiguous expand expand_as flatten flip movedim narrow permute repeat reshape select split "
    "split_with_sizes squeeze swapaxes transpose unbind unflatten unsqueeze view"
)
_TYPES = "bfloat16 detach double float half to type_as"
LINEAR = frozenset(" ".join((_ARITHMETIC, _OPERATORS, _LAYERS, _SHAPES, _TYPES)).split())
"""Names of operations with the same gradient for all values of a sample; batch_norm in evaluation mode."""


class MeanSlopes(TorchFunctionMode):
    """While it is active, torch's functions are differentiated by mean slopes between a batch's rows.

    Row n of a gradient passes through an operation as by the mean of its Jacobian on the straight line from
    row n of the operation's input to row n + 1. The last row's gradient is zero. Values are what they always
    are; what writes to its input is computed beside it, so a model must use what such an operation returns.

    Raises ValueError, naming the operation, for one that is not known, and where an operation's input
    does not have a row for each of the batch's `rows` ≥ 2 samples.
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
        kwargs = kwargs or {}
        followed = [value for value in (*args, *kwargs.values()) if _followed(value)]
        handler = HANDLED.get(func)
        if handler is None or not followed:
            result = func(*args, **kwargs)
            name = getattr(func, "__name__", str(func))
            if _followed(result) and name not in LINEAR:
                raise ValueError(f"model: mean slopes are not known for its operation {name}")
            return result
        for value in followed:
            if value.ndim == 0 or len(value) != self._rows:
                name = getattr(func, "__name__", str(func))
                raise ValueError(
                    f"model: its operation {name} has an input of shape {tuple(value.shape)}, "
                    f"expected a row for each of {self._rows} samples"
                )
        return handler(*args, **kwargs)


def ramp(x: Tensor, low: float = 0.0, high: float = torch.inf) -> Tensor:
    """x between two bounds, such as ReLU's, with mean slopes between rows."""
    bounded: Tensor = _Ramp.apply(x, low, high)
    return bounded


class _Ramp(torch.autograd.Function):
    """Exact in floating point too: where both rows lie on the rising piece, the quotient is 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        y = x.clamp(low, high)
        step = x[1:] - x[:-1]
        slopes = (y[1:] - y[:-1]).div_(step)
        inside = (x[:-1] > low) & (x[:-1] < high)
        ctx.save_for_backward(torch.where(step == 0, inside, slopes))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _by_slopes(ctx, grad), None, None


class _Smooth(torch.autograd.Function):
    """An elementwise function without kinks, or with kinks that matter little within SMALL_STEP."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        y = function(x)
        step = x[1:] - x[:-1]
        with torch.enable_grad():
            middle = ((x[1:] + x[:-1]) / 2).requires_grad_()
            (derivative,) = torch.autograd.grad(function(middle).sum(), middle)
        slopes = (y[1:] - y[:-1]) / step
        ctx.save_for_backward(torch.where(step.abs() < SMALL_STEP, derivative, slopes))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _by_slopes(ctx, grad), None


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


def _by_slopes(ctx: Any, grad: Tensor) -> Tensor:
    (slopes,) = ctx.saved_tensors
    passed = torch.empty_like(grad)
    torch.mul(grad[:-1], slopes, out=passed[:-1])
    passed[-1] = 0
    return passed


def _followed(value: object) -> bool:
    """Whether gradients are asked of a value, or of one of several."""
    if isinstance(value, (list, tuple)):
        return any(map(_followed, value))
    return isinstance(value, Tensor) and value.requires_grad


def _elementwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` with mean slopes; it must not write to its input."""

    def slanted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("inplace", None)
        result: Tensor = _Smooth.apply(x, lambda values: function(values, *args, **kwargs))
        return result

    return slanted


def _mixing(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def averaged(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = _Mixing.apply(x, lambda values: function(values, *args, **kwargs))
        return result

    return averaged


def _relu(x: Tensor, inplace: bool = False) -> Tensor:
    return ramp(x)


def _relu6(x: Tensor, inplace: bool = False) -> Tensor:
    return ramp(x, 0.0, 6.0)


def _hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    return ramp(x, min_val, max_val)


def _clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    return ramp(x, -torch.inf if min is None else min, torch.inf if max is None else max)


def _leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return negative_slope * x + (1 - negative_slope) * ramp(x)


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return ramp(x + 3, 0.0, 6.0) / 6


def _hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    return _multiply(x, _hardsigmoid(x))


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
        return linear + (function(a, b) - linear).detach()

    return product


def _row_means(x: Tensor) -> Tensor:
    """The mean of each row and the next, constant; the last row has none, and stays."""
    x = x.detach()
    return torch.cat([(x[:-1] + x[1:]) / 2, x[-1:]])


_multiply = _bilinear(torch.mul)


def _divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise ValueError(f"model: mean slopes are not known for division with rounding_mode {rounding_mode}")
    return _multiply(a, _elementwise(torch.reciprocal)(b)) if _followed(b) else a / b


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
    for axis in (0, 1):
        size, distance, margin = (
            _of_axis(kernel_size, axis),
            _of_axis(dilation, axis),
            _of_axis(padding, axis),
        )
        step = _of_axis(stride, axis) if stride else size
        outputs, length = pooled.shape[2 + axis], x.shape[2 + axis]
        reach = (outputs - 1) * step + (size - 1) * distance + 1
        sides = (margin, max(reach - length - margin, 0))
        if any(sides):
            # Below everything, but not by so much that differences would lose digits.
            floor = float(x.detach().min()) - 1
            x = functional.pad(x, (0, 0, *sides) if axis == 0 else sides, value=floor)
        starts = [place * distance for place in range(size)]
        parts = [_strided(x, 2 + axis, start, outputs, step) for start in starts]
        x = parts[0]
        for part in parts[1:]:
            x = x + ramp(part - x)
    return x


def _strided(x: Tensor, axis: int, start: int, count: int, step: int) -> Tensor:
    """`count` entries of an axis, `step` apart."""
    return x.movedim(axis, 0)[start : start + (count - 1) * step + 1 : step].movedim(0, axis)


def _of_axis(value: int | tuple[int, int] | list[int], axis: int) -> int:
    return value if isinstance(value, int) else value[axis % len(value)]


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
    torch.sqrt,
    torch.Tensor.sqrt,
    torch.square,
)

HANDLED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    **{function: _elementwise(function) for function in _SMOOTH},
    **{
        function: _mixing(function)
        for function in (functional.layer_norm, functional.group_norm, functional.softmax, torch.softmax)
    },
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _relu),
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,
    **dict.fromkeys((torch.clamp, Tensor.clamp), _clamp),
    functional.leaky_relu: _leaky_relu,
    functional.hardsigmoid: _hardsigmoid,
    functional.hardswish: _hardswish,
    **dict.fromkeys((torch.mul, torch.multiply, Tensor.mul, Tensor.mul_), _multiply),
    **dict.fromkeys((Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__), _multiply),
    **dict.fromkeys((torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__), _bilinear(torch.matmul)),
    **dict.fromkeys((torch.div, Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__), _divide),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _max_pool2d),
}
"""What replaces an operation; those in `LINEAR` are left as they are, and others refused."""

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

Ends = tuple[Tensor, ...]
"""An operation's inputs at some samples."""

Transposed = Callable[[Ends, Ends, Tensor, Ends], None]
"""Takes an operation's inputs at samples and at their neighbours, and a gradient with respect to its values;
writes the gradients with respect to its inputs, by the mean Jacobian between the two, into the last."""

Handler = Callable[..., Tensor]
"""Takes the pass and an operation's arguments, and returns its value with other gradients."""


class Tape:
    """What a model's operations were given, at the samples of one forward pass or of several.

    A sample's neighbour is the next one of its pass, and the last has none, unless `join` says otherwise.
    """

    def __init__(self) -> None:
        self._passes = 0
        self._operations: list[Operation] = []
        self._neighbours: Sequence[Sequence[int]] | None = None

    def begin(self) -> int:
        """The number of a new pass."""
        self._passes += 1
        return self._passes - 1

    def join(self, neighbours: Sequence[Sequence[int]]) -> None:
        """For each pass: its samples' neighbours, counted through all passes' samples in turn.

        A sample without one is its own.
        """
        self._neighbours = neighbours

    def record(self, index: int, number: int, name: str, inputs: list[Tensor]) -> "Operation":
        """Keep what operation `index` of pass `number` is given; the list may get copies of it later."""
        if number == 0:
            self._operations.append(Operation(self, name))
        if index >= len(self._operations) or self._operations[index].name != name:
            raise ValueError(f"model: its operation {name} is not among those of other samples")
        self._operations[index].given.append(inputs)
        return self._operations[index]

    def neighbours(self, given: Sequence[Sequence[Tensor]], number: int) -> Ends:
        """What an operation was given at the neighbours of a pass's samples (or of all but the last)."""
        if self._neighbours is None:
            return tuple(x[1:] for x in given[number])
        return tuple(_picked(parts, self._neighbours[number]) for parts in zip(*given, strict=True))


def _picked(parts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """Rows of several tensors, counted through all; copied once, in the layout that they have."""
    rows = [row for part in parts for row in torch.split(part, 1)]
    return torch.cat([rows[place] for place in places])


class Operation:
    """One operation of the model, and what it was given in each pass."""

    def __init__(self, tape: Tape, name: str) -> None:
        self.name = name
        self.given: list[list[Tensor]] = []
        self._tape = tape
        self._used = 0

    def ends(self, number: int) -> tuple[Ends, Ends]:
        """What it was given at a pass's samples, and at their neighbours.

        That is let go once all passes have gone back through the operation.
        """
        given = self.given
        self._used += 1
        if self._used == len(given):
            self.given = []
        return tuple(given[number]), self._tape.neighbours(given, number)


class MeanSlopes(TorchFunctionMode):
    """While it is active, torch's functions are differentiated by mean slopes between a pass's samples.

    Row n of a gradient passes through an operation as by the mean of its Jacobian on the straight line from
    row n of the operation's input to its neighbour on the `tape`; without one it is zero. Values stay as they
    are, but for rounding. No gradient may be asked of the model's parameters.

    Raises ValueError, naming the operation, for one that is not known, and where an operation's input does
    not have a row for each of the batch's `rows` ≥ 2 samples.
    """

    def __init__(self, rows: int, tape: Tape | None = None) -> None:
        super().__init__()
        self._rows = rows
        self._tape = Tape() if tape is None else tape
        self._number = self._tape.begin()
        self._index = 0
        self._kept: dict[int, list[list[Tensor]]] = {}

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
            if _writes(name):
                self._spare(args[0])
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
        if not (kwargs.pop("inplace", False) or _writes(name)):
            return handler(self, *args, **kwargs)
        result = handler(self, args[0].clone(), *args[1:], **kwargs)
        self._spare(args[0])
        return _Written.apply(args[0], result)

    def slanted(self, name: str, value: Tensor, transposed: Transposed, *inputs: Tensor) -> Tensor:
        """The value of an operation on `inputs`, with the gradients of `transposed`."""
        kept = [x.detach() for x in inputs]
        for x in kept:
            self._kept.setdefault(_memory(x), []).append(kept)
        operation = self._tape.record(self._index, self._number, name, kept)
        self._index += 1
        result: Tensor = _Slanted.apply(operation, self._number, transposed, value, *inputs)
        return result

    def _spare(self, written: Tensor) -> None:
        """Copy what operations were given of a tensor's memory, before it is written to."""
        for kept in self._kept.pop(_memory(written), []):
            kept[:] = [x.clone() if _memory(x) == _memory(written) else x for x in kept]


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _writes(name: str) -> bool:
    """Whether a function writes to its first argument, by its name: `add_` and `__iadd__` do."""
    dunder = name.endswith("__")
    return name.startswith(("__i", "__set")) if dunder else name.endswith("_")


class _Slanted(torch.autograd.Function):
    """A value with gradients by an operation's mean Jacobian: zero for rows without a neighbour."""

    @staticmethod
    def forward(
        ctx: Any, operation: Operation, number: int, transposed: Transposed, value: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.operation, ctx.number, ctx.transposed = operation, number, transposed
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        before, after = ctx.operation.ends(ctx.number)
        passed = tuple(torch.empty_like(x) for x in before)
        count = len(after[0])
        for part in passed:
            part[count:] = 0
        before, slots = (tuple(x[:count] for x in of_all) for of_all in (before, passed))
        ctx.transposed(before, after, grad[:count], slots)
        return None, None, None, None, *passed


class _Written(torch.autograd.Function):
    """A tensor with other values in it; its own gradient ends there (`copy_` would add zeros to it)."""

    @staticmethod
    def forward(ctx: Any, target: Tensor, values: Tensor) -> Tensor:
        ctx.mark_dirty(target)
        return target.copy_(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def ramp(mode: MeanSlopes, x: Tensor, low: float = -torch.inf, high: float = torch.inf) -> Tensor:
    """x between two bounds. Exact in floating point: with both ends on the rising piece the slope is 1."""

    def transposed(before: Ends, after: Ends, grad: Tensor, passed: Ends) -> None:
        for a, b, slanted, result in _slabs(*before, *after, grad, *passed):
            step = b - a
            clamped = a.clamp(low, high)
            slope = b.clamp(low, high).sub_(clamped).div_(step)
            # The derivative, already as a number: to convert from bool takes as long as all the rest.
            inside = torch.eq(a, clamped, out=clamped)
            torch.mul(slanted, torch.where(step == 0, inside, slope, out=slope), out=result)

    return mode.slanted("clamp", x.detach().clamp(low, high), transposed, x)


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


def _smooth(function: Callable[..., Tensor]) -> Handler:
    """An elementwise function without kinks: its quotients, or its derivative in the middle of small steps.

    A quotient of rounded differences over a step h is off by about ε/h, the derivative by about h².
    """

    def handler(mode: MeanSlopes, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        def slope(a: Tensor, b: Tensor) -> Tensor:
            with torch.enable_grad():
                middle = ((a + b) / 2).requires_grad_()
                (derivative,) = torch.autograd.grad(function(middle, *args, **kwargs).sum(), middle)
            step = b - a
            small = step.abs() < torch.finfo(a.dtype).eps ** (1 / 3)
            rise = function(b, *args, **kwargs) - function(a, *args, **kwargs)
            return torch.where(small, derivative, rise / step)

        value = function(x.detach(), *args, **kwargs)
        return mode.slanted(function.__name__, value, _elementwise(slope), x)

    return handler


def _closed_form(function: Callable[[Tensor], Tensor], slope: Callable[..., Tensor]) -> Handler:
    """An elementwise function whose quotient follows from x and y at both ends without a difference."""

    def handler(mode: MeanSlopes, x: Tensor) -> Tensor:
        transposed = _elementwise(lambda a, b: slope(a, b, function(a), function(b)))
        return mode.slanted(function.__name__, function(x.detach()), transposed, x)

    return handler


def _elementwise(slope: Callable[[Tensor, Tensor], Tensor]) -> Transposed:
    def transposed(before: Ends, after: Ends, grad: Tensor, passed: Ends) -> None:
        torch.mul(grad, slope(*before, *after), out=passed[0])

    return transposed


_square = _closed_form(torch.square, lambda a, b, p, q: a + b)
_sqrt = _closed_form(torch.sqrt, lambda a, b, p, q: 1 / (p + q))
_rsqrt = _closed_form(torch.rsqrt, lambda a, b, p, q: -((p * q) ** 2) / (p + q))
_reciprocal = _closed_form(torch.reciprocal, lambda a, b, p, q: -p * q)


def _softmax(mode: MeanSlopes, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """It mixes the values of each row: the mean of its Jacobian by quadrature."""
    kwargs.pop("_stacklevel", None)

    def transposed(before: Ends, after: Ends, grad: Tensor, passed: Ends) -> None:
        passed[0].zero_()
        for node, weight in zip(*gauss_legendre(JACOBIANS), strict=True):
            with torch.enable_grad():
                between = torch.lerp(before[0], after[0], node).requires_grad_()
                (part,) = torch.autograd.grad(torch.softmax(between, *args, **kwargs), between, grad)
            passed[0].add_(part, alpha=weight)

    return mode.slanted("softmax", torch.softmax(x.detach(), *args, **kwargs), transposed, x)


def _followed(value: object) -> bool:
    """Whether gradients are asked of a value, or of one of several."""
    if isinstance(value, (list, tuple)):
        return any(map(_followed, value))
    return isinstance(value, Tensor) and value.requires_grad


def _bilinear(function: Callable[[Any, Any], Tensor]) -> Handler:
    """A product: the mean of its Jacobian is its Jacobian at the mean of both factors."""

    def transposed(before: Ends, after: Ends, grad: Tensor, passed: Ends) -> None:
        with torch.enable_grad():
            means = [((x + y) / 2).requires_grad_() for x, y in zip(before, after, strict=True)]
            parts = torch.autograd.grad(function(*means), means, grad)
        for part, result in zip(parts, passed, strict=True):
            result.copy_(part)

    def product(mode: MeanSlopes, a: Any, b: Any) -> Tensor:
        if not (_followed(a) and _followed(b)):
            return function(a, b)
        if a.ndim != b.ndim:
            raise ValueError(
                f"model: mean slopes are not known for products of shapes {tuple(a.shape)}, {tuple(b.shape)}"
            )
        return mode.slanted(function.__name__, function(a.detach(), b.detach()), transposed, a, b)

    return product


def _with_values(slanted: Tensor, values: Tensor) -> Tensor:
    """The gradients of one tensor with the values of another."""
    return slanted + (values - slanted).detach()


_multiply = _bilinear(torch.mul)
_matmul = _bilinear(torch.matmul)


def _divide(mode: MeanSlopes, a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise ValueError(f"model: mean slopes are not known for division with rounding_mode {rounding_mode}")
    if not _followed(b):
        return torch.div(a, b)
    return _with_values(_multiply(mode, a, _reciprocal(mode, b)), torch.div(a, b))


def _divide_by(mode: MeanSlopes, b: Tensor, a: Any) -> Tensor:
    return _divide(mode, a, b)


def _relu(mode: MeanSlopes, x: Tensor) -> Tensor:
    return ramp(mode, x, 0.0)


def _relu6(mode: MeanSlopes, x: Tensor) -> Tensor:
    return ramp(mode, x, 0.0, 6.0)


def _hardtanh(mode: MeanSlopes, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return ramp(mode, x, min_val, max_val)


def _clamp(mode: MeanSlopes, x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    return ramp(mode, x, -torch.inf if min is None else min, torch.inf if max is None else max)


def _leaky_relu(mode: MeanSlopes, x: Tensor, negative_slope: float = 0.01) -> Tensor:
    slanted = negative_slope * x + (1 - negative_slope) * _relu(mode, x)
    return _with_values(slanted, functional.leaky_relu(x, negative_slope))


def _hardsigmoid(mode: MeanSlopes, x: Tensor) -> Tensor:
    return ramp(mode, x + 3, 0.0, 6.0) / 6


def _hardswish(mode: MeanSlopes, x: Tensor) -> Tensor:
    return _with_values(_multiply(mode, x, _hardsigmoid(mode, x)), functional.hardswish(x))


def _layer_norm(
    mode: MeanSlopes,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    normal = _normalised(mode, x, list(range(-len(normalized_shape), 0)), eps)
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _group_norm(
    mode: MeanSlopes,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    normal = _normalised(mode, x.reshape(len(x), num_groups, -1), [-1], eps).reshape(x.shape)
    over_channels = (1, -1, *[1] * (x.ndim - 2))
    normal = normal if weight is None else normal * weight.view(over_channels)
    return normal if bias is None else normal + bias.view(over_channels)


def _normalised(mode: MeanSlopes, x: Tensor, dims: list[int], eps: float) -> Tensor:
    """x less its mean, over its standard deviation."""
    centred = x - x.mean(dims, keepdim=True)
    variance = _square(mode, centred).mean(dims, keepdim=True)
    return _multiply(mode, centred, _rsqrt(mode, variance + eps))


def _max_pool2d(
    mode: MeanSlopes,
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
            x = x + _relu(mode, part - x)
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

HANDLED: dict[Callable[..., Any], Handler] = {
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

"""torch's functions by what they compute: one name for `relu`, `relu_` and a module's layer alike.

Those that are linear in each sample keep their gradients, whatever the samples are.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import FunctionType
from typing import Any

from torch import Tensor

_ARITHMETIC = (
    "add concat concatenate cat fill mean neg negative pos positive rsub stack sub subtract sum zero"
)
_LAYERS = (
    "adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d batch_norm constant_pad_nd dropout "
    "dropout2d feature_dropout fold interpolate pad pixel_shuffle pixel_unshuffle"
)
_SHAPES = (
    "broadcast_to channel_shuffle chunk clone contiguous copy diagonal expand expand_as flatten flip getitem "
    "hsplit index_add index_copy index_select masked_fill movedim narrow permute ravel repeat "
    "repeat_interleave reshape reshape_as roll rot90 select setitem split split_with_sizes squeeze swapaxes "
    "swapdims t tensor_split tile transpose unbind unflatten unfold unsqueeze view view_as vsplit where"
)
_TYPES = "bfloat16 detach double float get half to type_as"

BY_WEIGHTS = frozenset(["addmm", "conv1d", "conv2d", "conv_transpose2d", "linear"])
"""Names of operations that are linear where only one of what they multiply depends on the sample."""

LINEAR = BY_WEIGHTS | frozenset(" ".join((_ARITHMETIC, _LAYERS, _SHAPES, _TYPES)).split())
"""Names of operations with the same gradient for all values of a sample; batch_norm in evaluation mode."""

AS_FIRST = frozenset(["expand_as", "reshape_as", "to", "type_as", "view_as"])
"""Names of operations that take values from their first argument alone, and shape or type from another."""

COMPOSITE = frozenset(["multi_head_attention_forward", "normalize"])
"""Names of functions that torch writes in Python, of operations that are known."""

_DUNDER = re.compile(r"__([ir]?)(add|sub|mul|matmul|truediv|floordiv|div|mod|pow)__")
_COMMUTATIVE = ("radd", "rmul")


def operation_of(func: Callable[..., Any]) -> tuple[str, bool]:
    """What a function computes, without regard to where, and whether it writes to its first argument.

    `torch.relu_` is relu and writes, `Tensor.__imul__` mul and writes, `Tensor.__rsub__` rsub.
    """
    name = getattr(func, "__name__", str(func))
    if arithmetic := _DUNDER.fullmatch(name):
        side, operation = arithmetic.groups()
        if side == "r" and f"r{operation}" not in _COMMUTATIVE:
            operation = f"r{operation}"
        return operation, side == "i"
    dunder = name.startswith("__") and name.endswith("__")
    writes = name.startswith("__set") if dunder else name.endswith("_")
    return name.strip("_"), writes


def makes_new(name: str) -> bool:
    """Whether a function takes shape and type of its first argument alone, as zeros_like and new_zeros do."""
    return name.endswith("_like") or name.startswith("new_")


def tensors_in(arguments: Any) -> Iterator[Tensor]:
    """The tensors among arguments, in lists, tuples, mappings and slices too."""
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from tensors_in(argument)
    elif isinstance(arguments, Mapping):
        yield from tensors_in(list(arguments.values()))
    elif isinstance(arguments, slice):
        yield from tensors_in((arguments.start, arguments.stop, arguments.step))


@cache
def body_of(func: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch's that is written in Python, with what it calls shown one by one.

    It would first hand itself over to the mode whole, where torch asks whether there is one.
    """
    if not isinstance(func, FunctionType):
        raise TypeError(f"{func} is not written in Python")
    asks = [name for name in func.__globals__ if name.startswith("has_torch_function")]
    namespace = func.__globals__ | dict.fromkeys(asks, lambda *_: False)
    body = FunctionType(func.__code__, namespace, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body

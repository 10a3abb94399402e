"""A CUDA device that is emulated on a CPU, so that mistakes about devices show without a GPU.

Tensors on it are ordinary tensors whose memory is marked: what is computed from them is marked as well, says
that it is on `cuda:0`, and is not to be mixed with the rest. So autograd works as it is, and values are those
of the CPU. What makes a host wait for its GPU is counted by the place that does it.
"""

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("cuda:0")

Function = Callable[..., Any]
T = TypeVar("T")
aten = torch.ops.aten

PACKAGE = f"{Path(__file__).parents[1]}/"
TORCH = f"{Path(torch.__file__).parent}/"

ANSWERS: dict[Any, Any] = {
    Tensor.device.__get__: DEVICE,
    Tensor.is_cuda.__get__: True,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]
    Tensor.get_device: 0,
}
"""What tensors on the device say of themselves."""
MOVES: tuple[Function, ...] = (Tensor.to, Tensor.cuda, Tensor.cpu)
FROM_NUMBERS: tuple[Function, ...] = (torch.tensor, torch.as_tensor, Tensor.new_tensor)
"""What makes tensors of numbers that the host has."""
ARRAYS: tuple[Function, ...] = (Tensor.numpy, Tensor.__array__)
CHECKED_ON_CPU: tuple[Function, ...] = (torch.nn.functional.one_hot,)
"""What looks at its values on a CPU alone."""
READS = frozenset(
    [
        aten._local_scalar_dense,  # item, bool, int, float
        aten._unique2,
        aten.bincount,
        aten.equal,
        aten.masked_select,
        aten.nonzero,
        aten.repeat_interleave,
        aten.unique_consecutive,
        aten.unique_dim,
    ]
)
"""Operations whose result, or its shape, the host has to know."""
INDEXING = frozenset([aten.index, aten.index_put, aten.index_put_])

TO_DEVICE, TO_HOST, EVENT = "copy to the device", "copy to the host", "event"


class Wait(NamedTuple):
    """What makes the host wait for the device, and the innermost line of the package that does it."""

    what: str
    place: str


@contextmanager
def emulated_cuda() -> Iterator[Counter[Wait]]:
    """Let tensors be moved to `cuda:0`, and say that they are there, in this thread.

    It gives the reads from the device, and the copies to it from memory that is not pinned, counted as they
    come; waits for an event count in this thread alone. Inside, RuntimeError is raised where tensors of the
    device and of the host are mixed, naming the operation and the place, and TypeError where one of the
    device is taken for an array.
    """
    waits: Counter[Wait] = Counter()
    operations = _Operations(waits)
    events = partial(_Event, operations, threading.get_ident())
    with operations, _Calls(operations), patch.object(torch.cuda, "Event", events):
        yield waits


class _Call(NamedTuple):
    """The function of torch that is being called: whether tensors on the device are among its arguments.

    `reads` says whether its reads are the device's.
    """

    on_device: bool
    reads: bool


class _Calls(TorchFunctionMode):
    """Sees every call of torch: answers where a tensor is, and moves tensors."""

    def __init__(self, operations: "_Operations") -> None:
        super().__init__()
        self._operations = operations

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in ANSWERS:
            return ANSWERS[func] if is_on_device(args[0]) else func(*args)
        if func.__name__ == "__get__":  # a property
            return func(*args)
        on_device = any(map(is_on_device, tensors_in((args, kwargs))))
        if on_device and func in ARRAYS:
            raise TypeError(f"a tensor on {DEVICE} is no array at {_caller()}: expected .cpu() before it")
        if func is Tensor.pin_memory:
            return _PINNED.put(args[0].clone())
        if func in MOVES or func in FROM_NUMBERS:
            return self._moved(func, args, kwargs)
        if on_device and func is Tensor.tolist:
            self._operations.wait("tolist")
        if "device" in kwargs:
            result = func(*args, **{**kwargs, "device": "cpu"})
            return _placed(result, _on_device(args, kwargs))
        return self._called(func, on_device, args, kwargs)

    def _moved(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """A tensor of numbers, or of another one, where the call says."""
        source = args[0] if isinstance(args[0], Tensor) and func is not Tensor.new_tensor else None
        before = source is not None and is_on_device(source)
        after = func is Tensor.cuda or (func is not Tensor.cpu and _on_device(args, kwargs))
        pinned = source is not None and (source in _PINNED or not after)  # copies to the host pin their own
        if before != after and not (pinned and kwargs.get("non_blocking")):
            self._operations.wait(TO_DEVICE if after else TO_HOST)
        result: Tensor = args[0]
        if func not in (Tensor.cuda, Tensor.cpu):
            result = func(*map(_of_cpu, args), **{name: _of_cpu(value) for name, value in kwargs.items()})
        alias = source is not None and _storage(result) == _storage(source)
        return _placed(result.clone() if alias and before != after else result, after)

    def _called(self, func: Function, on_device: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outside, self._operations.call = self._operations.call, _Call(on_device, func not in CHECKED_ON_CPU)
        try:
            if func is not torch.autograd.grad:
                return func(*args, **kwargs)
            # Functions of the package are called from in there, so that the mode has to stay active.
            with self, patch.object(torch.autograd, "has_torch_function", lambda _: False):
                return func(*args, **kwargs)
        finally:
            self._operations.call = outside


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation on tensors, those of backward passes too, and marks what is on the device."""

    def __init__(self, waits: Counter[Wait]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waits = waits
        self.call = _Call(False, True)

    def wait(self, what: str) -> None:
        """Count a wait."""
        self._waits[Wait(what, _place(PACKAGE))] += 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            tensors = tensors_in((args, kwargs))
            on_device = [is_on_device(x) for x in tensors]
            if func.overloadpacket is aten.copy_:
                return self._copied(func, args, kwargs)
            if any(on_device):
                self._look(func, args, [x for x, yes in zip(tensors, on_device, strict=True) if not yes])
            # What a function of tensors on the device makes of nothing is there, too.
            there = any(on_device) or (self.call.on_device and not tensors)
            result = func(*args, **kwargs)
            return _placed(result, True) if there else result

    def _copied(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target, source = args[:2]
        if source.ndim > 0 and is_on_device(target) != is_on_device(source):
            self.wait(TO_DEVICE if is_on_device(target) else TO_HOST)
        return func(*args, **kwargs)

    def _look(self, func: Any, args: tuple[Any, ...], others: list[Tensor]) -> None:
        """Count what waits. Raises RuntimeError where an operation mixes the device's tensors with others.

        Those may be single numbers, or indices.
        """
        packet = func.overloadpacket
        if packet in READS and self.call.reads:
            self.wait(str(packet))
        if packet in INDEXING and is_on_device(args[0]):
            others = self._without_indices(args, others)
        shapes = [tuple(x.shape) for x in others if x.ndim > 0]
        if shapes:
            raise RuntimeError(
                f"{func} at {_caller()}, in {_place(PACKAGE)}: expected all tensors on {DEVICE}, "
                f"got some on the CPU, of shape {', '.join(map(str, shapes))}"
            )

    def _without_indices(self, args: tuple[Any, ...], others: list[Tensor]) -> list[Tensor]:
        indices = [index for index in args[1] if index is not None]
        single = len(args) > 2 and args[2].numel() == 1  # which is filled in where a mask is true
        for index in indices:
            if not is_on_device(index):
                self.wait("index from the host")
            if index.dtype in (torch.bool, torch.uint8) and not single:
                self.wait("boolean index")
        return [x for x in others if not any(x is index for index in indices)]


class _Event:
    """Stands for `torch.cuda.Event`: what comes before it is done at once."""

    def __init__(self, operations: _Operations, thread: int, enable_timing: bool = False) -> None:
        self._operations, self._thread = operations, thread
        self._time = math.nan

    def record(self) -> None:
        """Note the time."""
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        """Count a wait, but in threads beside that of the emulation."""
        if threading.get_ident() == self._thread:
            self._operations.wait(EVENT)

    def elapsed_time(self, end: "_Event") -> float:
        """Milliseconds until another event."""
        return 1000 * (end._time - self._time)


class _Memory:
    """Memory that is marked, until it is freed: for good, as that of a machine is."""

    def __init__(self) -> None:
        self._storages: set[StorageWeakRef] = set()

    def __contains__(self, x: Tensor) -> bool:
        return _storage(x) in self._storages

    def put(self, x: Tensor) -> Tensor:
        """The tensor, whose memory is marked from now on."""
        self._storages.add(_storage(x))
        return x

    def remove(self, x: Tensor) -> None:
        """Mark the tensor's memory no longer."""
        self._storages.discard(_storage(x))


def _storage(x: Tensor) -> StorageWeakRef:
    """A name of the tensor's memory that no other gets."""
    return StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]


_ON_DEVICE, _PINNED = _Memory(), _Memory()


def is_on_device(x: Tensor) -> bool:
    """Whether a tensor is on the emulated device."""
    return x in _ON_DEVICE


def tensors_in(arguments: Any) -> list[Tensor]:
    """The tensors among arguments, in lists, tuples and mappings too."""
    tensors, pending = [], [arguments]
    while pending:
        argument = pending.pop()
        if isinstance(argument, Tensor):
            tensors.append(argument)
        elif isinstance(argument, list | tuple):
            pending.extend(argument)
        elif isinstance(argument, dict):
            pending.extend(argument.values())
    return tensors


def _placed(result: T, on_device: bool) -> T:
    """The same, with its tensors on the device or off it."""
    for x in tensors_in(result):
        if on_device:
            _ON_DEVICE.put(x)
        else:
            _ON_DEVICE.remove(x)
    return result


def _on_device(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call's result is to be on the device: that which it names, else its last tensor's."""
    values = [*args, *(kwargs[name] for name in ("device", "other") if name in kwargs)]
    for value in reversed(values):
        if isinstance(value, str | torch.device):
            return torch.device(value).type == DEVICE.type
        if isinstance(value, Tensor):
            return is_on_device(value)
    return False


def _of_cpu(value: Any) -> Any:
    """An argument, with the CPU for a device."""
    return torch.device("cpu") if isinstance(value, str | torch.device) else value


def _place(below: str) -> str:
    """The innermost line of a file `below` a folder: its path from there and number; empty without one."""
    return next((f"{name[len(below) :]}:{line}" for name, line in _lines() if name.startswith(below)), "")


def _caller() -> str:
    """The innermost line outside of torch."""
    return next((f"{name}:{line}" for name, line in _lines() if not name.startswith((TORCH, "<"))), "")


def _lines() -> Iterator[tuple[str, int]]:
    """The files and lines that are being executed, the innermost first, without this one's."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]

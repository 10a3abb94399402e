"""Floating-point precision: what products and sums are computed in, and how far rounding alone goes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch

from riemannopt_dist.choices import Precision

ROUNDINGS = 256
"""How many ε of its data type, float32 or float64, an output of a network may be off for rounding alone.

Between batches of other sizes the classes' probabilities of EfficientNet-Lite0 differed by up to 116 ε of
themselves and its logits by up to 85 ε of max(1, |z|), between the two memory formats by up to 148 and 97 (36
pictures, three instruction sets).
"""

HALF_ROUNDINGS = 16
"""The same for float16 and bfloat16, whose products torch sums in float32.

There probabilities differed by up to 17 and 15 ε, logits by up to 11 and 7 ε between the two memory formats.
"""


def sum_type(dtype: torch.dtype) -> torch.dtype:
    """The data type of sums of `dtype`, and of what is computed from them: float32 or wider."""
    return torch.promote_types(dtype, torch.float32)


def relative_rounding(dtype: torch.dtype) -> float:
    """By how much of itself rounding may change an output that a network computes in `dtype`."""
    return (ROUNDINGS if sum_type(dtype) == dtype else HALF_ROUNDINGS) * torch.finfo(dtype).eps


HALF: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""What torch computes products of these precisions in."""
ROUNDED: dict[Precision, torch.dtype] = {"tf32": torch.float16, **HALF}
"""The types that round as they do: TF32 has the ten bits of float16."""


@contextmanager
def products_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute a model's products in a precision: float32 ones as IEEE 754 has them, unless told otherwise.

    TF32 is for GPUs; a CPU computes in float32. fp16 and bf16 are torch's autocast.
    """
    if precision == "tf32":
        with _tf32():
            yield
        return
    with ieee_float32(), _autocast(precision, device):
        yield


def _autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, HALF[precision]) if precision in HALF else nullcontext()


@contextmanager
def _tf32() -> Iterator[None]:
    """Let GPUs round float32 products to TF32, also within `ieee_float32`."""
    before = [setting.value() for setting in _settings()]
    _write([setting.tf32 for setting in _settings()])
    try:
        yield
    finally:
        _write(before)


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 products as IEEE 754 has them, not rounded to TF32's ten bits or to bfloat16.

    By default torch rounds those of convolutions on GPUs. Its settings are the process's: as long as one
    thread is in here they hold for all, and the last one to leave restores what the first one found.
    """
    _SETTINGS.enter()
    try:
        yield
    finally:
        _SETTINGS.leave()


def use_ieee_float32() -> None:
    """Let the whole process compute float32 products as in `ieee_float32`, from now on."""
    _write([setting.ieee for setting in _settings()])


class _Setting(NamedTuple):
    """One of torch's settings: how to get at it, its values for IEEE arithmetic and TF32, and its default."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    ieee: Any
    tf32: Any
    default: Any

    def value(self) -> Any:
        """The value; the default where torch finds that newer settings contradict this one."""
        try:
            return self.read()
        except RuntimeError:
            return self.default


@cache
def _settings() -> list[_Setting]:
    """In the order in which they are to be written: the older ones overwrite the newer ones."""
    backends = torch.backends
    older = [
        _attribute(backends.cudnn, "allow_tf32", False, True, True),
        _Setting(
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
            "highest",
            "high",
            "highest",
        ),
    ]
    if not hasattr(backends.cudnn, "conv"):  # torch before 2.9
        return older
    of_gpus: list[Any] = [backends.cuda.matmul]
    of_gpus += [getattr(backends.cudnn, name) for name in ("conv", "rnn")]
    of_cpus = [getattr(backends.mkldnn, name) for name in ("conv", "rnn", "matmul")]
    return [
        *older,
        *(_attribute(holder, "fp32_precision", "ieee", "tf32", "none") for holder in of_gpus),
        *(_attribute(holder, "fp32_precision", "ieee", "ieee", "none") for holder in of_cpus),
    ]


def _attribute(holder: Any, name: str, ieee: Any, tf32: Any, default: Any) -> _Setting:
    def write(value: Any) -> None:
        setattr(holder, name, value)

    return _Setting(lambda: getattr(holder, name), write, ieee, tf32, default)


def _write(values: list[Any]) -> None:
    for setting, value in zip(_settings(), values, strict=True):
        setting.write(value)


class _Shared:
    """The settings, held by any number of threads, and by calls within calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._found: list[Any] = []

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._found = [setting.value() for setting in _settings()]
                use_ieee_float32()
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _write(self._found)


_SETTINGS = _Shared()

"""The time that a model's passes take on its device: of events on a GPU, else of the wall clock."""

import time
from typing import Any

import torch
from torch import Tensor, nn

Mark = Any
"""A moment on the device: seconds on a CPU, an event on a GPU."""


class DeviceClock:
    """Runs from each start of a model to the end of its forward pass, or of the gradient by its images."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._start: Mark = None
        self._spans: list[tuple[Mark, Mark]] = []
        model.register_forward_pre_hook(self._before)
        model.register_forward_hook(self._after)

    def taken(self) -> float:
        """Seconds since it was asked last; waits for the device."""
        spans, self._spans = self._spans, []
        if not self._is_cuda:
            return float(sum(end - start for start, end in spans))
        if spans:
            spans[-1][1].synchronize()
        return float(sum(start.elapsed_time(end) for start, end in spans)) / 1000

    def _before(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].requires_grad:
            inputs[0].register_hook(self._end)  # type: ignore[no-untyped-call]
        self._start = self._now()

    def _after(self, model: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if not inputs[0].requires_grad:
            self._end()

    def _end(self, gradient: Tensor | None = None) -> None:
        self._spans.append((self._start, self._now()))

    def _now(self) -> Mark:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

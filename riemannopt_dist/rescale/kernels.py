"""The gradient of a ramp as one kernel: its passes over memory are most of what a secant costs.

torch.compile makes it, for a CPU with a C++ compiler, for a GPU with Triton. That takes seconds, and is done
where they are worth it. Where it cannot be done each operation takes its pass; the values are the same.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.slopes import slope_products

logger = logging.getLogger(__name__)

WORTH: Mapping[str, int] = {"cpu": 1 << 34, "cuda": 1 << 38}
"""Numbers that a kind of ramp meets before its kernel is made, by device: about ten seconds' passes."""
EXAMPLE = 1 << 20
"""Numbers that a kernel is tried on: enough that the compiler shares the work out among threads."""
EPS = torch.finfo(torch.float32).eps
AGREES = 8 * EPS
"""How far, relatively, its values may be off: a GPU's division rounds otherwise."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""Takes a ramp's inputs at samples and at their neighbours, and a gradient, all of equal size (N,) and of
float32; writes the gradient times the slopes between the two into the last."""


class Kernels:
    """The kernels of a process, by device and bounds: one is made once its ramps have met `worth` numbers."""

    def __init__(self, worth: Mapping[str, int] = WORTH) -> None:
        self.worth = worth
        self._met: Counter[tuple[torch.device, float, float]] = Counter()
        self._made: dict[tuple[torch.device, float, float], Kernel | None] = {}

    def of(self, x: Tensor, low: float, high: float) -> Kernel | None:
        """The kernel of a ramp that meets x; None where it is not worth it yet, or there is none."""
        if x.dtype != torch.float32:
            return None
        kind = (x.device, low, high)
        self._met[kind] += x.numel()
        if kind not in self._made and self._met[kind] >= self.worth.get(x.device.type, math.inf):
            self._made[kind] = compiled(*kind)
        return self._made.get(kind)


KERNELS = Kernels()


def compiled(device: torch.device, low: float, high: float) -> Kernel | None:
    """The kernel of a device for a ramp between two bounds. None, which is told, where it cannot be made."""

    least, most = (None if math.isinf(bound) else bound for bound in (low, high))

    def fused(before: Tensor, after: Tensor, grad: Tensor, result: Tensor) -> None:
        end = after + 2 * EPS * after
        step = end - before
        rise = end.clamp(least, most) - before.clamp(least, most)
        result.copy_(grad * torch.where(step == 0, 1.0, rise / step))

    begin = time.perf_counter()
    try:
        # The threads are told so that what is kept on disk is not made for others. No pool of compilers is
        # started: there is one kernel to compile.
        options: dict[str, Any] = {"cpp.threads": torch.get_num_threads(), "compile_threads": 1}
        kernel: Kernel = torch.compile(fused, dynamic=True, fullgraph=True, options=options)
        _try(kernel, device, low, high)
    except Exception as error:  # of any kind: a compiler is missing, or fails
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        logger.warning("ramps on %s take several passes, since no kernel could be made: %s", device, reason)
        return None
    logger.info("a kernel for ramps on %s took %.1f s", device, time.perf_counter() - begin)
    return kernel


@torch.no_grad()
def _try(kernel: Kernel, device: torch.device, low: float, high: float) -> None:
    """Raise AssertionError where the kernel's values are not those of `slope_products`."""
    numbers = torch.Generator().manual_seed(0)
    before, step, grad = (torch.randn(EXAMPLE, generator=numbers).to(device) for _ in range(3))
    before[: EXAMPLE // 4], step[: EXAMPLE // 2] = 0.0, 0.0
    expected, result = torch.empty_like(grad), torch.empty_like(grad)
    slope_products(before, before + step, grad, expected, low, high)
    kernel(before, before + step, grad, result)
    torch.testing.assert_close(result, expected, rtol=AGREES, atol=0.0)

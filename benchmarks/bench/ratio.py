"""Times of two pieces of work in turn, so that a machine whose speed drifts does not matter."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """One work's seconds over another's: the median of several turns, the least and the greatest."""

    median: float
    low: float
    high: float
    seconds: float
    """Of the first work, the least of all turns."""

    def times(self, factor: float) -> "Ratio":
        """This one in other units: of each of so many pieces that the second work is made of."""
        return Ratio(self.median * factor, self.low * factor, self.high * factor, self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def seconds(work: Work, device: torch.device) -> float:
    """Wall-clock seconds of one call, once the device has done what it was asked."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def ratio(first: Work, second: Work, device: torch.device, turns: int, *, warm: bool = False) -> Ratio:
    """The seconds of `first` over those of `second`, which is timed before and after each turn of it.

    The first is called once before that, unless it is `warm` already.
    """
    if not warm:
        seconds(first, device)
    before = seconds(second, device)
    ratios, alone = [], []
    for _ in range(turns):
        inside, after = seconds(first, device), seconds(second, device)
        ratios.append(2 * inside / (before + after))
        alone.append(inside)
        before = after
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), min(alone))


def progress(line: str) -> None:
    """Tell of what is measured, beside the results."""
    print(line, file=sys.stderr, flush=True)

"""Progress with an ETA: a bar on a terminal, a line every few seconds in a log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from riemannopt_dist.text import duration

logger = logging.getLogger(__name__)

LOG_SECONDS = 10.0


class Meter(Protocol):
    """Counts what is done of a known total."""

    def advance(self, count: int) -> None:
        """Tell that `count` more are done."""
        ...

    def note(self, text: str) -> None:
        """Show what is being waited for."""
        ...


class _Bar:
    def __init__(self, bar: Progress, label: str, total: int) -> None:
        self._bar, self._label = bar, label
        self._task = bar.add_task(label, total=total)

    def advance(self, count: int) -> None:
        self._bar.update(self._task, advance=count, description=self._label)

    def note(self, text: str) -> None:
        self._bar.update(self._task, description=f"{self._label} ({text})")


class _Log:
    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._start = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said >= LOG_SECONDS or self._done >= self._total:
            self._said = now
            rate = self._done / max(now - self._start, 1e-9)
            left = (self._total - self._done) / rate if rate else float("inf")
            logger.info(
                "%s: %d of %d, %.2f/s, %s left", self._label, self._done, self._total, rate, duration(left)
            )

    def note(self, text: str) -> None:
        now = time.monotonic()
        if now - self._said >= LOG_SECONDS:
            self._said = now
            logger.info("%s: %d of %d, %s", self._label, self._done, self._total, text)


@contextmanager
def meter(label: str, total: int) -> Iterator[Meter]:
    """A meter for `total` items called `label`."""
    if not sys.stderr.isatty():
        yield _Log(label, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, label, total)

"""What a shard took: seconds, gradients and where, counted while its rows are made and kept in its file."""

import math
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

import pyarrow as pa

from riemannopt_dist.run.stages.turn import Turn
from riemannopt_dist.storage.notes import note_of, noted

T = TypeVar("T")

TIMINGS = b"timings"
"""The key of a shard's schema metadata under which its timings are, as a JSON object."""


SPENT = ("decode_seconds", "compute_seconds", "gradient_evaluations", "forward_passes")
"""What adds up where a shard is done in several goes."""


@dataclass(frozen=True)
class Timings:
    """What making one shard took. Writing it is not in here: that ends after the file does.

    Seconds of wall-clock time waiting for images, which are read and decoded ahead, and on everything else;
    gradients and forward passes of single images; the host that did it and when it was done (Unix time).
    Gradients that cells share count once.
    """

    images: int
    decode_seconds: float
    compute_seconds: float
    gradient_evaluations: int
    forward_passes: int
    host: str
    finished: float

    @property
    def seconds(self) -> float:
        """All of its time."""
        return self.decode_seconds + self.compute_seconds

    def after(self, earlier: "Timings | None") -> "Timings":
        """These, and what was spent on other rows of the shard before."""
        if earlier is None:
            return self
        sums = {name: getattr(self, name) + getattr(earlier, name) for name in SPENT}
        return replace(self, **sums)

    def in_table(self, table: pa.Table) -> pa.Table:
        """`table` with these timings in its metadata."""
        return noted(table, TIMINGS, self)

    @classmethod
    def of(cls, schema: pa.Schema) -> "Timings | None":
        """The timings of a shard with this schema, None where there are none that can be read."""
        return note_of(schema, TIMINGS, cls)


class Tally:
    """Counts one shard's work while it is done, from its turn on the device to its end as a context.

    `saw` is for a forward pre-hook of the model.
    """

    def __init__(self, turn: "Turn[Tally] | None" = None) -> None:
        self._turn: Turn[Tally] = turn or Turn()
        self._start, self._end = time.perf_counter(), math.nan
        self._decode_seconds = 0.0
        self._passes = {True: 0, False: 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end = time.perf_counter()
        if self._turn.holder is self:
            self._turn.end()

    def awaited(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, the first of them once it is the shard's turn.

        Time in which the device waits for a batch counts as that of reading and decoding.
        """
        waiting = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(waiting, None)
            if self._turn.holder is not self:
                self._start = start = self._turn.take(self, start)
            self._decode_seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def saw(self, images: int, *, gradient: bool) -> None:
        """So many images went through the model, for their gradients or without."""
        self._passes[gradient] += images

    def timings(self, items: Sequence[object]) -> Timings:
        """What the work so far, on `items`, took."""
        end = time.perf_counter() if math.isnan(self._end) else self._end
        return Timings(
            len(items),
            self._decode_seconds,
            end - self._start - self._decode_seconds,
            self._passes[True],
            self._passes[False],
            platform.node(),
            time.time(),
        )

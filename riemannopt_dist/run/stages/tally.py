"""What a shard took: seconds, gradients and where, counted while its rows are made and kept in its file."""

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow as pa

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
    """Counts one shard's work while it is done. `saw` is a forward pre-hook of the model."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._decode_seconds = 0.0
        self._passes = {True: 0, False: 0}

    def awaited(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time until each is there counts as that of reading and decoding."""
        waiting = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(waiting, None)
            self._decode_seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def saw(self, images: int, *, gradient: bool) -> None:
        """So many images went through the model, for their gradients or without."""
        self._passes[gradient] += images

    def timings(self, items: Sequence[object]) -> Timings:
        """What the work so far, on `items`, took."""
        return Timings(
            len(items),
            self._decode_seconds,
            time.perf_counter() - self._start - self._decode_seconds,
            self._passes[True],
            self._passes[False],
            platform.node(),
            time.time(),
        )

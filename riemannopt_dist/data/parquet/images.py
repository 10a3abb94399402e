"""The files of images in a Parquet file's rows, read in any order and from any thread."""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.files import LARGEST, Files
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.parquet.columns import image_column
from riemannopt_dist.data.parquet.damage import Damaged, check_expansion, checked, group_rows, open_parquet
from riemannopt_dist.storage.errors import retried

KEPT = 128 << 20
"""Bytes of images that are kept until they are asked for, where other rows come first."""


class ParquetImages:
    """Some rows of one Parquet file, opened when the first is read. Any thread may read, each row once."""

    def __init__(self, files: Files, uri: str, refs: Iterable[ImageRef]) -> None:
        self._files = files
        self._uri = uri
        self._rows = {ref.offset for ref in refs if ref.offset is not None}
        self._lock = threading.Lock()
        self._file: pa.NativeFile | None = None
        self._parquet: pq.ParquetFile | None = None
        self._ends: list[int] = []
        self._groups: dict[int, _RowGroup] = {}

    def read(self, ref: ImageRef) -> bytes:
        """The bytes in the ref's row."""
        with self._lock:
            try:
                data = self._group_of(ref.offset or 0).read(ref.offset or 0)
            except Damaged as error:
                raise UnreadableImage(str(error)) from error
        if data is None:
            raise UnreadableImage("no image in its row")
        return data

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _group_of(self, row: int) -> "_RowGroup":
        file = self._file = self._file or retried(lambda: self._files.open(self._uri), self._uri)
        if self._parquet is None:
            parquet = checked(lambda: open_parquet(file), file, self._uri)
            self._ends = list(accumulate(group_rows(parquet.metadata)))
            self._parquet = parquet
        number = bisect_right(self._ends, row)
        if number == len(self._ends):
            raise UnreadableImage("the file has no such row")
        if number not in self._groups:
            check_expansion(self._parquet, number, self._uri)
            rows = range(self._ends[number - 1] if number else 0, self._ends[number])
            ahead = {row for row in rows if row in self._rows}
            self._groups[number] = _RowGroup(self._parquet, file, self._uri, number, rows, ahead)
        return self._groups[number]


@dataclass
class _RowGroup:
    """The images of a row group, which may be larger than memory: read from its beginning, row by row.

    What is kept are the `wanted` rows that lie before the last one asked for, as long as they are KEPT bytes.
    """

    parquet: pq.ParquetFile
    file: pa.NativeFile
    uri: str
    number: int
    rows: range
    wanted: set[int]
    _stream: Iterator[pa.RecordBatch] | None = None
    _position: int = 0
    _kept: dict[int, bytes | None] = field(default_factory=dict)
    _kept_bytes: int = 0
    _damage: str | None = None

    def read(self, row: int) -> bytes | None:
        """The bytes in a row, None where there are none. Raises Damaged, and UnreadableImage if too many."""
        if row not in self._kept and row < self.rows.start + self._position:  # it was read before
            self.wanted.add(row)
            self._stream, self._position = None, 0
        while row not in self._kept:
            if self._damage is not None:
                raise Damaged(self._damage)
            self._advance(row)
        data = self._kept.pop(row)
        self._kept_bytes -= len(data or b"")
        return data

    def _advance(self, rows: int) -> None:
        """Read one more row, and keep it if it is the one asked for, or wanted while there is room."""
        try:
            batch = checked(self._next_row, self.file, self.uri)
        except Damaged as error:
            self._damage = str(error)
            raise
        row = self.rows[self._position]
        self._position += 1
        if row == rows and batch.nbytes > LARGEST:
            self.wanted.discard(row)
            raise UnreadableImage(f"too large: {batch.nbytes} bytes")
        if row == rows or (row in self.wanted and self._kept_bytes + batch.nbytes <= KEPT):
            self.wanted.discard(row)
            value = batch.column(0)[0].as_py()
            self._kept[row] = value["bytes"] if isinstance(value, dict) else value
            self._kept_bytes += len(self._kept[row] or b"")
        if not self.wanted:
            self._stream = None

    def _next_row(self) -> pa.RecordBatch:
        """The row at the position, from a new stream where there is none or the last one failed."""
        stream, self._stream = self._stream, None
        if stream is None:
            column = image_column(self.parquet.schema_arrow, self.uri)
            stream = self.parquet.iter_batches(1, [self.number], [column], use_threads=False)
            for _ in range(self._position):
                next(stream, None)
        batch = next(stream, None)
        if batch is None:
            raise pa.ArrowInvalid("a row group ends before its last row")
        self._stream = stream
        return batch

"""Parquet files with a column of image files' bytes and one of labels, as Hugging Face lays data sets out.

Others list the addresses of images.
"""

import json
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain, repeat
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from riemannopt_dist.data.class_folders import Placed
from riemannopt_dist.data.classes import class_index, classes_of
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.files import LARGEST, Files
from riemannopt_dist.data.image_ref import ImageRef, shortened
from riemannopt_dist.data.uri_list import URI_COLUMN, Classes, label_of, listed_images
from riemannopt_dist.storage.errors import retried
from riemannopt_dist.storage.redaction import one_line

logger = logging.getLogger(__name__)

T = TypeVar("T")

IMAGE_COLUMNS = ("image", "img", "image_bytes", "jpg", "jpeg", "png")
LABEL_COLUMNS = ("label", "labels", "cls", "class", "class_index", "target", "fine_label")

BUFFER = 8 << 20
"""Bytes of a column that are read at a time."""

FOOTER = 64 << 20
"""Bytes that the description at a file's end may have."""
FREE_ROWS = 100_000
BYTES_A_ROW = 64
"""A file has at most FREE_ROWS rows, and one more for each BYTES_A_ROW of its bytes: less hold no images."""
BYTES_AN_ADDRESS = 2
"""As many are enough for a row of a list, compressed."""
FREE_LABELS = 16 << 20
LABEL_BYTES = 256
"""Labels, uncompressed, have at most FREE_LABELS bytes, and LABEL_BYTES more for each row."""
FREE_EXPANSION = 256 << 20
EXPANSION = 20
"""The images of a row group have FREE_EXPANSION bytes uncompressed, or so many times their bytes, at most."""
KEPT = 128 << 20
"""Bytes of images that are kept until they are asked for, where other rows come first."""


class Damaged(ValueError):
    """A Parquet file whose store answers and whose content cannot be read; the message says why."""


def list_parquet(files: Files, uri: str, prefix: str, classes: Classes = None) -> list[Placed]:
    """A ref a row, ids are `prefix`/row. A damaged file is itself an entry, with the reason.

    A file without images that has a column of their addresses is a list of them. `classes` are those of a
    model of its own. Raises ValueError for a file with neither.
    """
    with retried(lambda: files.open(uri), uri) as opened:
        try:
            parquet = checked(lambda: _opened(opened), opened, uri)
            size = checked(opened.size, opened, uri)
            if _is_list(parquet.schema_arrow):
                _check_rows(parquet.metadata, size, BYTES_AN_ADDRESS)
                return _listed(parquet, opened, uri, classes)
            image_column(parquet.schema_arrow, uri)
            _check_rows(parquet.metadata, size, BYTES_A_ROW)
            labels, note = _classes(parquet, opened, uri, classes)
            names = _names(parquet, opened, uri)
        except Damaged as error:
            return [Placed(ImageRef(prefix, uri, None, str(error)))]
    digits = len(str(len(labels)))
    groups = chain.from_iterable(repeat(n, rows) for n, rows in enumerate(_group_rows(parquet.metadata)))
    return [
        Placed(ImageRef(f"{prefix}/{row:0{digits}}", uri, *found, row, group=group), note=note, name=name)
        for row, (found, group, name) in enumerate(zip(labels, groups, names, strict=True))
    ]


def _is_list(schema: pa.Schema) -> bool:
    """Whether a file holds addresses of images, and no images."""
    has_images = any(_image_leaf(schema, name) is not None for name in IMAGE_COLUMNS)
    return not has_images and URI_COLUMN in schema.names and _is_text(schema.field(URI_COLUMN).type)


def _listed(parquet: pq.ParquetFile, file: pa.NativeFile, uri: str, classes: Classes) -> list[Placed]:
    """The images of a list."""
    column = label_column(parquet.schema_arrow)
    _check_texts(parquet.metadata, URI_COLUMN)
    uris = checked(lambda: _values(parquet, file, URI_COLUMN), file, uri).to_pylist()
    if column is None:
        return listed_images(uri, zip(uris, repeat(None)), False, classes)
    _check_texts(parquet.metadata, column)
    labels = checked(lambda: _values(parquet, file, column), file, uri).to_pylist()
    return listed_images(uri, zip(uris, labels, strict=True), True, classes)


def _names(parquet: pq.ParquetFile, file: pa.NativeFile, uri: str) -> list[str | None]:
    """What the data set calls the image of each row, as Hugging Face keeps it beside the bytes."""
    nothing: list[str | None] = [None] * parquet.metadata.num_rows
    column = image_column(parquet.schema_arrow, uri).partition(".")[0]
    kind = parquet.schema_arrow.field(column).type
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0 or not _is_text(kind["path"].type):
        return nothing
    try:
        _check_texts(parquet.metadata, leaf := f"{column}.path")
        values = checked(lambda: parquet.read([leaf], use_threads=False).column(0), file, uri)
    except Damaged:  # rows have numbers all the same
        return nothing
    return [None if value is None or not value["path"] else value["path"] for value in values.to_pylist()]


def _group_rows(metadata: pq.FileMetaData) -> list[int]:
    """The rows of each row group."""
    return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]


def _check_rows(metadata: pq.FileMetaData, size: int, bytes_a_row: int) -> None:
    """Raise Damaged for more rows than a file of `size` bytes can hold, or other than its groups have."""
    rows = metadata.num_rows
    if sum(_group_rows(metadata)) != rows or any(count < 0 for count in _group_rows(metadata)):
        raise Damaged(f"damaged Parquet: its row groups do not have the {rows} rows of the file")
    if rows > FREE_ROWS + size // bytes_a_row:
        raise Damaged(
            f"too many rows: {rows} in {size} bytes (expected at least {bytes_a_row} bytes a row beyond the "
            f"first {FREE_ROWS})"
        )


Class = tuple[int | None, str | None]
"""A class index, or the reason why it is not known; neither for what has no label."""


def _classes(
    parquet: pq.ParquetFile, file: pa.NativeFile, uri: str, own: Classes
) -> tuple[list[Class], str | None]:
    """The class of each row; and why labels are not taken, if so."""
    column = label_column(parquet.schema_arrow)
    unlabelled: list[Class] = [(None, None)] * parquet.metadata.num_rows
    if column is None:
        return unlabelled, None
    names = class_names(parquet.schema_arrow, column)
    indices = indices_of(names, own, uri)
    if names and not any(index is not None for index in indices):
        return unlabelled, (
            f"the classes of column {column} ({shortened(names)}) are none of "
            f"{'ILSVRC' if own is None else 'the model'}'s, so its labels are not taken: name the model's "
            "own in model.classes, or write the column without names, as indices of the model's classes"
        )
    kind = parquet.schema_arrow.field(column).type
    if pa.types.is_nested(kind):
        return [(None, f"column {column} is of type {shortened([kind])}, no label")] * len(unlabelled), None
    _check_texts(parquet.metadata, column)
    values = checked(lambda: _values(parquet, file, column), file, uri)
    known = dict(enumerate(zip(names, indices, strict=True)))
    by_name = partial(_class_by_name, known=known) if names else partial(label_of, classes=own)
    return _classified(values, by_name), None


def indices_of(names: Sequence[str], own: Classes, uri: str) -> list[int | None]:
    """The class of the model that each of a data set's names means.

    As many names as the model has classes, which have none, are those in order, which a warning tells.
    """
    if own is None or not names:
        return classes_of(names)
    if not isinstance(own, int):
        return [own.index(name) if name in own else None for name in names]
    if len(names) != own:
        return [None] * len(names)
    logger.warning(
        "%s: classes %s are taken as the model's, in this order; else name these in order in model.classes",
        uri,
        shortened(f"{rank} = {name}" for rank, name in enumerate(names)),
    )
    return list(range(own))


def _check_texts(metadata: pq.FileMetaData, column: str) -> None:
    """Raise Damaged for texts that are longer than any label or name is."""
    size = sum(_chunk(metadata, n, column).total_uncompressed_size for n in range(metadata.num_row_groups))
    if size > FREE_LABELS + LABEL_BYTES * metadata.num_rows:
        raise Damaged(f"too large: {size} bytes of texts in column {column} for {metadata.num_rows} rows")


def _values(parquet: pq.ParquetFile, file: pa.NativeFile, column: str) -> pa.ChunkedArray:
    """A column; texts as dictionaries, so that one that all rows have is there once."""
    kind = parquet.schema_arrow.field(column).type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        parquet = pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=[column], pre_buffer=False)
    return parquet.read([column], use_threads=False).column(0)


def _classified(values: pa.ChunkedArray, classify: Callable[[object], Class]) -> list[Class]:
    """The class of each value; equal ones of a dictionary are looked up once."""
    classes: list[Class] = []
    for chunk in values.chunks:
        if not pa.types.is_dictionary(chunk.type):
            classes += map(classify, chunk.to_pylist())
            continue
        known = [classify(value) for value in chunk.dictionary.to_pylist()]
        missing = classify(None)
        classes += [missing if n is None else known[n] for n in chunk.indices.to_pylist()]
    return classes


def _chunk(metadata: pq.FileMetaData, group: int, column: str) -> pq.ColumnChunkMetaData:
    """What is told of a leaf column in a row group. Raises Damaged where there is no such column."""
    row_group = metadata.row_group(group)
    for place in range(row_group.num_columns):
        if (chunk := row_group.column(place)).path_in_schema == column:
            return chunk
    raise Damaged(f"damaged Parquet: row group {group} has no column {column}")


def _class_by_name(value: object, known: Mapping[int, tuple[str, int | None]]) -> Class:
    """The class of a label that counts the names of a data set's classes."""
    place, reason = class_index(value)
    if place is None:
        return None, reason
    if place not in known:
        return None, f"label {place} is none of the {len(known)} classes that are named"
    name, index = known[place]
    return index, None if index is not None else f"class {name[:40]!r} is not one of the 1,000 of ILSVRC"


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """Names of the classes that a column's numbers count, as Hugging Face stores them; [] without."""
    kind = schema.field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return []
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):  # ValueError: not JSON, or not UTF-8
        return []


def image_column(schema: pa.Schema, uri: str) -> str:
    """The leaf column with the bytes of image files. Raises ValueError if there is none."""
    for name in IMAGE_COLUMNS:
        if (leaf := _image_leaf(schema, name)) is not None:
            return leaf
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise ValueError(
        f"source: {uri}: expected a column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}, binary or "
        f"struct<bytes: binary, path: string>, with the files of images, or a column {URI_COLUMN} of their "
        f"addresses, found {columns or 'no column'}"
    )


def _image_leaf(schema: pa.Schema, name: str) -> str | None:
    """The leaf with the bytes of image files in a column of this name, None where it has none."""
    kind = schema.field(name).type if name in schema.names else pa.null()
    if _is_binary(kind):
        return name
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind["bytes"].type):
        return f"{name}.bytes"
    return None


def label_column(schema: pa.Schema) -> str | None:
    """The column with class indices or synsets, None if there is none of a known name."""
    return next((name for name in LABEL_COLUMNS if name in schema.names), None)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def checked(read: Callable[[], T], file: pa.NativeFile, uri: str) -> T:
    """The value of `read`, tried again once the store of `file` answers.

    Raises Damaged if it then fails again, StorageError if the store does not answer: Parquet's own errors do
    not tell the two apart.
    """
    try:
        return read()
    except (OSError, pa.ArrowException):
        retried(lambda: file.read_at(1, 0), uri)
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        raise Damaged(f"damaged Parquet: {one_line(error)}") from error


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
            parquet = checked(lambda: _opened(file), file, self._uri)
            self._ends = list(accumulate(_group_rows(parquet.metadata)))
            self._parquet = parquet
        number = bisect_right(self._ends, row)
        if number == len(self._ends):
            raise UnreadableImage("the file has no such row")
        if number not in self._groups:
            _check_expansion(self._parquet, number, self._uri)
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


def _opened(file: pa.NativeFile) -> pq.ParquetFile:
    """The file, once its footer is known to be no larger than FOOTER."""
    end = file.size()
    # Four bytes before the last four tell.
    if (length := int.from_bytes(file.read_at(8, max(0, end - 8))[:4], "little")) > FOOTER and end > length:
        raise pa.ArrowInvalid(f"its footer has {length} bytes, expected at most {FOOTER}")
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)


def _check_expansion(parquet: pq.ParquetFile, group: int, uri: str) -> None:
    """Raise Damaged for images that take far more memory than they have bytes in the file."""
    chunk = _chunk(parquet.metadata, group, image_column(parquet.schema_arrow, uri))
    size, compressed = chunk.total_uncompressed_size, chunk.total_compressed_size
    if size > max(FREE_EXPANSION, EXPANSION * compressed):
        raise Damaged(f"too large: {compressed} bytes of images in row group {group} expand to {size}")

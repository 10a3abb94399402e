"""Parquet files with a column of image files' bytes and one of labels, as Hugging Face lays data sets out."""

import threading
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from riemannopt_dist.images.files import Files
from riemannopt_dist.images.image_ref import ImageRef, UnreadableImage
from riemannopt_dist.images.labels import class_index
from riemannopt_dist.stores import one_line, retried

T = TypeVar("T")

IMAGE_COLUMNS = ("image", "img", "image_bytes", "jpg", "jpeg", "png")
LABEL_COLUMNS = ("label", "labels", "cls", "class", "class_index", "target", "fine_label")


class Damaged(ValueError):
    """A Parquet file whose store answers and whose content cannot be read; the message says why."""


def list_parquet(files: Files, uri: str, prefix: str) -> list[ImageRef]:
    """A ref a row; ids are `prefix`/row. A damaged file is itself an entry, with the reason.

    Raises ValueError for a file without a column of images.
    """
    with retried(lambda: files.open(uri), uri) as opened:
        try:
            parquet = checked(lambda: pq.ParquetFile(opened), opened, uri)
            image_column(parquet.schema_arrow, uri)
            label = label_column(parquet.schema_arrow)
            labels = (
                [None] * parquet.metadata.num_rows
                if label is None
                else checked(lambda: parquet.read([label]), opened, uri).column(0).to_pylist()
            )
        except Damaged as error:
            return [ImageRef(prefix, uri, None, str(error))]
    digits = len(str(len(labels)))
    return [
        ImageRef(f"{prefix}/{row:0{digits}}", uri, *_class(value, label is not None), row)
        for row, value in enumerate(labels)
    ]


def _class(value: object, labelled: bool) -> tuple[int | None, str | None]:
    if not labelled:
        return None, None
    return (None, "no label") if value is None else class_index(value)


def image_column(schema: pa.Schema, uri: str) -> str:
    """The leaf column with the bytes of image files. Raises ValueError if there is none."""
    for name in IMAGE_COLUMNS:
        kind = schema.field(name).type if name in schema.names else pa.null()
        if _is_binary(kind):
            return name
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind["bytes"].type):
            return f"{name}.bytes"
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise ValueError(
        f"source: {uri}: expected a column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}, binary or "
        f"struct<bytes: binary, path: string>, with the files of images, found {found or 'no column'}"
    )


def label_column(schema: pa.Schema) -> str | None:
    """The column with class indices or synsets, None if there is none of a known name."""
    return next((name for name in LABEL_COLUMNS if name in schema.names), None)


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
    """Some rows of one Parquet file, opened when the first is read. Any thread may read, each row once.

    A row group is read once, and the bytes of its rows kept until they are asked for.
    """

    def __init__(self, files: Files, uri: str, refs: Iterable[ImageRef]) -> None:
        self._files = files
        self._uri = uri
        self._rows = {ref.offset for ref in refs}
        self._lock = threading.Lock()
        self._file: pa.NativeFile | None = None
        self._parquet: pq.ParquetFile | None = None
        self._kept: dict[int | None, bytes | UnreadableImage | None] = {}

    def read(self, ref: ImageRef) -> bytes:
        """The bytes in the ref's row."""
        with self._lock:
            try:
                if ref.offset not in self._kept:
                    self._read_group(ref)
                data = self._kept.pop(ref.offset)
            except Damaged as error:
                raise UnreadableImage(str(error)) from error
        if isinstance(data, UnreadableImage):
            raise data
        if data is None:
            raise UnreadableImage("no image in its row")
        return data

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _read_group(self, ref: ImageRef) -> None:
        """Keep what is wanted of the row group with the ref's row."""
        file = self._file = self._file or retried(lambda: self._files.open(self._uri), self._uri)
        parquet = self._parquet = self._parquet or checked(lambda: pq.ParquetFile(file), file, self._uri)
        metadata = parquet.metadata
        ends = list(accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)))
        group = next((n for n, end in enumerate(ends) if ref.offset is not None and ref.offset < end), None)
        if group is None:
            raise UnreadableImage("the file has no such row")
        rows = range(ends[group] - metadata.row_group(group).num_rows, ends[group])
        wanted = [row for row in rows if row in self._rows]
        leaf = image_column(parquet.schema_arrow, self._uri)
        try:
            column = checked(lambda: parquet.read_row_group(group, [leaf]), file, self._uri).column(0)
        except Damaged as error:
            self._kept |= dict.fromkeys(wanted, UnreadableImage(str(error)))
            return
        for row in wanted:
            value = column[row - rows.start].as_py()
            self._kept[row] = value["bytes"] if isinstance(value, dict) else value

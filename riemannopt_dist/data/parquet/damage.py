"""What a Parquet file is refused for: content that cannot be read, or is far larger than it can be."""

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from riemannopt_dist.data.parquet.columns import image_column
from riemannopt_dist.storage.errors import retried
from riemannopt_dist.storage.redaction import one_line

T = TypeVar("T")

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


class Damaged(ValueError):
    """A Parquet file whose store answers and whose content cannot be read; the message says why."""


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


def open_parquet(file: pa.NativeFile) -> pq.ParquetFile:
    """The file, once its footer is known to be no larger than FOOTER."""
    end = file.size()
    # Four bytes before the last four tell.
    if (length := int.from_bytes(file.read_at(8, max(0, end - 8))[:4], "little")) > FOOTER and end > length:
        raise pa.ArrowInvalid(f"its footer has {length} bytes, expected at most {FOOTER}")
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)


def group_rows(metadata: pq.FileMetaData) -> list[int]:
    """The rows of each row group."""
    return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]


def check_rows(metadata: pq.FileMetaData, size: int, bytes_a_row: int) -> None:
    """Raise Damaged for more rows than a file of `size` bytes can hold, or other than its groups have."""
    rows = metadata.num_rows
    if sum(group_rows(metadata)) != rows or any(count < 0 for count in group_rows(metadata)):
        raise Damaged(f"damaged Parquet: its row groups do not have the {rows} rows of the file")
    if rows > FREE_ROWS + size // bytes_a_row:
        raise Damaged(
            f"too many rows: {rows} in {size} bytes (expected at least {bytes_a_row} bytes a row beyond the "
            f"first {FREE_ROWS})"
        )


def check_texts(metadata: pq.FileMetaData, column: str) -> None:
    """Raise Damaged for texts that are longer than any label or name is."""
    size = sum(
        column_chunk(metadata, n, column).total_uncompressed_size for n in range(metadata.num_row_groups)
    )
    if size > FREE_LABELS + LABEL_BYTES * metadata.num_rows:
        raise Damaged(f"too large: {size} bytes of texts in column {column} for {metadata.num_rows} rows")


def check_expansion(parquet: pq.ParquetFile, group: int, uri: str) -> None:
    """Raise Damaged for images that take far more memory than they have bytes in the file."""
    chunk = column_chunk(parquet.metadata, group, image_column(parquet.schema_arrow, uri))
    size, compressed = chunk.total_uncompressed_size, chunk.total_compressed_size
    if size > max(FREE_EXPANSION, EXPANSION * compressed):
        raise Damaged(f"too large: {compressed} bytes of images in row group {group} expand to {size}")


def column_chunk(metadata: pq.FileMetaData, group: int, column: str) -> pq.ColumnChunkMetaData:
    """What is told of a leaf column in a row group. Raises Damaged where there is no such column."""
    row_group = metadata.row_group(group)
    for place in range(row_group.num_columns):
        if (chunk := row_group.column(place)).path_in_schema == column:
            return chunk
    raise Damaged(f"damaged Parquet: row group {group} has no column {column}")

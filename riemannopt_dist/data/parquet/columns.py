"""The columns that hold images, their labels and the names of classes."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from riemannopt_dist.data.uri_list import URI_COLUMN

IMAGE_COLUMNS = ("image", "img", "image_bytes", "jpg", "jpeg", "png")
LABEL_COLUMNS = ("label", "labels", "cls", "class", "class_index", "target", "fine_label")


def image_column(schema: pa.Schema, uri: str) -> str:
    """The leaf column with the bytes of image files. Raises ValueError if there is none."""
    for name in IMAGE_COLUMNS:
        if (leaf := image_leaf(schema, name)) is not None:
            return leaf
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise ValueError(
        f"source: {uri}: expected a column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}, binary or "
        f"struct<bytes: binary, path: string>, with the files of images, or a column {URI_COLUMN} of their "
        f"addresses, found {columns or 'no column'}"
    )


def image_leaf(schema: pa.Schema, name: str) -> str | None:
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


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's of texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


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


def column_values(parquet: pq.ParquetFile, file: pa.NativeFile, column: str) -> pa.ChunkedArray:
    """A column; texts as dictionaries, so that one that all rows have is there once."""
    kind = parquet.schema_arrow.field(column).type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        parquet = pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=[column], pre_buffer=False)
    return parquet.read([column], use_threads=False).column(0)

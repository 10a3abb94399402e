"""The images of a Parquet file, a row each, or those whose addresses it lists."""

from itertools import chain, repeat

import pyarrow as pa
import pyarrow.parquet as pq

from riemannopt_dist.data.class_folders import Placed
from riemannopt_dist.data.files import Files
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.parquet.columns import (
    IMAGE_COLUMNS,
    column_values,
    image_column,
    image_leaf,
    is_text,
    label_column,
)
from riemannopt_dist.data.parquet.damage import (
    BYTES_A_ROW,
    BYTES_AN_ADDRESS,
    Damaged,
    check_rows,
    check_texts,
    checked,
    group_rows,
    open_parquet,
)
from riemannopt_dist.data.parquet.labels import row_classes
from riemannopt_dist.data.uri_list import URI_COLUMN, Classes, listed_images
from riemannopt_dist.storage.errors import retried


def list_parquet(files: Files, uri: str, prefix: str, classes: Classes = None) -> list[Placed]:
    """A ref a row, ids are `prefix`/row. A damaged file is itself an entry, with the reason.

    A file without images that has a column of their addresses is a list of them. `classes` are those of a
    model of its own. Raises ValueError for a file with neither.
    """
    with retried(lambda: files.open(uri), uri) as opened:
        try:
            parquet = checked(lambda: open_parquet(opened), opened, uri)
            size = checked(opened.size, opened, uri)
            if _is_list(parquet.schema_arrow):
                check_rows(parquet.metadata, size, BYTES_AN_ADDRESS)
                return _listed(parquet, opened, uri, classes)
            image_column(parquet.schema_arrow, uri)
            check_rows(parquet.metadata, size, BYTES_A_ROW)
            labels, note = row_classes(parquet, opened, uri, classes)
            names = _names(parquet, opened, uri)
        except Damaged as error:
            return [Placed(ImageRef(prefix, uri, None, str(error)))]
    digits = len(str(len(labels)))
    groups = chain.from_iterable(repeat(n, rows) for n, rows in enumerate(group_rows(parquet.metadata)))
    return [
        Placed(ImageRef(f"{prefix}/{row:0{digits}}", uri, *found, row, group=group), note=note, name=name)
        for row, (found, group, name) in enumerate(zip(labels, groups, names, strict=True))
    ]


def _is_list(schema: pa.Schema) -> bool:
    """Whether a file holds addresses of images, and no images."""
    has_images = any(image_leaf(schema, name) is not None for name in IMAGE_COLUMNS)
    return not has_images and URI_COLUMN in schema.names and is_text(schema.field(URI_COLUMN).type)


def _listed(parquet: pq.ParquetFile, file: pa.NativeFile, uri: str, classes: Classes) -> list[Placed]:
    """The images of a list."""
    column = label_column(parquet.schema_arrow)
    check_texts(parquet.metadata, URI_COLUMN)
    uris = checked(lambda: column_values(parquet, file, URI_COLUMN), file, uri).to_pylist()
    if column is None:
        return listed_images(uri, zip(uris, repeat(None)), False, classes)
    check_texts(parquet.metadata, column)
    labels = checked(lambda: column_values(parquet, file, column), file, uri).to_pylist()
    return listed_images(uri, zip(uris, labels, strict=True), True, classes)


def _names(parquet: pq.ParquetFile, file: pa.NativeFile, uri: str) -> list[str | None]:
    """What the data set calls the image of each row, as Hugging Face keeps it beside the bytes."""
    nothing: list[str | None] = [None] * parquet.metadata.num_rows
    column = image_column(parquet.schema_arrow, uri).partition(".")[0]
    kind = parquet.schema_arrow.field(column).type
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0 or not is_text(kind["path"].type):
        return nothing
    try:
        check_texts(parquet.metadata, leaf := f"{column}.path")
        values = checked(lambda: parquet.read([leaf], use_threads=False).column(0), file, uri)
    except Damaged:  # rows have numbers all the same
        return nothing
    return [None if value is None or not value["path"] else value["path"] for value in values.to_pylist()]

"""The classes of a Parquet file's rows, told by a column of indices, names or synsets."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from riemannopt_dist.data.classes import class_index, classes_of
from riemannopt_dist.data.image_ref import shortened
from riemannopt_dist.data.parquet.columns import class_names, column_values, label_column
from riemannopt_dist.data.parquet.damage import check_texts, checked
from riemannopt_dist.data.uri_list import Classes, label_of

logger = logging.getLogger(__name__)

Class = tuple[int | None, str | None]
"""A class index, or the reason why it is not known; neither for what has no label."""


def row_classes(
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
    check_texts(parquet.metadata, column)
    values = checked(lambda: column_values(parquet, file, column), file, uri)
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


def _class_by_name(value: object, known: Mapping[int, tuple[str, int | None]]) -> Class:
    """The class of a label that counts the names of a data set's classes."""
    place, reason = class_index(value)
    if place is None:
        return None, reason
    if place not in known:
        return None, f"label {place} is none of the {len(known)} classes that are named"
    name, index = known[place]
    return index, None if index is not None else f"class {name[:40]!r} is not one of the 1,000 of ILSVRC"

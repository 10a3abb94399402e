"""The names of classes beside their indices in a run's tables."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

INDICES = ("label", "target", "prediction", "runner_up", "likeliest")
"""Columns of class indices."""
NAME = "_name"
"""How the column of their names is called: after them."""
NAMES = tuple(f"{column}{NAME}" for column in INDICES)


def named(table: pa.Table, names: Sequence[str] | None) -> pa.Table:
    """The table with the name of each class beside its index, as a dictionary of all names.

    Names that stand there stay; they are null where `names` are not known. Classes may share a name, as
    ImageNet's two cranes do, and values of a dictionary must not.
    """
    distinct = {name: place for place, name in enumerate(dict.fromkeys(names or ()))}
    places = pa.array([distinct[name] for name in names or ()], pa.int32())
    for column in INDICES:
        if column not in table.column_names or f"{column}{NAME}" in table.column_names:
            continue
        indices = pc.if_else(pc.less(table[column], len(places)), table[column], None).combine_chunks()
        words = pa.DictionaryArray.from_arrays(places.take(indices), pa.array([*distinct], pa.string()))
        table = table.add_column(table.column_names.index(column) + 1, _field(column), words)
    return table


def _field(column: str) -> pa.Field:
    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.field(f"{column}{NAME}", kind, True, {"description": f"name of the class {column}"})

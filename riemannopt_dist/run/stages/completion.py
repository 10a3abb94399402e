"""What of a shard is done: which rows of its file stay, which parts are lacking, and all of it together.

A part of a shard, a cell say, is lacking where one of its images has no such row. It is then computed for all
of them, so that a file of the part's maps is made whole, too.
"""

from collections.abc import Container, Iterable, Sequence

import pyarrow as pa

from riemannopt_dist.run.origin import Origin
from riemannopt_dist.run.stages.base import Part, Stage

Key = tuple[str, *Part]
"""The id of a row's image, and its part."""


def key_fields(stage: Stage) -> list[pa.Field]:
    """The columns that a row's key is in."""
    return [stage.schema.field(name) for name in ("image_id", *stage.key)]


def row_keys(stage: Stage, table: pa.Table) -> list[Key]:
    """The key of every row."""
    columns = (table[field.name].to_pylist() for field in key_fields(stage))
    return list(zip(*columns, strict=True))


def kept_parts(stage: Stage, table: pa.Table) -> Container[Part]:
    """The parts whose rows in the table of a shard's file stay as they are."""
    origin = Origin.of(table.schema)
    return stage.kept("" if origin is None else origin.fingerprint)


def staying_rows(stage: Stage, table: pa.Table) -> pa.Table:
    """The rows in the table of a shard's file that stay as they are; none where they lack a column."""
    kept, columns = kept_parts(stage, table), stage.schema.names
    rows = _filtered(table, (key[1:] in kept for key in row_keys(stage, table)))
    if not len(rows) or not {*columns} <= {*rows.column_names}:
        return stage.schema.empty_table()
    return rows.select(columns).cast(stage.schema)


def lacking_parts(stage: Stage, there: Container[Key], image_ids: Sequence[str]) -> list[Part]:
    """The parts of which one of the images has no row, `there` being the keys of those that are."""
    return [part for part in stage.parts if not all((name, *part) in there for name in image_ids)]


def completed(stage: Stage, rows: pa.Table, made: pa.Table, image_ids: Sequence[str]) -> pa.Table:
    """`rows`, and of those that were `made` the ones that are not among them.

    In the order of the images, and of the parts; of images that are not named, last.
    """
    there = {*row_keys(stage, rows)}
    new = _filtered(made, (key not in there for key in row_keys(stage, made)))
    table = pa.concat_tables([rows, new])
    images = {name: place for place, name in enumerate(image_ids)}
    parts = {part: place for place, part in enumerate(stage.parts)}
    places = [(images.get(name, len(images)), parts[tuple(part)]) for name, *part in row_keys(stage, table)]
    return table.take(sorted(range(len(places)), key=places.__getitem__))


def _filtered(table: pa.Table, chosen: Iterable[bool]) -> pa.Table:
    return table.filter(pa.array(chosen, pa.bool_()))

"""The results of a run as they are read back: the rows of all shards, and files that follow from them."""

import math
from collections.abc import Mapping

import pyarrow as pa

from riemannopt_dist.metrics.metric import summaries_of
from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.schemas import CELL as RESULT
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError


def read_results(storage: Storage) -> pa.Table:
    """All result rows of a run, without columns of lists and texts that no table is made of.

    Raises ValueError where there are none, StorageError for a file that is damaged or not of the run.
    """
    names = [*shard_files(storage, "results").values()]
    if not names:
        raise ValueError(
            f"{storage.root}: no results in it (expected a run directory with results/*.parquet)"
        )
    tables = map(_tabulated, RunDirectory(storage).tables(names, RESULT))
    return joined(dict(zip(map(storage.uri, names), tables, strict=True)))


def joined(tables: Mapping[str, pa.Table]) -> pa.Table:
    """One table of the rows of shards, by their addresses, with the columns of the one that has most.

    Shards that have yet to be extended lack some: what stands there is undefined, NaN or null. Raises
    StorageError for a shard with a column that the one with most has not.
    """
    widest = max(tables, key=lambda uri: tables[uri].num_columns)
    schema = tables[widest].schema
    lengths = {f.name: _length(tables[widest], f.name) for f in schema if pa.types.is_list(f.type)}
    for uri, table in tables.items():
        if any(field not in schema for field in table.schema):
            raise StorageError(f"{uri}: has other columns than {widest}")
    return pa.concat_tables(_widened(table, schema, lengths) for table in tables.values())


def _widened(table: pa.Table, schema: pa.Schema, lengths: Mapping[str, int]) -> pa.Table:
    """A table with all columns of a schema, lists being of these lengths."""
    columns = [
        table[field.name]
        if field.name in table.column_names
        else _undefined(field.type, len(table), lengths.get(field.name, 0))
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _undefined(kind: pa.DataType, rows: int, length: int) -> pa.Array:
    """What stands in the place of values that a table lacks."""
    if pa.types.is_list(kind):
        return pa.array([[math.nan] * length] * rows, kind)
    return pa.array([math.nan] * rows, kind) if pa.types.is_floating(kind) else pa.nulls(rows, kind)


def _length(table: pa.Table, column: str) -> int:
    """That of the lists in a column, which are alike."""
    return len(table[column][0]) if len(table) else 0


def _tabulated(results: pa.Table) -> pa.Table:
    """The columns of the cells, all numbers, and what summaries are made of."""
    summed = {column for summary in summaries_of(results) for column in summary.columns}
    known = summed | {field.name for field in RESULT}
    return results.select(
        [f.name for f in results.schema if f.name in known or pa.types.is_primitive(f.type)]
    )


def write_files(storage: Storage, files: Mapping[str, bytes | pa.Table]) -> list[str]:
    """Write files into a run directory, tables with their origin; their names."""
    directory = RunDirectory(storage)
    for name, content in files.items():
        if isinstance(content, pa.Table):
            directory.write_table(name, content)
        else:
            storage.write_bytes(name, content)
    return [*files]

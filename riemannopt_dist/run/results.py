"""The results of a run as they are read back: the rows of all shards, and files that follow from them."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from riemannopt_dist.metrics.metric import summaries_of
from riemannopt_dist.run.directory import RUN, RunDirectory, shard_files
from riemannopt_dist.run.schemas import RESULT
from riemannopt_dist.run.stages.names import RESULTS
from riemannopt_dist.run.steps import steps_of
from riemannopt_dist.storage.base import Columns, Storage
from riemannopt_dist.storage.errors import StorageError

READERS = 4
"""Files read at once: an object store takes its time to answer."""


def read_results(storage: Storage) -> pa.Table:
    """All result rows of a run, without columns of lists and texts that no table is made of.

    Raises ValueError where there are none, StorageError for a file that is damaged or not of the run.
    """
    return result_rows(RunDirectory(storage), _tabulated)


def read_scores(storage: Storage) -> pa.Table:
    """The cell, the class explained and the scores of all result rows. Errors are those of `read_results`."""
    return result_rows(RunDirectory(storage), _scored)


def result_rows(
    directory: RunDirectory,
    columns: Columns,
    rows: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> pa.Table:
    """What `rows` takes of each result file of a run, in the `columns` chosen of what they have.

    Of every file all bytes are checked, and only these columns are decoded. Raises ValueError where there are
    none, StorageError for a file that is damaged, not of the run, or has other columns than the first.
    """
    storage = directory.storage
    names = [*shard_files(storage, RESULTS).values()]
    if not names:
        raise ValueError(
            f"{storage.root}: no results in it (expected a run directory with results/*.parquet)"
        )
    run = directory.read_run() if storage.exists(RUN) else None

    def read(name: str) -> pa.Table:
        return rows(directory.checked(name, run, RESULT, columns))

    with ThreadPoolExecutor(READERS) as threads:
        tables = dict(zip(map(storage.uri, names), threads.map(read, names), strict=True))
    if run is not None and steps_of(run):
        return joined(tables)
    first = next(iter(tables))
    for uri, table in tables.items():
        if not table.schema.equals(tables[first].schema):
            raise StorageError(f"{uri}: has other columns than {first}")
    return pa.concat_tables(tables.values())


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


def _scored(schema: pa.Schema) -> list[str]:
    """The columns of the cells, and those that are better higher or lower."""
    known = {field.name for field in RESULT}
    return [field.name for field in schema if field.name in known or b"direction" in (field.metadata or {})]


def _tabulated(schema: pa.Schema) -> list[str]:
    """The columns of the cells, all numbers, and what summaries are made of."""
    summed = {column for summary in summaries_of(schema.empty_table()) for column in summary.columns}
    known = summed | {field.name for field in RESULT}
    return [field.name for field in schema if field.name in known or pa.types.is_primitive(field.type)]


def write_files(storage: Storage, files: Mapping[str, bytes | pa.Table]) -> list[str]:
    """Write files into a run directory, tables with their origin; their names."""
    directory = RunDirectory(storage)
    for name, content in files.items():
        if isinstance(content, pa.Table):
            directory.write_table(name, content)
        else:
            storage.write_bytes(name, content)
    return [*files]

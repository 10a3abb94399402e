"""The results of a run as they are read back: the rows of all shards, and files that follow from them."""

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
    tables: list[pa.Table] = []
    schema: pa.Schema | None = None
    for name, table in zip(names, RunDirectory(storage).tables(names, RESULT), strict=True):
        schema = schema or table.schema
        if not table.schema.equals(schema):
            raise StorageError(f"{storage.uri(name)}: has other columns than {storage.uri(names[0])}")
        tables.append(_tabulated(table))
    return pa.concat_tables(tables)


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

"""The results of a run as they are read back: the rows of all shards, and files that follow from them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from riemannopt_dist.metrics.metric import summaries_of
from riemannopt_dist.run.directory import RUN, RunDirectory, shard_files
from riemannopt_dist.run.schemas import CELL as RESULT
from riemannopt_dist.run.stages.names import RESULTS
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError

READERS = 4
"""Files read at once: an object store takes its time to answer."""


def read_results(storage: Storage) -> pa.Table:
    """All result rows of a run, without columns of lists and texts that no table is made of.

    Raises ValueError where there are none, StorageError for a file that is damaged or not of the run.
    """
    return result_rows(RunDirectory(storage), _tabulated)


def result_rows(
    directory: RunDirectory,
    columns: Callable[[pa.Schema], Sequence[str]],
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
    chosen = columns(storage.read_schema(names[0]))

    def read(name: str) -> pa.Table:
        return rows(directory.checked(name, run, RESULT, chosen))

    with ThreadPoolExecutor(READERS) as threads:
        tables = [*threads.map(read, names)]
    for name, table in zip(names, tables, strict=True):
        if not table.schema.equals(tables[0].schema):
            raise StorageError(f"{storage.uri(name)}: has other columns than {storage.uri(names[0])}")
    return pa.concat_tables(tables)


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

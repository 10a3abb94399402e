"""The summary of a run: a row for every cell of the grid, over all images evaluated.

What is summed up, and how, stands in the metadata of the result files.
"""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.analysis.efficiency import sample_efficiency, tolerances
from riemannopt_dist.analysis.statistics import CELL, COSTS, against, changes, rows_of
from riemannopt_dist.metrics.metric import SUMMARIES, Summary
from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.rows import CELL as RESULT
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.run.text import as_text
from riemannopt_dist.stores import StorageError

SUMMARY = "summary"
COMPARISONS = "comparisons"
AGAINST_CONTROLS = ("insertion", "insertion_smoothed", "deletion")
EFFICIENCY = "efficiency"
TOLERANCES = "tolerances"


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


def summaries_of(results: pa.Table) -> list[Summary]:
    """How the metrics of result rows are summed up."""
    declared = json.loads((results.schema.metadata or {}).get(SUMMARIES.encode(), b"[]"))
    return [Summary(**{**fields, "columns": tuple(fields["columns"])}) for fields in declared]


def summarize(results: pa.Table) -> pd.DataFrame:
    """Per cell: images, gradients and seconds an image, and every summary that the metrics declare.

    `<summary>_left_out` counts images that a summary leaves out because its metric is not defined for them;
    such a column is there where any are.
    """
    summaries = summaries_of(results)
    rows = []
    frame = rows_of(results, *COSTS, *(column for summary in summaries for column in summary.columns))
    for cell, group in frame.groupby(CELL, observed=True):
        row = dict(zip(CELL, cell, strict=True)) | {
            "images": group["image"].nunique(),
            "gradient_evaluations": group["gradient_evaluations"].mean(),
            "seconds": group["seconds"].mean(),
        }
        for summary in summaries:
            values = {column: group[column].tolist() for column in summary.columns}
            row[summary.name], row[f"{summary.name}_left_out"] = summary.of(values)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.drop(columns=[n for n in table.columns if n.endswith("_left_out") and not table[n].any()])


def write_summary(storage: Storage, summary: pd.DataFrame) -> list[str]:
    """Write summary.parquet and summary.csv into the run directory; their names."""
    table = pa.Table.from_pandas(summary, preserve_index=False)
    RunDirectory(storage).write_table(f"{SUMMARY}.parquet", table)
    storage.write_bytes(f"{SUMMARY}.csv", csv_of(summary).encode())
    return [f"{SUMMARY}.parquet", f"{SUMMARY}.csv"]


def csv_of(table: pd.DataFrame) -> str:
    """A table as CSV, whose texts no spreadsheet takes for formulas."""
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: table[name].map(as_text) for name in texts}).to_csv(index=False)


def write_comparisons(storage: Storage, results: pa.Table) -> list[str]:
    """Write the CSV files of comparisons, those that the results have something for; their names.

    comparisons (linear against fitted), efficiency and tolerances (against converged maps), controls.
    """
    tables = {
        COMPARISONS: changes(results),
        EFFICIENCY: sample_efficiency(results),
        TOLERANCES: tolerances(results),
    }
    controls = sorted(pc.unique(results.filter(pc.equal(results["samples"], 0))["method"]).to_pylist())
    judged = [name for name in AGAINST_CONTROLS if name in results.column_names]
    if controls and judged:
        tables["controls"] = pd.concat([against(results, controls, name) for name in judged])
    names = []
    for name, table in tables.items():
        if len(table):
            storage.write_bytes(f"{name}.csv", csv_of(table).encode())
            names.append(f"{name}.csv")
    return names

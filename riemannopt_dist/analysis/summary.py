"""The summary of a run: a row for every cell of the grid, over all images evaluated.

What is summed up, and how, stands in the metadata of the result files.
"""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.analysis.efficiency import sample_efficiency, tolerances
from riemannopt_dist.analysis.statistics import CELL, against, changes
from riemannopt_dist.metrics.metric import SUMMARIES, Summary
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.rows import CELL as RESULT
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.stores import StorageError

SUMMARY = "summary"
COMPARISONS = "comparisons"
AGAINST_CONTROLS = ("insertion", "insertion_smoothed", "deletion")
EFFICIENCY = "efficiency"
TOLERANCES = "tolerances"


def read_results(storage: Storage) -> pa.Table:
    """All result rows of a run.

    Raises ValueError where there are none, StorageError for a file that is damaged or not of the run.
    """
    names = [name for name in storage.list("results") if name.endswith(".parquet")]
    if not names:
        raise ValueError(
            f"{storage.root}: no results in it (expected a run directory with results/*.parquet)"
        )
    tables = list(RunDirectory(storage).tables(names, RESULT))
    for name, table in zip(names, tables, strict=True):
        if not table.schema.equals(tables[0].schema):
            raise StorageError(f"{storage.uri(name)}: has other columns than {storage.uri(names[0])}")
    return pa.concat_tables(tables)


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
    for cell, group in results.to_pandas().groupby(CELL, sort=True):
        row = dict(zip(CELL, cell, strict=True)) | {
            "images": group["image_id"].nunique(),
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
    storage.write_bytes(f"{SUMMARY}.csv", summary.to_csv(index=False).encode())
    return [f"{SUMMARY}.parquet", f"{SUMMARY}.csv"]


def write_comparisons(storage: Storage, results: pa.Table) -> list[str]:
    """Write the CSV files of comparisons, those that the results have something for; their names.

    comparisons (linear against fitted), efficiency and tolerances (against converged maps), controls.
    """
    tables = {
        COMPARISONS: changes(results),
        EFFICIENCY: sample_efficiency(results),
        TOLERANCES: tolerances(results),
    }
    controls = sorted(set(results.filter(pc.equal(results["samples"], 0))["method"].to_pylist()))
    judged = [name for name in AGAINST_CONTROLS if name in results.column_names]
    if controls and judged:
        tables["controls"] = pd.concat([against(results, controls, name) for name in judged])
    names = []
    for name, table in tables.items():
        if len(table):
            storage.write_bytes(f"{name}.csv", table.to_csv(index=False).encode())
            names.append(f"{name}.csv")
    return names

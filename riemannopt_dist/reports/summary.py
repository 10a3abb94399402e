"""The summary of a run: a row for every cell of the grid, over all images evaluated.

What is summed up, and how, stands in the metadata of the result files.
"""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.metrics.metric import AGAINST_CONTROLS, summaries_of
from riemannopt_dist.reports.efficiency import sample_efficiency, tolerances
from riemannopt_dist.reports.statistics import (
    CELL,
    COSTS,
    NONE,
    against,
    cell_fields,
    changes,
    rows_of,
    without_tolerance,
)
from riemannopt_dist.text import as_text

SUMMARY = "summary"
COMPARISONS = "comparisons"
EFFICIENCY = "efficiency"
TOLERANCES = "tolerances"
CONTROLS = "controls"


def summarize(results: pa.Table) -> pd.DataFrame:
    """Per cell: images, gradients and seconds an image, and every summary that the metrics declare.

    `<summary>_left_out` counts images that a summary leaves out because its metric is not defined for them;
    such a column is there where any are.
    """
    summaries = summaries_of(results)
    rows = []
    frame = rows_of(results, *COSTS, *(column for summary in summaries for column in summary.columns))
    for cell, group in frame.groupby(CELL, observed=True):
        row = cell_fields(cell) | {
            "images": group["image"].nunique(),
            "gradient_evaluations": group["gradient_evaluations"].mean(),
            "seconds": group["seconds"].mean(),
        }
        for summary in summaries:
            values = {column: group[column].tolist() for column in summary.columns}
            row[summary.name], row[f"{summary.name}_left_out"] = summary.of(values)
        rows.append(row)
    table = without_tolerance(pd.DataFrame(rows, columns=None if rows else [*CELL, "images", *COSTS]))
    return table.drop(columns=[n for n in table.columns if n.endswith("_left_out") and not table[n].any()])


def summary_files(summary: pd.DataFrame) -> dict[str, bytes | pa.Table]:
    """summary.parquet and summary.csv, by their names."""
    table = pa.Table.from_pandas(summary, preserve_index=False)
    return {f"{SUMMARY}.parquet": table, f"{SUMMARY}.csv": csv_of(summary).encode()}


def csv_of(table: pd.DataFrame) -> str:
    """A table as CSV, whose texts no spreadsheet takes for formulas."""
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: table[name].map(as_text) for name in texts}).to_csv(index=False)


def comparison_files(results: pa.Table) -> dict[str, bytes]:
    """The CSV files of comparisons, those that the results have something for, by their names.

    comparisons (linear against fitted), efficiency and tolerances (against converged maps), controls.
    """
    tables = {
        COMPARISONS: changes(results),
        EFFICIENCY: sample_efficiency(results),
        TOLERANCES: tolerances(results),
    }
    controls = sorted(pc.unique(results.filter(pc.equal(results["path"], NONE))["estimator"]).to_pylist())
    judged = json.loads((results.schema.metadata or {}).get(AGAINST_CONTROLS.encode(), b"[]"))
    if controls and judged:
        tables[CONTROLS] = pd.concat([against(results, controls, name) for name in judged])
    return {f"{name}.csv": csv_of(table).encode() for name, table in tables.items() if len(table)}

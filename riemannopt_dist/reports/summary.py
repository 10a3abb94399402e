"""The summary of a run: a row for every cell of the grid, over all images evaluated.

What is summed up, and how, stands in the metadata of the result files.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from riemannopt_dist.choices import CELL
from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.metrics.metric import AGAINST_CONTROLS, Summary, summaries_of
from riemannopt_dist.reports.efficiency import sample_efficiency, tolerances
from riemannopt_dist.reports.gaps import gauged
from riemannopt_dist.reports.pivot import Pivot
from riemannopt_dist.reports.statistics import (
    COSTS,
    against,
    cell_fields,
    changes,
    without_tolerance,
)
from riemannopt_dist.text import as_text

SUMMARY = "summary"
COMPARISONS = "comparisons"
EFFICIENCY = "efficiency"
TOLERANCES = "tolerances"
CONTROLS = "controls"

SUMMARY_COLUMNS = {
    "images": "images that the cell has rows of",
    "gradient_evaluations": "gradients that an image takes: their mean",
    "seconds": "time that an image's gradients take: their mean, in s",
}
"""What the columns of summary.csv are, beside those of the cell and of the metrics."""
AGGREGATED = {
    "mean": "mean of {0} over images",
    "median": "median of {0} over images",
    "ratio_of_sums": "sum of |{0}| over images, over that of |{1}|",
    "area_of_median_curve": "area under the pointwise median, over images, of the curves {1} over {0}: not "
    "the mean of the areas of single images that the results have under this name",
}
"""What a summary is of its columns, by its aggregate."""


def meaning_of(summary: Summary) -> str:
    """A summary's column in a sentence."""
    return f"{AGGREGATED[summary.aggregate].format(*summary.columns)}; {summary.direction} is better"


def summarize(results: pa.Table) -> pd.DataFrame:
    """Per cell: images, gradients and seconds an image, and every summary that the metrics declare.

    `<summary>_left_out` counts images that a summary leaves out because its metric is not defined for them;
    such a column is there where any are.
    """
    pivot, summaries = Pivot.of(results), summaries_of(results)
    table = pd.DataFrame([cell_fields(cell) for cell in pivot.cells], columns=CELL)
    table["images"] = pivot.there.sum(1)
    for name in COSTS:
        table[name] = np.nanmean(pivot.values(name), axis=1) if len(table) else ()
    for summary in summaries:
        table[summary.name], table[f"{summary.name}_left_out"] = _summed_up(pivot, summary)
    table = without_tolerance(table)
    return table.drop(columns=[n for n in table.columns if n.endswith("_left_out") and not table[n].any()])


def _summed_up(pivot: Pivot, summary: Summary) -> tuple[list[float], list[int]]:
    """The number of each cell, and how many images it leaves out."""
    are_curves = pa.types.is_list(pivot.results.schema.field(summary.columns[0]).type)
    columns = {name: pivot.curves(name) if are_curves else pivot.column(name) for name in summary.columns}

    def of_cell(rows: NDArray[np.int64]) -> tuple[float, int]:
        return summary.of({name: values[rows[rows >= 0]] for name, values in columns.items()})

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = [*threads.map(of_cell, pivot.rows)]
    return [number for number, _ in outcomes], [left_out for _, left_out in outcomes]


def without_curves(results: pa.Table) -> pa.Table:
    """Result rows less their lists: most of a large run's memory, which nothing but a summary is made of."""
    return results.drop_columns([field.name for field in results.schema if pa.types.is_list(field.type)])


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

    comparisons (linear against fitted), efficiency and tolerances (against converged maps), controls. No
    verdict rests on a completeness gap that tells nothing (`gauged`).
    """
    tables = {
        COMPARISONS: changes(gauged(results)),
        EFFICIENCY: sample_efficiency(results),
        TOLERANCES: tolerances(results),
    }
    controls = sorted(pc.unique(results.filter(pc.equal(results["path"], NONE))["estimator"]).to_pylist())
    judged = json.loads((results.schema.metadata or {}).get(AGAINST_CONTROLS.encode(), b"[]"))
    if controls and judged:
        tables[CONTROLS] = pd.concat([against(results, controls, name) for name in judged])
    return {f"{name}.csv": csv_of(table).encode() for name, table in tables.items() if len(table)}

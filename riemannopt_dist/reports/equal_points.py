"""Every cell against equal points: its error, and the equal points of the same error."""

from collections.abc import Iterator, Mapping

import pandas as pd

from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.reports.answer import WORDS, Saving, counted, error_of
from riemannopt_dist.reports.cells import COLUMNS, cell_key, in_order, values_of
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.page.parts import Block, Column, Note, Table, Value, interval, number, shown
from riemannopt_dist.reports.pivot import CellKey
from riemannopt_dist.reports.statistics import ENOUGH
from riemannopt_dist.reports.summary import csv_of

JUDGED = (
    Column("as good as", "evaluations of equal points (linear, left) with the same mean error"),
    Column("efficiency", "those over the cell's own evaluations, with the 95 % interval"),
)


def against_equal_points(data: RunData, savings: Mapping[CellKey, Saving]) -> Iterator[Block]:
    """The cells with their errors, and what they save."""
    score = error_of(data.results)
    if score is None:
        yield Note(
            "The run measures no error: the metric reference gives the true error, the distance from the "
            "converged map as a share of its L1 norm; completeness what is off in a map's sum."
        )
        return
    yield _cells_table(data.summary[data.summary["path"] != NONE], savings, score)
    if not savings:
        yield Note(
            "Nothing is compared with equal points: that takes the placement linear with the estimator "
            "left at two counts or more, and two images."
        )
    elif any(saving.images < ENOUGH for saving in savings.values()):
        yield Note(
            f"Fewer than {ENOUGH} images: they tell little of the spread, and no number here is a verdict."
        )


def _cells_table(summary: pd.DataFrame, savings: Mapping[CellKey, Saving], score: str) -> Table:
    cells, mean = in_order(summary), f"{score}_mean"
    # With a tolerance an image takes what it needs, up to the count: such a cell is not of its equals.
    of_count = cells[mean].mask(cells["tolerance"].notna()) if "tolerance" in cells else cells[mean]
    least = of_count.groupby([cells["path"], cells["samples"]], observed=True).transform("min")
    # Images that have the error: with reference.images fewer than have rows.
    cells["images"] -= cells.get(f"{mean}_left_out", pd.Series(0, cells.index)).fillna(0).astype(int)
    counts = sorted({*cells["images"]})
    constant = len(counts) == 1
    of = f", {counted(int(counts[0]), 'image')} each" if constant else ""
    columns = {key: c for key, c in COLUMNS.items() if key in cells and not (constant and key == "images")}
    rows, bests = [], of_count.eq(least) & cells["images"].ge(ENOUGH)
    for row, is_best in zip(cells.to_dict("records"), bests, strict=True):
        error, saving = float(row[mean]), savings.get(cell_key(row))
        rows.append([*values_of(row, columns), *_judged(error, saving, "best" if is_best else "")])
    meaning = (
        "mean over images, with its 95 % interval; the least of its path and count is green, "
        f"of {ENOUGH} images or more"
    )
    frame = pd.DataFrame([saving.row for saving in savings.values()])
    return Table(
        "cells",
        f"Cells by their {WORDS[score]}{of}. Intervals are of the bootstrap over images; an efficiency is of "
        "images for which all cells of the path have an error.",
        [*columns.values(), Column(WORDS[score], meaning), *JUDGED],
        rows,
        csv_of(frame if savings else cells),
    )


def _judged(error: float, saving: Saving | None, verdict: str) -> list[Value]:
    if saving is None:
        return [Value(number(error).text, number(error).number, verdict), number(None), number(None)]
    told = interval(error, *saving.error[1:])
    equal = Value(f"{saving.reading}{shown(saving.equal[0])}", saving.equal[0])
    return [
        Value(told.text, told.number, verdict),
        equal,
        interval(*saving.efficiency, prefix=saving.reading),
    ]

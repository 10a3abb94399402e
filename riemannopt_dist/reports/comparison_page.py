"""The page of a comparison of runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from riemannopt_dist.reports.answer import WORDS, counted, joined
from riemannopt_dist.reports.cells import COLUMNS, cell_key, cell_name, values_of
from riemannopt_dist.reports.comparison import Comparison, NamedRun
from riemannopt_dist.reports.figures import change_figure
from riemannopt_dist.reports.page.charts import chart
from riemannopt_dist.reports.page.parts import (
    Block,
    Column,
    Note,
    Page,
    Section,
    Table,
    Tile,
    Value,
    interval,
    text,
)
from riemannopt_dist.reports.provenance import provenance
from riemannopt_dist.reports.statistics import ENOUGH, TOO_FEW
from riemannopt_dist.reports.summary import csv_of
from riemannopt_dist.text import printable

CHANGES: Mapping[str, Column] = {
    "run": Column("run", numbers=False),
    **COLUMNS,
    "score": Column("score", numbers=False),
    "direction": Column("better", "which direction is better", numbers=False),
    "before": Column("first run", "mean over the images of both"),
    "after": Column("other run", "mean over the images of both"),
    "change": Column("change", "mean over images, paired, with its 95 % interval"),
    "verdict": Column("verdict", f"whether the interval excludes 0; needs {ENOUGH} images", numbers=False),
}
CELLS = 40
"""Cells in a drawing, at most."""


def comparison_page(comparison: Comparison, runs: Sequence[NamedRun]) -> Page:
    """The page: what differs, the changes of every score, and where the runs come from."""
    first, *others = map(printable, comparison.names)
    sections = (
        Section("What differs", [*_differences(comparison)]),
        Section("Changes", [*_changes(comparison)]),
        Section("Without a partner", [*map(Note, map(printable, comparison.unpaired))]),
        *(Section(f"Provenance of {printable(run.name)}", [*provenance(run.about)]) for run in runs),
    )
    return Page(f"{joined(others)} against {first}", [*_answer(comparison)], [*_tiles(comparison)], sections)


def _answer(comparison: Comparison) -> Iterator[str]:
    first, *others = map(printable, comparison.names)
    keys = [*map(printable, comparison.differences)]
    more = f", and {len(keys) - 6} keys more" if len(keys) > 6 else ""
    yield (
        f"Compared: {joined(others)} with {first}, which differ in {joined([*keys[:6]])}{more}."
        if keys
        else f"Compared: {joined(others)} with {first}, of the same configuration, weights and versions."
    )
    counts = _counts(comparison)
    pairs = len(comparison.changes)
    yield (
        f"Of {counted(pairs, 'pair')} of cell and score {counts['better']} are better, {counts['worse']} "
        f"worse, {counts['open']} not told from nothing, and {counts[TOO_FEW]} have fewer than {ENOUGH} "
        "images, too few for a verdict."
    )
    yield " ".join(map(printable, comparison.unpaired))


def _counts(comparison: Comparison) -> dict[str, int]:
    verdicts = list(comparison.changes["verdict"]) if len(comparison.changes) else []
    return {name: verdicts.count(name) for name in ("better", "worse", "open", TOO_FEW)}


def _tiles(comparison: Comparison) -> Iterator[Tile]:
    for name, count in _counts(comparison).items():
        yield Tile(f"{count:,}", f"pairs of cell and score: {name}")


def _differences(comparison: Comparison) -> Iterator[Block]:
    if not comparison.differences:
        yield Note("Configurations, weights and versions are the same.")
        return
    columns = [Column(printable(name), numbers=False) for name in ("key", *comparison.names)]
    rows = [[text(key), *map(text, texts)] for key, texts in comparison.differences.items()]
    frame = pd.DataFrame(
        [(key, *texts) for key, texts in comparison.differences.items()], columns=["key", *comparison.names]
    )
    yield Table("differences", "What the runs' run.json tell differently.", columns, rows, csv_of(frame))


def _changes(comparison: Comparison) -> Iterator[Block]:
    changes = comparison.changes
    if changes.empty:
        yield Note("No cell and score that two images have in both runs: there is nothing to compare.")
        return
    for score in WORDS:
        for place, name in enumerate(comparison.names[1:]):
            part = changes[(changes["score"] == score) & (changes["run"] == name)].head(CELLS)
            if len(part):
                yield _drawing(part, score, f"{score}-{place}", printable(name))
    dull = [name for name in ("run", "tolerance") if changes[name].nunique() < 2]
    columns = {name: column for name, column in CHANGES.items() if name in changes and name not in dull}
    rows = [_row(row, columns) for row in changes.to_dict("records")]
    caption = "Every score's change from the first run to the other, over the images of both, paired."
    yield Table("changes", caption, [*columns.values()], rows, csv_of(changes))


def _row(row: Mapping[Any, Any], columns: Mapping[str, Column]) -> list[Value]:
    verdict, direction = str(row["verdict"]), str(row["direction"]).partition(" ")[0]
    change = interval(row["change"], row["low"], row["high"])
    words = {**row, "score": str(row["score"]).replace("_", " "), "direction": direction}
    values = dict(zip(columns, values_of(words, columns), strict=True))
    judged = {"change": replace(change, verdict=verdict), "verdict": Value(verdict, None, verdict)}
    return [*(values | judged).values()]


def _drawing(rows: pd.DataFrame, score: str, name: str, run: str) -> Block:
    lines = [
        (cell_name(cell_key(row)), float(row["change"]), float(row["low"]), float(row["high"]))
        for row in rows.to_dict("records")
    ]
    caption = f"Change of the {WORDS[score]} in {run}, with its 95 % interval; less is better."
    return chart(
        f"change-{name}", caption, partial(change_figure, lines, f"change of the {WORDS[score]}"), rows
    )

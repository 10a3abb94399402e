"""A comparison of runs for a terminal, 80 columns wide."""

import textwrap
from collections.abc import Iterator

import pandas as pd

from riemannopt_dist.reports.cells import cell_key, kind_name
from riemannopt_dist.reports.comparison import Comparison
from riemannopt_dist.reports.page.parts import shown
from riemannopt_dist.text import printable, table_lines

WIDTH = 80


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """What differs, what has no partner, and a small table for each other run, score and path."""
    first, *others = comparison.names
    yield from _differences(comparison)
    for sentence in comparison.unpaired:
        yield from textwrap.wrap(printable(sentence), WIDTH)
    for name in others:
        of_run = comparison.changes
        of_run = of_run[of_run["run"] == name] if len(of_run) else of_run
        if of_run.empty:
            yield f"{printable(name)}: no cell and score that two images have in both"
            continue
        yield ""
        yield from textwrap.wrap(printable(f"{name} less {first}, by images of both, 95 % intervals"), WIDTH)
        for (score, direction), rows in of_run.groupby(["score", "direction"], sort=False):
            yield ""
            yield f"{str(score).replace('_', ' ')} ({direction})"
            yield from _of_score(rows)


def _differences(comparison: Comparison) -> Iterator[str]:
    if not comparison.differences:
        yield "The runs' configurations, weights and versions are the same."
    for key, texts in comparison.differences.items():
        yield f"{printable(key)}:"
        for name, text in zip(comparison.names, texts, strict=True):
            line = printable(f"{name}: {text}")
            yield from textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _of_score(rows: pd.DataFrame) -> Iterator[str]:
    """A table for each kind of cells of a path, counts below each other."""
    kinds: dict[str, list[list[str]]] = {}
    for row in rows.to_dict("records"):
        cell = cell_key(row)
        numbers = [shown(float(row[name])) for name in ("before", "after", "change")]
        interval = f"[{shown(float(row['low']))}, {shown(float(row['high']))}]"
        line = [str(cell[3]), *numbers, interval, str(row["images"]), str(row["verdict"])]
        kinds.setdefault(f"{printable(cell[0])} {kind_name(cell)}", []).append(line)
    for kind, lines in kinds.items():
        yield f"  {kind}"
        heads = ["samples", "before", "after", "change", "interval", "images", "verdict"]
        yield from (f"    {line}" for line in table_lines([heads, *lines], left=0))

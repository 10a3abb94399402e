"""A run's summary for a terminal: a small table for each score, sample counts side by side, 80 columns wide.

Rows are the cells of a path, linear ones first; the best of each count is marked. A cell with a tolerance
stands under the most that its images may take, and is not compared with those that take as much. What is the
same in all rows, images for one, stands above.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from riemannopt_dist.estimators.base import LINEAR, NONE
from riemannopt_dist.text import printable, table_lines

WIDTH = 80
CELL = 11
"""The columns that a number takes at most, with its mark and the gap before it."""


def summary_lines(summary: pd.DataFrame, directions: Mapping[str, str]) -> Iterator[str]:
    """The lines of a summary's tables; `directions` says if "higher" or "lower" is better."""
    images = sorted(set(summary["images"]))
    shown = str(images[0]) if len(images) == 1 else f"{images[0]} to {images[-1]}"
    yield f"{shown} images a cell; * marks the best of a count"
    for score, direction in directions.items():
        if score in summary and summary[score].notna().any():
            yield ""
            yield f"{score.replace('_', ' ')} ({direction} is better)"
            for path, rows in summary.groupby("path", observed=True, sort=False):
                yield from _of_path(str(path), rows, score, direction)


def _of_path(path: str, rows: pd.DataFrame, score: str, direction: str) -> Iterator[str]:
    """The table of one path; counts that do not fit beside each other follow below."""
    counts = sorted(rows["samples"].unique().tolist())
    labels = {key: _label(*key) for key in _in_order(rows)}
    fitting = max(1, (WIDTH - 4 - max(map(len, labels.values()))) // CELL)
    counted = rows[rows["tolerance"].isna()] if "tolerance" in rows else rows
    best = {count: _best(counted.loc[counted["samples"] == count, score], direction) for count in counts}
    values = {(*_key(row), row["samples"]): row[score] for row in rows.to_dict("records")}
    yield f"  {printable(path)}"
    for start in range(0, len(counts), fitting):
        part = counts[start : start + fitting]
        table = [["", *(f"{count} " if count else "" for count in part)]]
        for key, label in labels.items():
            marked = [math.nan if key[2] else best[count] for count in part]
            cells = [_number(values.get((*key, n)), at) for n, at in zip(part, marked, strict=True)]
            if any(cell.strip() for cell in cells):
                table.append([label, *cells])
        yield from (f"    {line}".rstrip() for line in table_lines(table) if line.strip())


def _key(row: Mapping[Any, Any]) -> tuple[str, str, float]:
    tolerance = row.get("tolerance")
    known = isinstance(tolerance, float) and not math.isnan(tolerance)
    return str(row["estimator"]), str(row["placement"]), float(str(tolerance)) if known else 0.0


def _in_order(rows: pd.DataFrame) -> list[tuple[str, str, float]]:
    """The cells but for their counts: linear ones first, then by placement and estimator."""
    keys = {_key(row) for row in rows.to_dict("records")}
    return sorted(keys, key=lambda key: (key[1] != LINEAR, key[1], key[0], key[2]))


def _label(estimator: str, placement: str, tolerance: float) -> str:
    words = [estimator] if placement == NONE else [placement, estimator]
    return printable(" ".join([*words, f"to {tolerance:g}"] if tolerance else words))


def _best(values: "pd.Series[float]", direction: str) -> float:
    return float(values.max() if direction == "higher" else values.min())


def _number(value: float | None, best: float) -> str:
    """Three digits, with a mark if it is the best."""
    if value is None or math.isnan(value):
        return " "
    return f"{value:.3g}{'*' if value == best else ' '}"

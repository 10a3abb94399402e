"""Images left out of a run and given up on, by their reason."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pandas as pd

from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.reports.answer import missing
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.inputs import failed_in_selection, unreadable
from riemannopt_dist.reports.page.parts import Block, Column, Note, Table, number, text
from riemannopt_dist.reports.summary import csv_of
from riemannopt_dist.text import printable

REASONS = 50
"""Reasons that are listed, at most."""
LISTED = 100
"""Images of a reason in the table's data, at most."""


def exclusions(data: RunData) -> Iterator[Block]:
    """How many images are missing, the reasons with examples, and what summaries leave out."""
    yield Note(missing(data))
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    if data.images is not None:
        failed = failed_in_selection(data.failures)
        for row in data.images.filter(unreadable(data.images, failed)).to_pylist():
            reasons["left out", _kind(row["error"])].append(row["image_id"])
    for failure in data.failures:
        reasons[failure["stage"], _kind(failure["reason"])].append(failure["image_id"])
    if reasons:
        yield _table(sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])))
    if undefined := _undefined(data.summary):
        yield Note(f"Scores that are not defined for up to so many images of a cell: {', '.join(undefined)}.")


def _table(reasons: Sequence[tuple[tuple[str, str], Sequence[str]]]) -> Table:
    columns = [Column(head, numbers=head == "images") for head in ("stage", "reason", "images", "such as")]
    shown, more = reasons[:REASONS], len(reasons) - REASONS
    rows = [
        [text(stage), text(reason), number(len(names)), text(_examples(names))]
        for (stage, reason), names in shown
    ]
    lines = [(*key, name) for key, names in shown for name in names[:LISTED]]
    frame = pd.DataFrame(lines, columns=["stage", "reason", "image_id"])
    cut = f" {more} reasons more are in images.parquet and failures.parquet." if more > 0 else ""
    caption = f"Images that cannot be used, and those given up on, by their reason.{cut}"
    return Table("missing", caption, columns, rows, csv_of(frame))


def _undefined(summary: pd.DataFrame) -> list[str]:
    """Scores with the most images that a cell leaves out of them, controls aside."""
    cells = summary[summary["path"] != NONE]
    counts = {
        str(key): int(cells[key].max()) for key in cells if str(key).endswith("_left_out") and len(cells)
    }
    return [
        f"{key.removesuffix('_left_out').replace('_', ' ')} ({count:,})"
        for key, count in counts.items()
        if count
    ]


def _kind(reason: str) -> str:
    """A reason without what is an image's own."""
    return printable(" ".join(str(reason).split())[:160])


def _examples(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")

"""Images left out of a run and given up on, by their reason."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pandas as pd
import pyarrow.compute as pc

from riemannopt_dist.reports.answer import counted, missing
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.page.parts import Block, Column, Note, Table, number, text
from riemannopt_dist.reports.summary import csv_of
from riemannopt_dist.text import printable

REASONS = 50
"""Reasons that are listed, at most."""


def exclusions(data: RunData) -> Iterator[Block]:
    """How many images are missing, the reasons with examples, and what summaries leave out."""
    yield Note(missing(data))
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    if data.images is not None:
        for row in data.images.filter(pc.is_valid(data.images["error"])).to_pylist():
            reasons["left out", _kind(row["error"])].append(row["image_id"])
    for failure in data.failures:
        reasons[failure["stage"], _kind(failure["reason"])].append(failure["image_id"])
    ordered = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    if ordered:
        columns = [Column("stage", numbers=False), Column("reason", numbers=False), Column("images")]
        rows = [
            [text(stage), text(reason), number(len(names)), text(_examples(names))]
            for (stage, reason), names in ordered[:REASONS]
        ]
        frame = pd.DataFrame(
            [(stage, reason, name) for (stage, reason), names in ordered[:REASONS] for name in names[:100]],
            columns=["stage", "reason", "image_id"],
        )
        more = len(ordered) - REASONS
        cut = f" {more} reasons more are in images.parquet and failures.parquet." if more > 0 else ""
        caption = f"Images that cannot be used, and those given up on, by their reason.{cut}"
        yield Table("missing", caption, [*columns, Column("for one", numbers=False)], rows, csv_of(frame))
    left_out = [str(key) for key in data.summary if str(key).endswith("_left_out")]
    for key in left_out:
        words = key.removesuffix("_left_out").replace("_", " ")
        most = int(data.summary[key].max())
        yield Note(f"{words} leaves out up to {counted(most, 'image')} a cell, for which it is not defined.")


def _kind(reason: str) -> str:
    """A reason without what is an image's own."""
    return printable(" ".join(str(reason).split())[:160])


def _examples(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")

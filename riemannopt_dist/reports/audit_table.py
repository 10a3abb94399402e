"""The table of an audit: what the maps of each file are worth, in the median over images."""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from riemannopt_dist.text import printable, table_lines

ABOUT = b"audit"
"""The key of an audit's metadata that tells what maps were compared with."""
SAMPLES = "samples_"
"""How the columns begin that count samples, a rule each."""
LABEL = 24
"""Signs of a name that stands beside its numbers; a longer one stands above them."""


def audit_lines(audit: pa.Table) -> Iterator[str]:
    """The lines of the table, and what its columns are."""
    about, frame = json.loads(audit.schema.metadata[ABOUT]), audit.to_pandas()
    rules = [name.removeprefix(SAMPLES) for name in frame.columns if name.startswith(SAMPLES)]
    yield "medians over images"
    yield from _table(frame, rules, about["most"])
    residual = frame["reference_residual"].median()
    yield "error: distance from the converged map, as a share of its L1 norm. That map"
    yield f"is a trapezoid's on {about['intervals']} equal intervals, itself off by some {residual:.2g}."
    if near := int((frame["reference_error"] < frame["reference_residual"]).sum()):
        yield f"{near} of {len(frame)} maps are nearer than that: take more --intervals to tell how near."
    yield "gap: distance of the map's sum from the change of f, as a share of that."
    yield f"{', '.join(rules)}: samples on equal intervals that are as near."
    yield f"f: {about['output']}; path: {about['path']}; model: {about['model']}"


def _table(frame: pd.DataFrame, rules: list[str], most: int) -> Iterator[str]:
    groups = {str(name): rows for name, rows in frame.groupby("maps")}
    numbers = [[_label(name), *_numbers(rows, rules, most)] for name, rows in groups.items()]
    head, *lines = table_lines([["maps", "images", "error", "gap", *rules], *numbers])
    yield head
    for name, line in zip(groups, lines, strict=True):
        if not _label(name):
            yield printable(name)
        yield line


def _label(name: str) -> str:
    return printable(name) if len(name) <= LABEL else ""


def _numbers(rows: pd.DataFrame, rules: list[str], most: int) -> list[str]:
    """The medians of one file's maps; those without an error have none of the samples either."""
    known = rows[rows["reference_error"].notna()]
    errors = [f"{rows[name].median():.3g}" for name in ("reference_error", "relative_error")]
    counts = [known[f"{SAMPLES}{rule}"].astype("float64").fillna(np.inf).median() for rule in rules]
    return [str(len(rows)), *errors, *(f"> {most}" if np.isinf(n) else f"{n:.4g}" for n in counts)]

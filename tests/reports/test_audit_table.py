"""The table of an audit: medians by hand, of maps whose error or samples are not known, too."""

import json
import math

import pyarrow as pa

from riemannopt_dist.reports.audit_table import ABOUT, audit_lines
from riemannopt_dist.run.schemas import AUDIT

TOLD = {"model": "m", "path": "ig", "output": "logit", "intervals": 64, "placement": "linear", "most": 16}
LONG = "ig/softmax_trapezoid/adaptive/256-within-0.05"


def row(maps: str, error: float, left: int | None) -> dict[str, object]:
    return {
        "maps": maps,
        "image_id": "a",
        "target": 1,
        "summed": False,
        "reference_error": error,
        "reference_residual": 0.002,
        "completeness_delta": 0.5,
        "relative_error": 0.25,
        "samples_left": left,
        "samples_midpoint": 3,
        "samples_trapezoid": None,
    }


def lines_of(rows: list[dict[str, object]]) -> list[str]:
    table = pa.Table.from_pylist(rows, schema=AUDIT)
    return [*audit_lines(table.replace_schema_metadata({ABOUT: json.dumps(TOLD)}))]


def test_medians_are_those_of_the_maps() -> None:
    short = [row("b", 0.1, 4), row("b", 0.3, 8), row("b", 0.2, None), row("b", math.nan, None)]
    _, head, first, name, second, *notes = lines_of([*short, row(LONG, 0.001, None), row(LONG, 0.003, None)])
    assert head.split() == ["maps", "images", "error", "gap", "left", "midpoint", "trapezoid"]
    # NaN has no error, and more than was tried counts as infinitely many.
    assert first.split() == ["b", "4", "0.2", "0.25", "8", "3", ">", "16"]
    assert name == LONG
    assert second.split() == ["2", "0.002", "0.25", ">", "16", "3", ">", "16"]
    assert "1 of 6 maps are nearer than that: take more --intervals to tell how near." in notes
    assert all(len(line) <= 80 for line in [head, first, name, second, *notes])

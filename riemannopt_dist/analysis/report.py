"""The report of a run: Table 1 of the paper, and its figures.

Errors against their cost, insertion against samples, each profile with its points, single images' profiles.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from riemannopt_dist.analysis.figures import (
    error_figure,
    picture,
    profile_figure,
    score_figure,
    single_profiles_figure,
)
from riemannopt_dist.analysis.table_one import FORMATS, METHODS, PLACEMENTS, rule_of, table_one
from riemannopt_dist.run.directory import RUN, RunDirectory, shard_files
from riemannopt_dist.run.status import read_status
from riemannopt_dist.run.storage import Storage

TABLE = "report/table1"
PICTURES = ("png", "svg")
SCORES = {"insertion_mean": "Insertion", "insertion_normalized_mean": "Normalised insertion"}
ERRORS = ("reference_error_mean", "relative_error_mean")
SHOWN_SAMPLES = 16
SINGLE = 6


def write_report(storage: Storage, results: pa.Table, summary: pd.DataFrame) -> list[str]:
    """Write Table 1 and the figures into the run directory's report/; their names."""
    model, promised = _model_and_images(storage, results)
    table = table_one(results, model, promised)
    texts = {f"{TABLE}.{ending}": write(table).encode() for ending, write in FORMATS.items()}
    figures = {
        column: error_figure(summary, column)
        for column in ERRORS
        if column in summary and (summary[column] > 0).any()
    }
    if (curves := _curves(summary)) is not None:
        figures["insertion"] = score_figure(curves, SCORES)
    for name in storage.list("schedules"):
        family = name.rsplit("/", 1)[-1].removesuffix(".json")
        figures[f"profile_{family}"] = _profile(family, storage.read_json(name))
        if (images := _single_images(storage, family)) is not None:
            figures[f"profiles_{family}"] = images
    pictures = {
        f"report/{name}.{kind}": picture(figure, kind)
        for name, figure in figures.items()
        for kind in PICTURES
    }
    for name, content in (texts | pictures).items():
        storage.write_bytes(name, content)
    return [*texts, *pictures]


def _model_and_images(storage: Storage, results: pa.Table) -> tuple[str, int]:
    """The model's name, and how many images the run is to evaluate; of bare results those that are there."""
    there = pc.count_distinct(results["image_id"]).as_py()
    if RUN not in storage.list(""):
        return "a model that is not told", there
    status = read_status(storage)
    return status.model, status.stages[-1].images or there


def _curves(summary: pd.DataFrame) -> pd.DataFrame | None:
    """Insertion of the paper's cells, for `score_figure`; None where there are none."""
    if any(column not in summary for column in SCORES):
        return None
    parts = []
    for method, (title, rules) in METHODS.items():
        cells = summary[(summary["method"] == method) & summary["schedule"].isin(PLACEMENTS)]
        cells = cells[cells["rule"] == rule_of(cells, rules)].sort_values("samples")
        parts.append(cells.assign(line=title, dashed=cells["schedule"] == "linear"))
    curves = pd.concat(parts)
    return curves if len(curves) else None


def _profile(family: str, fitted: dict[str, dict[str, list[float]] | list[dict[str, object]]]) -> Figure:
    """The profile, with equal points and those of every schedule fitted for SHOWN_SAMPLES."""
    profile, schedules = fitted["profile"], fitted["schedules"]
    assert isinstance(profile, dict)
    assert isinstance(schedules, list)
    marks = {"equal": np.arange(SHOWN_SAMPLES) / SHOWN_SAMPLES}
    for entry in schedules:
        if entry["samples"] == SHOWN_SAMPLES and entry["method"] == family:
            marks[f"{entry['schedule']} {entry['rule']}"] = np.array(entry["points"])
    title = f"{family}: |g′| along the path, {SHOWN_SAMPLES} points"
    return profile_figure(title, np.array(profile["points"]), np.array(profile["magnitudes"]), marks)


def _single_images(storage: Storage, family: str) -> Figure | None:
    """The profiles of the first SINGLE images of the fit subset, from the finest pass over them."""
    for folder in ("refine", "fit"):
        rows: list[dict[str, Any]] = []
        for table in RunDirectory(storage).tables(shard_files(storage, folder).values()):
            rows += [row for row in table.to_pylist() if row["method"] == family]
            if len(rows) >= SINGLE:
                break
        if rows:
            return single_profiles_figure(family, rows[:SINGLE])
    return None

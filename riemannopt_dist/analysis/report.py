"""The figures of a run: errors against their cost, each profile with its points, single images' profiles."""

from typing import Any

import numpy as np
import pandas as pd

from riemannopt_dist.analysis.figures import error_figure, profile_figure, single_profiles_figure
from riemannopt_dist.run.storage import Storage

ERRORS = ("reference_error_mean", "relative_error_mean")
SHOWN_SAMPLES = 16
SINGLE = 6


def write_report(storage: Storage, summary: pd.DataFrame) -> list[str]:
    """Write the figures into the run directory's report/; their names."""
    pictures = {
        f"report/{column}.png": error_figure(summary, column)
        for column in ERRORS
        if column in summary and (summary[column] > 0).any()
    }
    for name in storage.list("schedules"):
        family = name.rsplit("/", 1)[-1].removesuffix(".json")
        pictures[f"report/profile_{family}.png"] = _profile(family, storage.read_json(name))
        if images := _single_images(storage, family):
            pictures[f"report/profiles_{family}.png"] = images
    for name, picture in pictures.items():
        storage.write_bytes(name, picture)
    return list(pictures)


def _profile(family: str, fitted: dict[str, dict[str, list[float]] | list[dict[str, object]]]) -> bytes:
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


def _single_images(storage: Storage, family: str) -> bytes | None:
    """The profiles of the first SINGLE images of the fit subset, from the finest pass over them."""
    for folder in ("refine", "fit"):
        rows: list[dict[str, Any]] = []
        for name in storage.list(folder):
            rows += [row for row in storage.read_table(name).to_pylist() if row["method"] == family]
            if len(rows) >= SINGLE:
                break
        if rows:
            return single_profiles_figure(family, rows[:SINGLE])
    return None

"""The figures of a run's report.

Errors against their cost, insertion against samples, each profile with its points, single images' profiles,
and maps where they are stored.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from riemannopt_dist.estimators.base import LINEAR
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.figures import (
    error_figure,
    picture,
    profile_figure,
    score_figure,
    single_profiles_figure,
)
from riemannopt_dist.reports.maps_figure import maps_figure
from riemannopt_dist.reports.table_one import METHODS, PLACEMENTS, path_of, rule_of

PICTURES = ("png", "svg")
SCORES = {"insertion_mean": "Insertion", "insertion_normalized_mean": "Normalised insertion"}
ERRORS = ("reference_error_mean", "relative_error_mean")
SHOWN_SAMPLES = 16


def figure_files(data: RunData) -> dict[str, bytes]:
    """Every figure as PNG and SVG, by its name in the run directory."""
    summary = data.summary
    figures = {
        column: error_figure(summary, column)
        for column in ERRORS
        if column in summary and (summary[column] > 0).any()
    }
    if (curves := _curves(summary)) is not None:
        figures["insertion"] = score_figure(curves, SCORES)
    figures |= {f"profile_{path}": profile_of(path, fitted) for path, fitted in data.fitted.items()}
    singles = {path: images for path, images in data.singles.items() if images}
    figures |= {f"profiles_{path}": single_profiles_figure(path, images) for path, images in singles.items()}
    if (maps := maps_figure(data)) is not None:
        figures["maps"] = maps
    return {
        f"report/{name}.{kind}": picture(figure, kind)
        for name, figure in figures.items()
        for kind in PICTURES
    }


def _curves(summary: pd.DataFrame) -> pd.DataFrame | None:
    """Insertion of the paper's cells, for `score_figure`; None where there are none."""
    if any(column not in summary for column in SCORES):
        return None
    parts = []
    for name, (title, rules) in METHODS.items():
        paths = summary["path"] == path_of(summary, name)
        cells = summary[paths & summary["placement"].isin(PLACEMENTS)]
        cells = cells[cells["estimator"] == rule_of(cells, rules)].sort_values("samples")
        parts.append(cells.assign(line=title, dashed=cells["placement"] == LINEAR))
    curves = pd.concat(parts)
    return curves if len(curves) else None


def marked_points(path: str, fitted: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Equal points, and those of every schedule fitted for SHOWN_SAMPLES, by what is drawn beside them."""
    marks = {"equal": np.arange(SHOWN_SAMPLES) / SHOWN_SAMPLES}
    for entry in fitted["schedules"]:
        if entry["samples"] == SHOWN_SAMPLES and entry["path"] == path:
            marks[f"{entry['placement']} {entry['estimator']}"] = np.array(entry["points"])
    return marks


def profile_of(path: str, fitted: Mapping[str, Any]) -> Figure:
    """The profile with its marked points."""
    profile, title = fitted["profile"], f"{path}: |g′| along the path, {SHOWN_SAMPLES} points"
    points, magnitudes = np.array(profile["points"]), np.array(profile["magnitudes"])
    return profile_figure(title, points, magnitudes, marked_points(path, fitted))

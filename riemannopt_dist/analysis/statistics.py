"""Paired comparisons between cells: the change of a score from one to another, with its interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

CELL = ["method", "schedule", "rule", "samples"]
RESAMPLES = 10_000
LEVEL = 0.95

ENOUGH = 10
"""Images that a verdict needs: of fewer, bootstrap intervals are too narrow."""
TOO_FEW = "too few"
"""What stands in a verdict's place."""


def bootstrap_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """The mean of N values and the 95 % interval of its percentile bootstrap, seeded.

    Raises ValueError for fewer than two values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        raise ValueError(f"values: an interval needs at least 2, got {len(sample)}")
    rng = np.random.default_rng(seed)
    means: NDArray[np.float64] = np.concatenate(
        [sample[rng.integers(0, len(sample), (500, len(sample)))].mean(1) for _ in range(RESAMPLES // 500)]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(sample.mean()), float(low), float(high)


def scores(results: pa.Table) -> dict[str, str]:
    """The columns of result rows that are scores, and which direction is better."""
    found = {}
    for field in results.schema:
        direction = (field.metadata or {}).get(b"direction", b"").decode()
        if direction:
            found[field.name] = direction
    return found


def changes(results: pa.Table, reference: str = "linear") -> pd.DataFrame:
    """How every score changes from `reference` to each other schedule of the same method, rule and samples.

    A row for each pair of cells and score: images where both are defined, the two means, the mean change and
    its 95 % interval over images, paired. `verdict` says whether the interval excludes 0, and on which side,
    where there are at least `ENOUGH` images.
    """
    frame = results.to_pandas()
    rows = []
    for (method, rule, samples), group in frame.groupby(["method", "rule", "samples"], sort=True):
        wide = {name: part.set_index("image_id") for name, part in group.groupby("schedule")}
        if reference not in wide:
            continue
        for schedule in sorted(set(wide) - {reference}):
            pair = (wide[reference], wide[schedule])
            cell = {"method": method, "rule": rule, "samples": samples, "schedule": schedule}
            rows += [cell | row for row in _compared(*pair, scores(results))]
    return pd.DataFrame(rows)


def against(results: pa.Table, controls: Sequence[str], score: str) -> pd.DataFrame:
    """How much every cell's `score` exceeds that of each control map, paired, with 95 % intervals."""
    frame = results.to_pandas()
    rows = []
    for control in controls:
        base = frame[frame["method"] == control].set_index("image_id")
        for cell, group in frame[~frame["method"].isin(controls)].groupby(CELL, sort=True):
            fields = dict(zip(CELL, cell, strict=True)) | {"control": control}
            rows += [
                fields | row
                for row in _compared(base, group.set_index("image_id"), {score: scores(results)[score]})
            ]
    return pd.DataFrame(rows)


def _compared(before: pd.DataFrame, after: pd.DataFrame, columns: dict[str, str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for score, direction in columns.items():
        both = pd.concat({"before": before[score], "after": after[score]}, axis=1).dropna()
        if len(both) < 2:
            continue
        change, low, high = bootstrap_interval(both["after"] - both["before"])
        gain = change if direction.startswith("higher") else -change
        verdict = "open" if low <= 0 <= high else "better" if gain > 0 else "worse"
        rows.append(
            {
                "score": score,
                "images": len(both),
                "before": both["before"].mean(),
                "after": both["after"].mean(),
                "change": change,
                "low": low,
                "high": high,
                "verdict": verdict if len(both) >= ENOUGH else TOO_FEW,
            }
        )
    return rows

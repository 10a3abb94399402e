"""Paired comparisons between cells: the change of a score from one to another, with its interval."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

CELL = ["method", "schedule", "rule", "samples"]
RESAMPLES = 10_000
LEVEL = 0.95

LARGE = 2_000
"""Images from which on an interval is that of the normal limit."""
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


def saving_interval(before: ArrayLike, after: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """By which share Σ after is less than Σ before, N values ≥ 0 each in pairs, and its 95 % interval.

    1 − Σ after / Σ before, with the percentiles of the paired bootstrap, seeded; for `LARGE` samples and more
    its normal limit by the delta method, of variance Σ(after − r before)² / (Σ before)² with r the ratio.
    Raises ValueError for fewer than two pairs and for Σ before = 0.
    """
    pairs = np.stack([np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)])
    count = pairs.shape[1]
    if count < 2 or not pairs[0].sum():
        raise ValueError(f"before: expected at least two values, not all of them 0, got {count}")
    ratio = pairs[1].sum() / pairs[0].sum()
    if count >= LARGE:
        reach = NormalDist().inv_cdf((1 + LEVEL) / 2)
        spread = reach * math.sqrt(np.square(pairs[1] - ratio * pairs[0]).sum()) / pairs[0].sum()
        return float(1 - ratio), float(1 - ratio - spread), float(1 - ratio + spread)
    rng = np.random.default_rng(seed)
    # How often each image is drawn says all of a resample.
    draws = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    sums = pairs @ draws.T
    savings = 1 - sums[1] / np.where(sums[0] == 0, np.nan, sums[0])
    low, high = np.nanquantile(savings, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(1 - ratio), float(low), float(high)


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

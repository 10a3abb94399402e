"""Paired comparisons between cells: the change of a score from one to another, with its interval."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

CELL = ["path", "estimator", "placement", "samples", "tolerance"]
"""What a cell of the grid is. In these frames a tolerance of 0 stands for none."""
NONE = "none"
"""The path and placement of a control map."""
COSTS = ["gradient_evaluations", "seconds"]
TEXTS = ["path", "estimator", "placement"]
RESAMPLES = 10_000
LEVEL = 0.95

LARGE = 2_000
"""Images from which on an interval is that of the normal limit."""
ENOUGH = 10
"""Images that a verdict needs: of fewer, bootstrap intervals are too narrow."""
TOO_FEW = "too few"
"""What stands in a verdict's place."""


def mean_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """The mean of N values and its 95 % interval.

    The percentiles of the bootstrap, seeded; for `LARGE` samples and more its normal limit, of variance
    s² / N. Raises ValueError for fewer than two values.
    """
    sample = np.asarray(values, dtype=np.float64)
    count = len(sample)
    if count < 2:
        raise ValueError(f"values: an interval needs at least 2, got {count}")
    mean = float(sample.mean())
    if count >= LARGE:
        reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * float(sample.std()) / math.sqrt(count)
        return mean, mean - reach, mean + reach
    means = resampled_means(sample[:, None], seed)[1:, 0]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return mean, float(low), float(high)


def resampled_means(values: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Column means (1 + RESAMPLES, K) of `values` (N, K): of all rows, then of bootstrap samples, seeded.

    For `LARGE` samples and more the means are drawn from the bootstrap's normal limit: about the means of all
    rows, with the columns' covariance over N.
    """
    count, mean = len(values), values.mean(0)
    rng = np.random.default_rng(seed)
    if count >= LARGE:
        # With R of the QR decomposition of the centred rows, RᵀR is N times their covariance.
        factor = np.linalg.qr(values - mean).R / count
        return np.vstack([mean, mean + rng.standard_normal((RESAMPLES, len(factor))) @ factor])
    # How often each row is drawn says all of a sample.
    draws = (rng.multinomial(count, np.full(count, 1 / count), part) for part in _parts(count))
    return np.vstack([mean, *(drawn @ values / count for drawn in draws)])


def _parts(count: int) -> list[int]:
    """RESAMPLES in parts of which each takes a few megabytes for `count` rows."""
    size = max(1, 1_000_000 // count)
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]


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
    first, second = resampled_means(pairs.T, seed)[1:].T
    savings = 1 - second / np.where(first == 0, np.nan, first)
    low, high = np.nanquantile(savings, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(1 - ratio), float(low), float(high)


def scores(results: pa.Table) -> dict[str, str]:
    """The columns of result rows that are scores, and which direction is better."""
    directions = {}
    for field in results.schema:
        direction = (field.metadata or {}).get(b"direction", b"").decode()
        if direction:
            directions[field.name] = direction
    return directions


def rows_of(results: pa.Table, *columns: str) -> pd.DataFrame:
    """Image, cell and `columns` of result rows, and nothing else, for there may be millions.

    Texts are sorted categories. `image` numbers the images from 0, in the order of their ids.
    """
    names = list(dict.fromkeys([*CELL, *columns]))
    frame: pd.DataFrame = results.select(names).to_pandas(categories=TEXTS)
    for name in TEXTS:
        frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
    ids = pc.unique(results["image_id"]).sort()
    frame["tolerance"] = frame["tolerance"].fillna(0.0)  # NaN equals nothing, and would be no group
    return frame.assign(image=pc.index_in(results["image_id"], ids).to_numpy())


def cell_fields(cell: Sequence[Any]) -> dict[str, Any]:
    """The columns of a cell in a table, where a tolerance that it does not have is NaN."""
    return dict(zip(CELL, cell, strict=True)) | {"tolerance": cell[-1] or math.nan}


def without_tolerance(table: pd.DataFrame) -> pd.DataFrame:
    """The table, less the tolerances where no cell has one."""
    none = "tolerance" in table and table["tolerance"].isna().all()
    return table.drop(columns="tolerance") if none else table


def changes(results: pa.Table, reference: str = "linear") -> pd.DataFrame:
    """How every score changes from the placement `reference` to each other one, else in the same cell.

    A row for each pair of cells and score: images where both are defined, the two means, the mean change and
    its 95 % interval over images, paired. `verdict` says whether the interval excludes 0, and on which side,
    where there are at least `ENOUGH` images.
    """
    columns = scores(results)
    frame = rows_of(results, *columns)
    rows = []
    frame = frame[frame["tolerance"] == 0]
    alike = ["path", "estimator", "samples"]
    for (path, estimator, samples), group in frame.groupby(alike, observed=True):
        parts = group.groupby("placement", observed=True)
        wide = {str(name): part.set_index("image") for name, part in parts}
        if reference not in wide:
            continue
        for placement in sorted(set(wide) - {reference}):
            pair = (wide[reference], wide[placement])
            cell = {"path": path, "estimator": estimator, "samples": samples, "placement": placement}
            rows += [cell | row for row in _compared(*pair, columns)]
    return pd.DataFrame(rows)


def against(results: pa.Table, controls: Sequence[str], score: str) -> pd.DataFrame:
    """How much every cell's `score` exceeds that of each control map, paired, with 95 % intervals."""
    column = {score: scores(results)[score]}
    frame = rows_of(results, score)
    cells = {
        cell: part.set_index("image")
        for cell, part in frame[frame["path"] != NONE].groupby(CELL, observed=True)
    }
    rows = []
    for control in controls:
        is_control = (frame["path"] == NONE) & (frame["estimator"] == control)
        base = frame[is_control].set_index("image")
        for cell, part in cells.items():
            fields = cell_fields(cell) | {"control": control}
            rows += [fields | row for row in _compared(base, part, column)]
    return without_tolerance(pd.DataFrame(rows))


def _compared(before: pd.DataFrame, after: pd.DataFrame, columns: dict[str, str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for score, direction in columns.items():
        both = pd.concat({"before": before[score], "after": after[score]}, axis=1).dropna()
        if len(both) < 2:
            continue
        change, low, high = mean_interval(both["after"] - both["before"])
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

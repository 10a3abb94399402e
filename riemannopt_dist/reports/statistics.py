"""Paired comparisons between cells: the change of a score from one to another, its interval and its test."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t, wilcoxon

from riemannopt_dist.choices import CELL
from riemannopt_dist.estimators.base import LINEAR, NONE
from riemannopt_dist.reports.pivot import CellKey, Pivot

COSTS = ["gradient_evaluations", "seconds"]
RESAMPLES = 10_000
LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""The reach of an interval in standard errors, in the normal limit."""

COMPARISON_COLUMNS = {
    "score": "the column of the results that is compared",
    "images": "images for which both cells have the score",
    "before": "its mean over them in the cell compared with: linear in comparisons.csv, else the control",
    "after": "its mean over them in the row's cell",
    "change": "after − before, in the score's unit",
    "low": "lower end of the change's 95 % interval over images, paired: expanded percentiles of the "
    "bootstrap, and for 2,000 images and more its normal limit",
    "high": "upper end of that interval",
    "wilcoxon_p": "two-sided p-value of the signed-rank test of changes symmetric about 0; images without a "
    "change are dropped; of fewer than 10 images there is none",
    "wilcoxon_p_holm": "the p-value after Holm's correction for all pairs compared by the score in this file",
    "verdict": "better or worse where the interval excludes 0, else open; too few of fewer than 10 images",
}
"""What the columns of comparisons.csv and controls.csv are, beside those of the cell."""

LARGE = 2_000
"""Images from which on an interval is that of the normal limit."""
ENOUGH = 10
"""Images that a verdict needs: fewer say little of how errors are spread, on which intervals rest."""
TOO_FEW = "too few"
"""What stands in a verdict's place."""


def mean_interval(values: ArrayLike) -> tuple[float, float, float]:
    """The mean of N values and its 95 % interval.

    Percentiles of the bootstrap (`quantile_levels`), seeded; for `LARGE` samples and more its normal limit,
    of variance s² / N. Raises ValueError for fewer than two values.
    """
    (interval,) = mean_intervals([values])
    return interval


def mean_intervals(samples: Sequence[ArrayLike], seed: int = 0) -> list[tuple[float, float, float]]:
    """`mean_interval` of each sample. Those of equal size share their bootstrap draws."""
    arrays = [np.asarray(values, dtype=np.float64) for values in samples]
    intervals: dict[int, tuple[float, float, float]] = {}
    small: dict[int, list[int]] = {}
    for place, sample in enumerate(arrays):
        count = len(sample)
        if count < 2:
            raise ValueError(f"values: an interval needs at least 2, got {count}")
        if count < LARGE:
            small.setdefault(count, []).append(place)
            continue
        mean, reach = float(sample.mean()), Z * float(sample.std()) / math.sqrt(count)
        intervals[place] = mean, mean - reach, mean + reach
    for places in small.values():
        means = resampled_means(np.column_stack([arrays[place] for place in places]), seed)[1:]
        bounds = np.quantile(means, quantile_levels(len(arrays[places[0]])), axis=0).T.tolist()
        intervals |= {n: (float(arrays[n].mean()), *bound) for n, bound in zip(places, bounds, strict=True)}
    return [intervals[place] for place in range(len(arrays))]


def quantile_levels(count: int) -> tuple[float, float]:
    """Between which quantiles of what N ≥ 2 resampled values give a 95 % interval lies.

    Expanded percentiles (Hesterberg, 2015, "What Teachers Should Know About the Bootstrap"): those at which a
    normal distribution is √(N / (N − 1)) times as far out as Student's t of N − 1 degrees of freedom. The
    plain ones hold 90 % of the means of 10 normal values, and 80 % of those of 4.
    """
    tail = float(norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf((1 + LEVEL) / 2, count - 1)))
    return tail, 1 - tail


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


def saving_interval(before: ArrayLike, after: ArrayLike) -> tuple[float, float, float]:
    """By which share Σ after is less than Σ before, N values ≥ 0 each in pairs, and its 95 % interval.

    1 − Σ after / Σ before, with percentiles of the paired bootstrap (`quantile_levels`), seeded; for `LARGE`
    samples and more its normal limit by the delta method, of variance Σ(after − r before)² / (Σ before)² with
    r the ratio.
    Raises ValueError for fewer than two pairs and for Σ before = 0.
    """
    pairs = np.stack([np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)])
    count = pairs.shape[1]
    if count < 2 or not pairs[0].sum():
        raise ValueError(f"before: expected at least two values, not all of them 0, got {count}")
    ratio = pairs[1].sum() / pairs[0].sum()
    if count >= LARGE:
        spread = Z * math.sqrt(np.square(pairs[1] - ratio * pairs[0]).sum()) / pairs[0].sum()
        return float(1 - ratio), float(1 - ratio - spread), float(1 - ratio + spread)
    first, second = resampled_means(pairs.T)[1:].T
    savings = 1 - second / np.where(first == 0, np.nan, first)
    low, high = np.nanquantile(savings, quantile_levels(count))
    return float(1 - ratio), float(low), float(high)


def scores(results: pa.Table) -> dict[str, str]:
    """The columns of result rows that are scores, and which direction is better."""
    directions = {}
    for field in results.schema:
        direction = (field.metadata or {}).get(b"direction", b"").decode()
        if direction:
            directions[field.name] = direction
    return directions


def cell_fields(cell: CellKey) -> dict[str, Any]:
    """The columns of a cell in a table, where a tolerance that it does not have is NaN."""
    return dict(zip(CELL, cell, strict=True)) | {"tolerance": cell[-1] or math.nan}


def without_tolerance(table: pd.DataFrame) -> pd.DataFrame:
    """The table, less the tolerances where no cell has one."""
    none = "tolerance" in table and table["tolerance"].isna().all()
    return table.drop(columns="tolerance") if none else table


def changes(results: pa.Table) -> pd.DataFrame:
    """How every score changes from the placement linear to each other one, else in the same cell.

    A row for each pair of cells and score, with what `compared` tells of it.
    """
    pivot = Pivot.of(results)
    counts = [n for n, cell in enumerate(pivot.cells) if not cell[4]]
    base = {_alike(pivot.cells[n]): n for n in counts if pivot.cells[n][2] == LINEAR}
    others = [n for n in counts if pivot.cells[n][2] != LINEAR and _alike(pivot.cells[n]) in base]
    others.sort(key=lambda n: (*_alike(pivot.cells[n]), pivot.cells[n][2]))
    pairs = [(base[_alike(pivot.cells[n])], n) for n in others]
    order = ["path", "estimator", "samples", "placement"]
    fields = [{name: cell_fields(pivot.cells[n])[name] for name in order} for n in others]
    return compared(pivot, pairs, fields, scores(results))


def against(results: pa.Table, controls: Sequence[str], score: str) -> pd.DataFrame:
    """How much every cell's `score` exceeds that of each control map, with what `compared` tells of it."""
    pivot = Pivot.of(results)
    cells = [n for n, cell in enumerate(pivot.cells) if cell[0] != NONE]
    pairs = [(base, n) for name in controls for base in pivot.where(path=NONE, estimator=name) for n in cells]
    fields = [cell_fields(pivot.cells[n]) | {"control": pivot.cells[base][1]} for base, n in pairs]
    return without_tolerance(compared(pivot, pairs, fields, {score: scores(results)[score]}))


def _alike(cell: CellKey) -> tuple[str, str, int]:
    """What is the same in cells that differ by their placement."""
    return cell[0], cell[1], cell[3]


def compared(
    pivot: Pivot,
    pairs: Sequence[tuple[int, int]],
    fields: Sequence[Mapping[str, Any]],
    directions: Mapping[str, str],
) -> pd.DataFrame:
    """How scores change from one cell to another: a row for each pair of cells and score, its `fields` first.

    Its other columns are `COMPARISON_COLUMNS`; a pair with fewer than two images has no row. `directions`
    says of each score whether "higher" or "lower" is better.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    for score, direction in directions.items():
        values = pivot.values(score)
        both = [~np.isnan(values[before]) & ~np.isnan(values[after]) for before, after in pairs]
        known = [n for n, defined in enumerate(both) if defined.sum() >= 2]
        samples = [tuple(values[cell][both[n]] for cell in pairs[n]) for n in known]
        differences = [after - before for before, after in samples]
        tests = [_signed_rank_p(difference) for difference in differences]
        intervals = mean_intervals(differences)
        parts = zip(known, samples, intervals, tests, holm(tests), strict=True)
        for n, (before, after), (change, low, high), p, corrected in parts:
            row = {
                "score": score,
                "images": len(before),
                "before": before.mean(),
                "after": after.mean(),
                "change": change,
                "low": low,
                "high": high,
                "wilcoxon_p": p,
                "wilcoxon_p_holm": corrected,
                "verdict": _verdict(len(before), change, low, high, direction),
            }
            rows.append((n, {**fields[n], **row}))
    return pd.DataFrame([row for _, row in sorted(rows, key=lambda row: row[0])])


def _verdict(images: int, change: float, low: float, high: float, direction: str) -> str:
    if images < ENOUGH:
        return TOO_FEW
    gain = change if direction.startswith("higher") else -change
    return "open" if low <= 0 <= high else "better" if gain > 0 else "worse"


def _signed_rank_p(differences: NDArray[np.float64]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, NaN for fewer than `ENOUGH` differences.

    Differences of 0, images that two cells serve alike, are dropped as by Wilcoxon: they have no direction,
    and what few others are left have an exact distribution. Where they are ranked (Pratt, 1959) SciPy has
    its normal limit alone, which for few others is too sure.
    """
    if len(differences) < ENOUGH:
        return math.nan
    signed = differences[differences != 0]
    return float(wilcoxon(signed).pvalue) if len(signed) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction for all of them that are no NaN.

    The k-th smallest of m is multiplied by m − k + 1, and is no less than the one before and 1 at most (Holm,
    1979): with those below a level taken for real, the chance of any that is not is below the level.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]
    corrected = np.full(len(values), math.nan)
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]

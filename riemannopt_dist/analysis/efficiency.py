"""What a schedule saves: gradient evaluations that equal intervals need for the same error, with intervals.

Errors are the mean over images of a score such as `reference_error`; 95 % intervals are of the bootstrap over
images, which are the same for every cell of a method.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from riemannopt_dist.analysis.statistics import CELL, LEVEL, RESAMPLES, bootstrap_interval

Array = NDArray[np.float64]

ERROR = "reference_error"
AUTO = "auto_"
EXACT, AT_LEAST, AT_MOST = "", "at least", "at most"


def sample_efficiency(results: pa.Table, score: str = ERROR) -> pd.DataFrame:
    """For every cell: its mean `score`, and the evaluations of linear left for the same over its own.

    Linear left's count is interpolated between those of the grid, straight in log-log. `bound` says "at
    least" or "at most" where the cell's error lies outside of theirs, and the nearest count is taken. `low`
    and `high` of both numbers are 95 % intervals. Methods without linear left at two counts or more are left
    out, and so are images for which a method's cells do not all have the score.
    """
    if score not in results.column_names:
        return pd.DataFrame()
    frame = results.to_pandas()
    tables = [_of_method(group, score) for _, group in frame.groupby("method", sort=True)]
    return pd.concat([pd.DataFrame(), *tables], ignore_index=True)


def _of_method(group: pd.DataFrame, score: str) -> pd.DataFrame:
    errors = group.pivot(index="image_id", columns=CELL, values=score).dropna(axis=0)
    costs = group.groupby(CELL)["gradient_evaluations"].mean()
    cells: list[tuple[Any, ...]] = [tuple(cell) for cell in errors.columns]
    linear = [cell for cell in cells if cell[1:3] == ("linear", "left")]
    if len(linear) < 2 or len(errors) < 2:
        return pd.DataFrame()
    means = _resampled_means(errors.to_numpy())
    column = {cell: index for index, cell in enumerate(cells)}
    counts = np.array([cell[3] for cell in linear], dtype=np.float64)
    yardstick = means[:, [column[cell] for cell in linear]]
    rows = []
    for cell in cells:
        found = means[:, column[cell]]
        needed = equivalent_count(found, counts, yardstick)
        efficiency = needed / costs[cell]
        least, most = yardstick[0].min(), yardstick[0].max()
        rows.append(
            dict(zip(CELL, cell, strict=True))
            | {"images": len(errors), "gradient_evaluations": costs[cell]}
            | _with_interval(f"{score}_mean", found)
            | _with_interval("efficiency", efficiency)
            | {"bound": AT_LEAST if found[0] < least else AT_MOST if found[0] > most else EXACT}
        )
    return pd.DataFrame(rows)


def equivalent_count(errors: Array, counts: Array, yardstick: Array) -> Array:
    """The count at which the errors `yardstick` (R, K) of increasing `counts` (K,) come to `errors` (R,).

    Interpolated straight in log-log after the last count whose error is larger; the first or the last count
    where there is none or nothing after it.
    """
    rows = np.arange(len(errors))
    larger = yardstick > errors[:, None]
    after = np.where(larger.any(1), len(counts) - larger[:, ::-1].argmax(1), 0)
    left, right = np.clip(after - 1, 0, None), np.clip(after, None, len(counts) - 1)
    logs, heights = np.log(counts), np.log(yardstick)
    fall = heights[rows, left] - heights[rows, right]
    part = np.divide(heights[rows, left] - np.log(errors), fall, out=np.zeros_like(fall), where=fall > 0)
    return np.asarray(np.exp(logs[left] + part * (logs[right] - logs[left])))


def tolerances(results: pa.Table, score: str = ERROR) -> pd.DataFrame:
    """For every cell of a tolerance: the share of images within it, and what a fixed count costs for that.

    `linear_count` is the least count of linear left that keeps as many images within the tolerance, `cost`
    is the mean evaluations an image over that count. Where no count of the grid does, the largest is taken
    and `bound` says that the cost is "at most" that; both are NaN for a grid without linear left.
    """
    frame = results.to_pandas()
    rows = []
    if score not in frame:
        return pd.DataFrame()
    for cell, group in frame[frame["schedule"].str.startswith(AUTO)].groupby(CELL, sort=True):
        method, schedule, _, maximum = cell
        tolerance = float(schedule.removeprefix(AUTO))
        known = group.dropna(subset=[score])
        if len(known) < 2:
            continue
        share, low, high = bootstrap_interval(known[score] <= tolerance)
        equal = (frame["method"] == method) & (frame["schedule"] == "linear") & (frame["rule"] == "left")
        linear = frame[equal].dropna(subset=[score])
        shares = (linear[score] <= tolerance).groupby(linear["samples"]).mean()
        enough = [count for count, found in shares.items() if found >= share]
        count = min(enough, default=shares.index.max())
        mean = known["gradient_evaluations"].mean()
        rows.append(
            {
                "method": method,
                "tolerance": tolerance,
                "maximum": maximum,
                "images": len(known),
                "within": share,
                "low": low,
                "high": high,
                "gradient_evaluations": mean,
                "at_maximum": (known["gradient_evaluations"] >= maximum).mean(),
                "linear_count": count,
                "cost": mean / count,
                "bound": AT_MOST if len(shares) and not enough else EXACT,
            }
        )
    return pd.DataFrame(rows)


def _resampled_means(values: Array, seed: int = 0) -> Array:
    """Column means of `values` (N, K): first of all rows, then of RESAMPLES bootstrap samples of them."""
    images = len(values)
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), RESAMPLES)
    return np.vstack([values.mean(0), drawn @ values / images])


def _with_interval(name: str, values: Array) -> dict[str, float]:
    """The first of `values`, and the interval of the others."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}

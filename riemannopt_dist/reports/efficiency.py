"""What a schedule saves: gradient evaluations that equal intervals need for the same error, with intervals.

Errors are the mean over images of a score such as `reference_error`; 95 % intervals are of the bootstrap over
images, which are the same for every cell of a method.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from riemannopt_dist.estimators.base import LINEAR
from riemannopt_dist.reports.pivot import Pivot
from riemannopt_dist.reports.statistics import (
    ENOUGH,
    TOO_FEW,
    cell_fields,
    quantile_levels,
    resampled_means,
    without_tolerance,
)

Array = NDArray[np.float64]

ERROR = "reference_error"
EQUAL = ("left", LINEAR)
"""Estimator and placement of equal points."""
EXACT, AT_LEAST, AT_MOST = "", "at least", "at most"

EFFICIENCY_COLUMNS = {
    "images": "images for which all cells of the path have the error",
    "gradient_evaluations": "gradients that an image takes, over all draws of a baseline: their mean",
    "reference_error_mean": "mean true error",
    "reference_error_mean_low": "lower end of its 95 % interval over images",
    "reference_error_mean_high": "upper end of that interval",
    "efficiency": "gradients that equal intervals (linear, left) take for the same error, over the cell's",
    "efficiency_low": "lower end of its 95 % interval; 0 where equal intervals' counts do not reach that far",
    "efficiency_high": "upper end of that interval; infinity where they do not",
    "bound": "how to read the efficiency: at least or at most it, where the error lies outside of those of "
    "equal intervals; too few of fewer than 10 images; else empty",
}
"""What the columns of efficiency.csv are, beside those of the cell."""
TOLERANCE_COLUMNS = {
    "path": "the path from a baseline to the image",
    "tolerance": "the estimated error at which an image has samples enough",
    "maximum": "the most samples that an image takes, in each draw of a baseline",
    "images": "images that have a true error",
    "at_maximum": "share of them that took the maximum, in all draws",
    "within": "share of them whose true error is within the tolerance",
    "within_low": "lower end of its 95 % interval over images",
    "within_high": "upper end of that interval",
    "gradient_evaluations": "gradients that an image takes, over all draws of a baseline: their mean",
    "gradient_evaluations_low": "lower end of its 95 % interval over images",
    "gradient_evaluations_high": "upper end of that interval",
    "linear_count": "least count of equal intervals (linear, left) that keeps as many images within the "
    "tolerance, else the largest; NaN without any",
    "cost": "gradient_evaluations over those of linear_count",
    "cost_low": "lower end of its 95 % interval over images",
    "cost_high": "upper end of that interval",
    "bound": "how to read the cost: at most it, where no count of equal intervals keeps as many; too few of "
    "fewer than 10 images; else empty",
}
"""What the columns of tolerances.csv are."""

ROUNDING = 256 * float(np.finfo(np.float32).eps)
"""Errors of less are rounding, as far as an output of a network may be off for it: they count as this."""


def sample_efficiency(results: pa.Table, score: str = ERROR) -> pd.DataFrame:
    """For every cell: its mean `score`, and the evaluations of linear left for the same over its own.

    Linear left's evaluations are interpolated between those of the grid's counts, straight in log-log; with
    several draws of a baseline both sides count the gradients of all draws. `bound` says "at least" or "at
    most" where the cell's error lies outside of theirs, and the nearest count is taken; where all of them are
    rounding, their first count is more than enough. It says "too few" where there are fewer than `ENOUGH`
    images. `low` and `high` of both numbers are 95 % intervals, of which an efficiency's ends at 0 or
    infinity where the grid's counts do not reach far enough to tell. Paths without linear left at
    two counts or more are left out, and so are images for which a path's cells do not all have the score,
    with what they cost.
    """
    if score not in results.column_names:
        return pd.DataFrame()
    pivot = Pivot.of(results)
    errors, taken = pivot.values(score), pivot.values("gradient_evaluations")
    paths = dict.fromkeys(cell[0] for cell in pivot.cells)
    tables = [_of_path(pivot, pivot.where(path=path), errors, taken, score) for path in paths]
    return without_tolerance(pd.concat([pd.DataFrame(), *tables], ignore_index=True))


def _of_path(pivot: Pivot, members: Sequence[int], errors: Array, taken: Array, score: str) -> pd.DataFrame:
    # What tends to another integral than the path's has no error, for no image.
    members = [n for n in members if not np.isnan(errors[n]).all()]
    images = np.flatnonzero(~np.isnan(errors[members]).any(0))
    cells = [pivot.cells[n] for n in members]
    linear = [cell for cell in cells if cell[1:3] == EQUAL]
    if len(linear) < 2 or len(images) < 2:
        return pd.DataFrame()
    # The same images are drawn for both: what an image costs may go with its error.
    means, costs = (resampled_means(table[members][:, images].T) for table in (errors, taken))
    column = {cell: index for index, cell in enumerate(cells)}
    known, equal = np.maximum(means, ROUNDING), [column[cell] for cell in linear]
    counts, yardstick = costs[0, equal], known[:, equal]
    rows = []
    for cell in cells:
        place = column[cell]
        nearer, further = known[:, place] < yardstick.min(1), known[:, place] > yardstick[:, 0]
        needed = equivalent_count(known[:, place], counts, yardstick)
        # Of resamples that are beyond what is known, nothing is taken for their count.
        needed[1:] = np.select([nearer, further], [np.inf, 0.0], needed)[1:]
        above = bool(further[0]) or yardstick[0].max() == ROUNDING
        cost = costs[:, place]
        rows.append(
            cell_fields(cell)
            | {"images": len(images), "gradient_evaluations": cost[0]}
            | _with_interval(f"{score}_mean", means[:, place], len(images))
            | _with_interval("efficiency", needed / cost, len(images))
            | {"bound": _bound(len(images), bool(nearer[0]), above)}
        )
    return pd.DataFrame(rows)


def _bound(images: int, below: bool, above: bool) -> str:
    """How to read a number of so many images, whose error is `below` or `above` all it is compared with."""
    if images < ENOUGH:
        return TOO_FEW
    return AT_LEAST if below else AT_MOST if above else EXACT


def equivalent_count(errors: Array, counts: Array, yardstick: Array) -> Array:
    """The least count at which the errors `yardstick` (R, K) of increasing `counts` (K,) are `errors` (R,).

    Interpolated straight in log-log between the first count that is as near and the one before, where there
    is one; the last count where none is.
    """
    rows, reached = np.arange(len(errors)), yardstick <= errors[:, None]
    right = np.where(reached.any(1), reached.argmax(1), len(counts) - 1)
    left = np.where(reached.any(1), np.clip(right - 1, 0, None), right)
    logs, heights = np.log(counts), np.log(yardstick)
    fall = heights[rows, left] - heights[rows, right]
    part = np.divide(heights[rows, left] - np.log(errors), fall, out=np.zeros_like(fall), where=fall > 0)
    return np.asarray(np.exp(logs[left] + part * (logs[right] - logs[left])))


def tolerances(results: pa.Table, score: str = ERROR) -> pd.DataFrame:
    """For every cell of a tolerance: the share of images within it, and what a fixed count costs for that.

    `linear_count` is the least count of linear left that keeps as many images within the tolerance, `cost`
    is the mean evaluations an image over what that count takes. Where no count of the grid does, the largest
    is taken and `bound` says that the cost is "at most" that; both are NaN for a grid without linear left.
    `at_maximum` is the share of images that took the largest count, in all draws of the baseline. `bound` is
    "too few" where there are fewer than `ENOUGH` images. `low` and `high` of the share, the evaluations and
    the cost are 95 % intervals.
    """
    if score not in results.column_names:
        return pd.DataFrame()
    pivot = Pivot.of(results)
    errors, taken = pivot.values(score), pivot.values("gradient_evaluations")
    rows = []
    for n, cell in enumerate(pivot.cells):
        (images,) = np.nonzero(~np.isnan(errors[n]))
        path, _, _, maximum, tolerance = cell
        if not tolerance or len(images) < 2:
            continue
        linear = pivot.where(path=path, estimator=EQUAL[0], placement=EQUAL[1], tolerance=0.0)
        # A count without an error for any image is none to compare with.
        linear = [count for count in linear if not np.isnan(errors[count]).all()]
        counts = pd.Series({pivot.cells[n][3]: np.nanmean(taken[n]) for n in linear}, dtype=float)
        evaluations = taken[n, images]
        at_maximum = evaluations >= maximum * _draws(counts, evaluations.max() / maximum)
        rows.append(
            {"path": path, "tolerance": tolerance, "maximum": maximum}
            | {"images": len(images), "at_maximum": at_maximum.mean()}
            | _of_tolerance(tolerance, errors[n, images], evaluations, counts, errors[linear][:, images])
        )
    return pd.DataFrame(rows)


def _draws(counts: "pd.Series[float]", taken: float) -> int:
    """The draws of a path's baseline, each of which takes a whole count: from the evaluations of `counts`.

    Without any the least number of draws that makes `taken`, evaluations over a draw's most, possible.
    """
    return math.ceil(taken) if counts.empty else round(counts.iloc[0] / counts.index[0])


def _of_tolerance(
    tolerance: float, errors: Array, evaluations: Array, counts: "pd.Series[float]", linear: Array
) -> dict[str, Any]:
    """The numbers of `tolerances` that have intervals.

    Of a cell's `errors` and `evaluations` (I,), the evaluations of linear left by its K counts, and its
    errors there, `linear` (K, I).
    """
    columns = [errors <= tolerance, evaluations, *(linear <= tolerance)]
    within, evaluations, *shares = resampled_means(np.column_stack(columns).astype(np.float64)).T
    enough = [share >= within for share in shares]
    # Where no count is enough, the last is taken; where there is none, the NaN after them.
    last = len(counts) - 1
    place = np.select([*enough, np.isnan(within)], [*range(len(counts)), last], default=last)
    count, spent = (np.append(of, math.nan)[place] for of in (counts.index, counts))
    return (
        _with_interval("within", within, len(errors))
        | _with_interval("gradient_evaluations", evaluations, len(errors))
        | {"linear_count": count[0]}
        | _with_interval("cost", evaluations / spent, len(errors))
        | {"bound": _bound(len(errors), False, bool(shares) and not any(found[0] for found in enough))}
    )


def _with_interval(name: str, values: Array, images: int) -> dict[str, float]:
    """The first of `values`, and the interval of the others, which are of so many images resampled."""
    low, high = np.quantile(values[1:], quantile_levels(images), method="nearest")
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}

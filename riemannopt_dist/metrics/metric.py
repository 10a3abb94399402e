"""What a metric declares of itself, so that everything else can pick it up from the table of metrics.

This module holds plain data and NumPy: a summary can be made where neither a model nor a device is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import Tensor

    from riemannopt_dist.data.boxes import Box
    from riemannopt_dist.estimators.converged import Reference
    from riemannopt_dist.metrics.starts import Start
    from riemannopt_dist.objective import Objective
    from riemannopt_dist.paths.base import PathFamily

SUMMARIES = "summaries"
"""The key of a table's metadata under which the summaries of its columns are, as a JSON list."""
AGAINST_CONTROLS = "against_controls"
"""That of the columns that are compared with control maps."""
WITHOUT_GAP = "without_gap"
"""That of the estimators of whose maps the completeness gap is no measure."""

BOX_TOLERANCE = 15.0
"""How far beside a box, in pixels, a hit of the pointing game may be: the original's."""

Direction = Literal["higher", "lower"]
Aggregate = Literal["mean", "median", "ratio_of_sums", "area_of_median_curve"]


@dataclass(frozen=True)
class MapBatch:
    """What a metric may look at: B images with S maps each, one per cell of the grid.

    `maps` is (S, B, C, H, W); `f_input`, f(x), is (B,); `f_baseline`, f at the start of each map's path, is
    (S, B). `references` (S) are the converged maps, where asked for. `computed_in` is the type that rounds as
    f at a path's ends does, the images' unless given; the objective may have another precision. `boxes` (B)
    are those of the objects in each image, in its pixels, None where they are not known, and `box_tolerance`
    is how far beside is on one. `paths` (S) are those that maps are along, None of a map along none; without
    them all count as paths from black.
    """

    objective: Objective
    images: Tensor
    maps: Tensor
    f_input: Tensor
    f_baseline: Tensor
    seed: int = 0
    references: Sequence[Reference | None] = ()
    computed_in: torch.dtype | None = None
    boxes: Sequence[Sequence[Box] | None] = ()
    box_tolerance: float = BOX_TOLERANCE
    paths: Sequence[PathFamily | None] = ()

    @cached_property
    def starts(self) -> list[Start]:
        """The different starts of the maps' paths, found when a metric asks for them."""
        from riemannopt_dist.metrics.starts import distinct_starts

        return distinct_starts(self.paths or [None] * len(self.maps), self.images)

    @cached_property
    def f_black(self) -> Tensor:
        """f at the black image, (B,): one pass an image, when a metric asks for it."""
        return self.objective.values(self.images.clone().zero_())


@dataclass(frozen=True)
class Column:
    """One value of one image and map: its name, unit and, if it is a score, which direction is better.

    `meaning` is a sentence for whoever reads the table. Of a list `x` are the x-values that its numbers stand
    at, or the column that has them.

    Its numbers are finite, or NaN where they are `undefined`: that says when, and is empty if never. If the
    column `reason` is named, that holds a text for every image whose value is NaN.
    """

    name: str
    unit: str
    direction: Direction | None = None
    kind: Literal["number", "list", "text"] = "number"
    undefined: str = ""
    reason: str = ""
    meaning: str = ""
    x: tuple[float, ...] | str = ()


@dataclass(frozen=True)
class Summary:
    """One number for all the images of a cell: an aggregate of one column or several."""

    name: str
    aggregate: Aggregate
    columns: tuple[str, ...]
    direction: Direction

    def of(self, values: Mapping[str, ArrayLike]) -> tuple[float, int]:
        """The number, from the columns of N images, and how many images it leaves out.

        Left out are images where any of the columns is NaN. The number is NaN if none remains, and so is a
        ratio of sums if the second is 0.
        """
        arrays = [np.asarray(values[column]) for column in self.columns]
        # Curves stay as narrow as they are: they are many, and their medians no better in float64.
        arrays = [array if array.ndim > 1 else array.astype(np.float64) for array in arrays]
        defined = np.all([~np.isnan(array.reshape(len(array), -1)).any(axis=1) for array in arrays], axis=0)
        left_out = int(len(defined) - defined.sum())
        if not defined.any():
            return float("nan"), left_out
        return AGGREGATES[self.aggregate](*(array[defined] for array in arrays)), left_out


def summaries_of(results: pa.Table) -> list[Summary]:
    """How the metrics of result rows are summed up."""
    declared = json.loads((results.schema.metadata or {}).get(SUMMARIES.encode(), b"[]"))
    return [Summary(**{**fields, "columns": tuple(fields["columns"])}) for fields in declared]


@dataclass(frozen=True)
class Metric:
    """A metric: what it writes for each image and map, how that is summed up, and what it costs.

    `compute` returns a value for every column: a tensor (S, B) of numbers, (S, B, K) of lists, or B
    strings (or None) that hold for all S maps of an image. It costs `passes_a_map` forward passes of the
    model at most, `passes_a_start` for each different start of their paths, and `passes_an_image` besides; f
    at black, where it `needs_f_black`, serves all metrics. `requires` is a package that it needs and that
    does not come along. By the column `against_controls` every cell is compared with maps that know nothing
    of the model, nor of f's units: the map's scale must not matter to it.

    One `of_channel_sums` looks at maps summed over channels alone, one that `needs_references` at converged
    maps: these tell whether it can be computed from stored maps. One that `needs_boxes` is refused where
    there are none.
    """

    name: str
    columns: tuple[Column, ...]
    summaries: tuple[Summary, ...]
    compute: Callable[[MapBatch], Mapping[str, Tensor | Sequence[str | None]]]
    passes_a_map: int = 0
    passes_an_image: int = 0
    passes_a_start: int = 0
    needs_f_black: bool = False
    requires: str = ""
    against_controls: str = ""
    of_channel_sums: bool = False
    needs_references: bool = False
    needs_boxes: bool = False


def unit_curve(x: ArrayLike, y: ArrayLike, points: int = 1000) -> NDArray[np.float64]:
    """The line through the points (x, y), (0, 0) and (1, 1) at 0, 1/points, …, 1: (points + 1,).

    Of points with equal x the last one given counts, (0, 0) and (1, 1) being last; the end is 1.
    """
    knots = np.append(np.asarray(x, dtype=np.float64), (0.0, 1.0))
    heights = np.append(np.asarray(y, dtype=np.float64), (0.0, 1.0))
    order = np.argsort(knots, kind="stable")
    curve: NDArray[np.float64] = np.interp(np.linspace(0.0, 1.0, points + 1), knots[order], heights[order])
    return curve


def median_curve(x: ArrayLike, y: ArrayLike, points: int = 1000) -> NDArray[np.float64]:
    """The pointwise median of the `unit_curve`s through (x, y), (N, K) each: (points + 1,).

    All N lines are followed together from each point to the next, where few of them have a knot.
    """
    knots, heights, slopes = _lines(x, y)
    grid = np.linspace(0.0, 1.0, points + 1)
    # A knot counts from the first point that is not before it, if no other of its line does from there.
    first = np.searchsorted(grid, knots).astype(np.int16)
    counts = np.append(first[:, :-1] < first[:, 1:], np.ones((len(first), 1), dtype=bool), axis=1)
    line, knot = np.nonzero(counts & (first <= points))
    by_point = np.argsort(first[line, knot], kind="stable")
    line, knot = line[by_point], knot[by_point]
    edges = np.searchsorted(first[line, knot], np.arange(points + 2))
    start, height, slope, values = (np.zeros(len(knots), knots.dtype) for _ in range(4))
    medians = np.empty(points + 1)
    for n, met in enumerate(slice(*edge) for edge in pairwise(edges)):
        for now, of in ((start, knots), (height, heights), (slope, slopes)):
            now[line[met]] = of[line[met], knot[met]]
        np.subtract(grid[n], start, out=values)
        values *= slope
        values += height
        medians[n] = _median_in_place(values)
    return medians


def _lines(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """Knots and heights of the lines of `unit_curve`, by x, and the slopes after each: (N, K + 2).

    Of float32 they stay that: results have no more.
    """
    kind = np.result_type(np.asarray(x), np.asarray(y), np.float32)
    ends = np.array([[0.0, 1.0]], dtype=kind)
    both = (np.asarray(values, dtype=kind) for values in (x, y))
    knots, heights = (np.hstack([v, ends.repeat(len(v), 0)]) for v in both)
    order = np.argsort(knots, axis=1, kind="stable")
    knots, heights = (np.take_along_axis(values, order, axis=1) for values in (knots, heights))
    gaps, rises = (
        np.diff(knots, axis=1, append=kind.type(np.inf)),
        np.diff(heights, axis=1, append=kind.type(0)),
    )
    return knots, heights, np.divide(rises, gaps, out=np.zeros_like(gaps), where=gaps > 0)


def _median_in_place(values: NDArray[np.float64]) -> float:
    """The median of values, which are reordered."""
    middle = len(values) // 2
    values.partition(middle)
    upper = float(values[middle])
    return upper if len(values) % 2 else (upper + float(values[:middle].max())) / 2


def area(curve: NDArray[np.float64]) -> float:
    """The area under equally spaced samples of a curve on [0, 1], by the trapezoid."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def _ratio_of_sums(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> float:
    total = np.abs(denominator).sum()
    return float(np.abs(numerator).sum() / total) if total > 0 else float("nan")


def _area_of_median_curve(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return area(median_curve(x, y))


AGGREGATES: Mapping[str, Callable[..., float]] = {
    "mean": lambda values: float(np.mean(values)),
    "median": lambda values: float(np.median(values)),
    "ratio_of_sums": _ratio_of_sums,
    "area_of_median_curve": _area_of_median_curve,
}

"""What a report is made of: plain tables and values, wherever they come from."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from riemannopt_dist.reports.pivot import CellKey


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as the model sees it, and the maps of it that are stored.

    `photo` is (H, W, 3) in 8 bits, None where `missing` says why there is none. `maps` (H, W) are summed over
    channels; `converged` is that of their path.
    """

    name: str
    photo: NDArray[np.uint8] | None
    missing: str
    maps: Mapping[CellKey, NDArray[np.float32]]
    converged: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """A score's mean curve over the images of a cell: `values` (K,) at shares `x` (K,) of the pixels."""

    score: str
    cell: CellKey
    images: int
    x: NDArray[np.float64]
    values: NDArray[np.float64]


Pictures = Callable[[Sequence[str], Sequence[CellKey]], Mapping[str, Picture]]
"""Reads the pictures of a few images by their ids, with their maps of a few cells of one path."""


def no_pictures(image_ids: Sequence[str], cells: Sequence[CellKey]) -> Mapping[str, Picture]:
    """Of bare result files."""
    missing = "the run directory does not tell where images lie"
    return {name: Picture("", None, missing, {}) for name in image_ids}


def no_curves() -> Sequence[Curve]:
    """Of a run whose curves are not read."""
    return ()


@dataclass(frozen=True, eq=False)
class RunData:
    """Result rows and their summary; the model's name, and how many images the run is to evaluate.

    These are `promised`, less those that it gave up on. `fitted` holds the profile and schedules of each
    path, as schedules/<path>.json has them, and `singles` the positions and variations of a few images of the
    fit subset. `about` is run.json, `images` and `failures` are the tables of these names, `mapped` the cells
    with stored maps. Curves and pictures are read when a part of a report asks for them.
    """

    results: pa.Table
    summary: pd.DataFrame
    model: str
    promised: int
    fitted: Mapping[str, Mapping[str, Any]]
    singles: Mapping[str, Sequence[Mapping[str, Any]]]
    about: Mapping[str, Any] = field(default_factory=dict)
    images: pa.Table | None = None
    failures: Sequence[Mapping[str, Any]] = ()
    curves: Callable[[], Sequence[Curve]] = no_curves
    pictures: Pictures = no_pictures
    mapped: Collection[CellKey] = ()

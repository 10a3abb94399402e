"""The grid: cells of path × estimator × placement × samples, and where the samples of each are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from riemannopt_dist.estimators.base import ADAPTIVE, LINEAR, NONE, Placed, refusal
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.quadrature.placement.table import output_placement, points_by_output
from riemannopt_dist.quadrature.rules import linear_schedule

if TYPE_CHECKING:
    from riemannopt_dist.quadrature.profile import Profile
    from riemannopt_dist.quadrature.schedule import Schedule


@dataclass(frozen=True)
class Cell:
    """One entry of the grid. `path` is a family's label, `samples` the gradient evaluations an image.

    With a `tolerance` an image takes as many points as it needs for it, `samples` at most. A control map
    takes no gradients: its path and placement are "none", its samples 0, and its estimator is its name.
    """

    path: str
    estimator: str
    placement: str
    samples: int
    tolerance: float | None = None

    def __str__(self) -> str:
        within = "" if self.tolerance is None else f"/{self.tolerance:g}"
        return f"{self.path}/{self.estimator}/{self.placement}/{self.samples}{within}"

    def __lt__(self, other: "Cell") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[str, str, str, int, float]:
        return (self.path, self.estimator, self.placement, self.samples, self.tolerance or 0.0)

    @property
    def fitted(self) -> bool:
        """Whether its samples are placed by a profile."""
        return by_profile(self.placement)

    @property
    def per_image(self) -> bool:
        """Whether each image has points of its own."""
        return self.placement == ADAPTIVE or output_placement(self.placement) is not None


def by_profile(placement: str) -> bool:
    """Whether samples of a placement are placed by a profile. Raises ValueError for an address of nothing."""
    return placement not in (LINEAR, NONE) and output_placement(placement) is None


def cell_of(row: Mapping[str, Any]) -> Cell:
    """The cell of a row of results."""
    return Cell(row["path"], row["estimator"], row["placement"], row["samples"], row["tolerance"])


def control_cell(name: str) -> Cell:
    """That of the control maps called `name`."""
    return Cell(NONE, name, NONE, 0)


def make_cell(
    path: PathFamily, estimator: str, placement: str, samples: int, tolerance: float | None = None
) -> Cell:
    """A cell. Raises ValueError where its path, estimator, placement and samples do not go together."""
    cell = Cell(path.label, estimator, placement, samples, tolerance)
    if (reason := refusal(ESTIMATORS[estimator], path, placement, samples, tolerance)) is not None:
        raise ValueError(f"{cell}: {reason}")
    return cell


def place(
    cells: Iterable[Cell], paths: Mapping[str, PathFamily], profiles: Mapping[str, "Profile"]
) -> dict[Cell, Placed]:
    """Where the samples of every cell are; `paths` and `profiles` are those of its path's label."""
    placed: dict[Cell, Placed] = {}

    def kind(cell: Cell) -> tuple[str, str, str]:
        return cell.path, cell.placement, ESTIMATORS[cell.estimator].rule(paths[cell.path])

    for (path, placement, rule), group in groupby(sorted(cells, key=lambda c: (kind(c), c)), kind):
        members = list(group)
        if members[0].per_image:
            placed |= {cell: place_per_image(cell, rule, profiles.get(path)) for cell in members}
            continue
        counts = {cell.samples for cell in members}
        schedules = _schedules(placement, rule, counts, profiles.get(path))
        placed |= {cell: Placed(cell.samples, schedules[cell.samples]) for cell in members}
    return placed


def place_per_image(cell: Cell, rule: str, profile: "Profile | None" = None) -> Placed:
    """Where the samples of a cell are that are each image's own."""
    points = points_by_output(cell.placement, rule, cell.samples)
    return Placed(cell.samples, None, profile if points is None else None, cell.tolerance, points)


def _schedules(
    placement: str, rule: str, counts: Iterable[int], profile: "Profile | None"
) -> dict[int, "Schedule"]:
    """A schedule for each count, from the path's profile unless equal intervals will do."""
    if placement == LINEAR:
        return {count: linear_schedule(count, rule) for count in counts}
    from riemannopt_dist.quadrature.optimize import (
        optimize_schedules,  # late: cells are checked without SciPy
    )

    if profile is None:
        raise ValueError(f"profile: the placement {placement} needs one")
    solved = optimize_schedules(profile, sorted(counts), [rule], placement)
    return {count: solved[rule, count] for count in counts}

"""The grid: cells of method × schedule × rule × samples, and the schedule of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, product
from typing import Literal

from riemannopt_dist.optimize import optimize_schedules
from riemannopt_dist.profile import Profile
from riemannopt_dist.schedule import Schedule, intervals, linear_schedule

ScheduleName = Literal["linear", "powell", "exact", "density"]
Rule = Literal["left", "right", "midpoint", "trapezoid", "gauss_legendre"]


@dataclass(frozen=True, order=True)
class Cell:
    """One entry of the grid. `samples` is the number of gradient evaluations an image."""

    method: str
    schedule: str
    rule: str
    samples: int

    def __str__(self) -> str:
        return f"{self.method}/{self.schedule}/{self.rule}/{self.samples}"

    @property
    def fitted(self) -> bool:
        """Whether the schedule comes from a profile."""
        return self.schedule != "linear"


def product_of(
    methods: Iterable[str], schedules: Iterable[str], rules: Iterable[str], samples: Iterable[int]
) -> list[Cell]:
    """All combinations as cells. Raises ValueError for one that does not exist."""
    cells = [Cell(*fields) for fields in product(methods, schedules, rules, samples)]
    for cell in cells:
        if cell.rule == "gauss_legendre" and cell.schedule not in ("linear", "density"):
            raise ValueError(
                f"rule gauss_legendre goes with linear and density only, not with {cell.schedule}"
            )
        if cell.rule != "gauss_legendre":
            intervals(cell.samples, cell.rule)
    return cells


def cell_schedules(cells: Iterable[Cell], profiles: Mapping[str, Profile]) -> dict[Cell, Schedule]:
    """The schedule of every cell, from the profile of its method where it is a fitted one."""
    schedules: dict[Cell, Schedule] = {}
    for (method, name, rule), group in groupby(sorted(cells), lambda c: (c.method, c.schedule, c.rule)):
        members = list(group)
        if name == "linear":
            schedules |= {cell: linear_schedule(cell.samples, rule) for cell in members}
            continue
        solved = optimize_schedules(profiles[method], [cell.samples for cell in members], [rule], name)
        schedules |= {cell: solved[rule, cell.samples] for cell in members}
    return schedules

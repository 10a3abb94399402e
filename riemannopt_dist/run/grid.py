"""The grid: cells of method × schedule × rule × samples, and the schedule of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, product
from typing import Literal

from riemannopt_dist.methods import METHODS
from riemannopt_dist.optimize import optimize_schedules
from riemannopt_dist.profile import Profile
from riemannopt_dist.schedule import LINEAR_ONLY, PARTITION_RULES, Schedule, intervals, linear_schedule

ScheduleName = Literal["linear", "powell", "exact", "density"]
Rule = Literal["left", "right", "midpoint", "trapezoid", "gauss_legendre", "mean"]


NO_SCHEDULE = "none"


@dataclass(frozen=True, order=True)
class Cell:
    """One entry of the grid. `samples` is the number of gradient evaluations an image.

    A control map takes no gradients: its schedule and rule are "none" and its samples 0.
    """

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
        _check(cell)
    return cells


def _check(cell: Cell) -> None:
    """Raise ValueError if a cell's method, schedule and rule do not go together."""
    if cell.rule == "gauss_legendre" and cell.schedule not in ("linear", "density"):
        raise ValueError(f"rule gauss_legendre goes with linear and density only, not with {cell.schedule}")
    if cell.rule in LINEAR_ONLY and cell.schedule != "linear":
        raise ValueError(f"rule {cell.rule} goes with linear only, not with {cell.schedule}")
    method = METHODS[cell.method]
    if method.idgi and cell.rule not in ("left", "right", "trapezoid"):
        raise ValueError(f"method {cell.method} takes the rules left, right and trapezoid, not {cell.rule}")
    if method.family == "guided_ig" and cell.rule not in ("left", "trapezoid"):
        raise ValueError(f"method {cell.method} takes the rules left and trapezoid, not {cell.rule}")
    if cell.rule in PARTITION_RULES:
        intervals(cell.samples, cell.rule)


def cell_schedules(cells: Iterable[Cell], profiles: Mapping[str, Profile]) -> dict[Cell, Schedule]:
    """The schedule of every cell, from the profile of its method's family where it is a fitted one."""
    schedules: dict[Cell, Schedule] = {}
    for (method, name, rule), group in groupby(sorted(cells), lambda c: (c.method, c.schedule, c.rule)):
        members = list(group)
        if name == "linear":
            schedules |= {cell: linear_schedule(cell.samples, rule) for cell in members}
            continue
        solved = optimize_schedules(
            profiles[METHODS[method].family], [cell.samples for cell in members], [rule], name
        )
        schedules |= {cell: solved[rule, cell.samples] for cell in members}
    return schedules

"""The grid: cells of method × schedule × rule × samples, and the schedule of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, product
from typing import TYPE_CHECKING, Literal

from riemannopt_dist.choices import METHODS, Method
from riemannopt_dist.schedule import FITTED_RULES, PARTITION_RULES, Schedule, intervals, linear_schedule

if TYPE_CHECKING:
    from riemannopt_dist.methods import Sums
    from riemannopt_dist.profile import Profile

ScheduleName = Literal["linear", "riemannopt", "eq9", "exact", "density", "rough", "adaptive"]
Rule = Literal[
    "left", "right", "midpoint", "trapezoid", "released", "gauss_legendre", "mean", "end_weights", "secant"
]


NO_SCHEDULE = "none"
ADAPTIVE = "adaptive"
AUTO = "auto_"
END_WEIGHTS = "end_weights"
SECANT = "secant"
OTHER_SUMS = {END_WEIGHTS: "end_weighted", SECANT: "secant"}
"""The rules that are more than points and weights, and their fields of `Sums`."""


@dataclass(frozen=True, order=True)
class Cell:
    """One entry of the grid. `samples` is the number of gradient evaluations an image.

    A control map takes no gradients: its schedule and rule are "none" and its samples 0. Points per image
    have the schedule "adaptive" for a count, or "auto_0.05" for a tolerance of 0.05, `samples` being the most
    that an image may take.
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

    @property
    def sum(self) -> str:
        """The kind of its sum, a field of `Sums`."""
        if METHODS[self.method].idgi:
            return "idgi"
        return OTHER_SUMS.get(self.rule, "riemann")

    @property
    def tolerance(self) -> float | None:
        """The error at which an image has points enough, None for a fixed count."""
        return float(self.schedule.removeprefix(AUTO)) if self.schedule.startswith(AUTO) else None

    @property
    def per_image(self) -> bool:
        """Whether each image has points of its own."""
        return self.schedule == ADAPTIVE or self.schedule.startswith(AUTO)


def product_of(
    methods: Iterable[str], schedules: Iterable[str], rules: Iterable[str], samples: Iterable[int]
) -> list[Cell]:
    """All combinations as cells. Raises ValueError for one that does not exist."""
    cells = [Cell(*fields) for fields in product(methods, schedules, rules, samples)]
    for cell in cells:
        _check(cell)
    return cells


def tolerance_cells(methods: Iterable[str], tolerances: Iterable[float], maximum: int) -> list[Cell]:
    """Cells of points per image until a tolerance is met. Raises ValueError for a method that has none."""
    cells = [
        Cell(method, f"{AUTO}{value:g}", END_WEIGHTS, maximum)
        for method, value in product(methods, tolerances)
    ]
    for cell in cells:
        _check(cell)
    return cells


def _check(cell: Cell) -> None:
    """Raise ValueError if a cell's method, schedule and rule do not go together."""
    if cell.per_image:
        if cell.rule not in OTHER_SUMS:
            rules = " and ".join(OTHER_SUMS)
            raise ValueError(f"schedule {ADAPTIVE} goes with the rules {rules} only, not with {cell.rule}")
        if METHODS[cell.method] not in (Method("ig"), Method("blur_ig")):
            raise ValueError(f"schedule {ADAPTIVE} goes with ig and blur_ig only, not with {cell.method}")
        if cell.samples < 2:
            raise ValueError(f"samples: schedule {ADAPTIVE} needs at least 2, got {cell.samples}")
        return
    if cell.rule == "gauss_legendre" and cell.schedule not in ("linear", "density"):
        raise ValueError(f"rule gauss_legendre goes with linear and density only, not with {cell.schedule}")
    if cell.rule not in (*FITTED_RULES, *OTHER_SUMS) and cell.schedule != "linear":
        raise ValueError(f"rule {cell.rule} goes with linear only, not with {cell.schedule}")
    method = METHODS[cell.method]
    if method.idgi and cell.rule not in ("left", "right", "trapezoid"):
        raise ValueError(f"method {cell.method} takes the rules left, right and trapezoid, not {cell.rule}")
    if method.family == "guided_ig" and cell.rule not in ("left", "trapezoid", END_WEIGHTS):
        raise ValueError(
            f"method {cell.method} takes the rules left, trapezoid and {END_WEIGHTS}, not {cell.rule}"
        )
    placing = partition_rule(cell)
    if cell.schedule == "linear":
        linear_schedule(cell.samples, placing)
    elif placing in PARTITION_RULES:
        intervals(cell.samples, placing)


def partition_rule(cell: Cell) -> str:
    """The rule by which points are placed: end weights and secants go with another rule's points.

    Those of end weights need no gradient at the path's start; a guided walk has one there all the same.
    """
    if cell.rule not in OTHER_SUMS:
        return cell.rule
    return "trapezoid" if METHODS[cell.method].family == "guided_ig" else "right"


def cell_schedules(cells: Iterable[Cell], profiles: Mapping[str, "Profile"]) -> dict[Cell, Schedule]:
    """The schedule of every cell but those of points per image, from its family's profile if fitted."""
    # Late, as in `sums_of`: the cells are checked without torch.
    from riemannopt_dist.optimize import optimize_schedules

    schedules: dict[Cell, Schedule] = {}
    fixed = sorted(cell for cell in cells if not cell.per_image)
    for (method, name, _), group in groupby(fixed, lambda c: (c.method, c.schedule, c.rule)):
        members = list(group)
        placing = partition_rule(members[0])
        if name == "linear":
            schedules |= {cell: linear_schedule(cell.samples, placing) for cell in members}
            continue
        solved = optimize_schedules(
            profiles[METHODS[method].family], [cell.samples for cell in members], [placing], name
        )
        schedules |= {cell: solved[placing, cell.samples] for cell in members}
    return schedules


def sums_of(cells: Iterable[Cell], schedules: Mapping[Cell, Schedule]) -> tuple[list[Cell], "Sums"]:
    """The schedules of a family's cells as sums, and the cells in the order of `Sums.schedules`."""
    from riemannopt_dist.methods import Sums

    kinds: dict[str, list[Cell]] = {kind: [] for kind in Sums._fields}
    for cell in cells:
        kinds[cell.sum].append(cell)
    sums = Sums(**{kind: tuple(schedules[cell] for cell in members) for kind, members in kinds.items()})
    return [cell for members in kinds.values() for cell in members], sums

"""Quadrature rules: from a partition of [0, 1] to the schedule that a rule makes of it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from riemannopt_dist.choices import check_choice, check_positive
from riemannopt_dist.quadrature.schedule import WEIGHT_SUM_TOLERANCE, Array, Schedule

RELEASED = "released"
RELEASED_SAMPLES = 128


def left(partition: Array) -> Schedule:
    """Points b_0 … b_{n−1}, each weighted with the interval it opens; exact on constants (eq. 6)."""
    return Schedule(tuple(partition[:-1]), tuple(np.diff(partition)))


def right(partition: Array) -> Schedule:
    """Points b_1 … b_n, each weighted with the interval it closes; exact on constants."""
    return Schedule(tuple(partition[1:]), tuple(np.diff(partition)))


def midpoint(partition: Array) -> Schedule:
    """The middle of each interval, weighted with its length; exact on straight lines."""
    return Schedule(tuple((partition[:-1] + partition[1:]) / 2), tuple(np.diff(partition)))


def trapezoid(partition: Array) -> Schedule:
    """Points b_0 … b_n, each weighted with half of its neighbouring intervals; exact on straight lines."""
    halves = np.diff(partition) / 2
    return Schedule(tuple(partition), tuple(np.append(halves, 0) + np.insert(halves, 0, 0)))


def released(partition: Array) -> Schedule:
    """The right rule with b_0, of weight 0, among its points, whose gradient is taken and not used.

    So RiemannOpt's authors sum Integrated Gradients (github.com/ShreeSinghi/RiemannOpt): n points, of which
    the first is the path's start, have n − 1 intervals.
    """
    return Schedule(tuple(partition), (0.0, *np.diff(partition)))


PARTITION_RULES: dict[str, Callable[[Array], Schedule]] = {
    "left": left,
    "right": right,
    "midpoint": midpoint,
    "trapezoid": trapezoid,
    RELEASED: released,
}
CLOSED_RULES = ("trapezoid", RELEASED)
"""The rules with a point at both ends of the path, and one more than there are intervals."""
FITTED_RULES: tuple[str, ...] = (*PARTITION_RULES, "gauss_legendre")
"""The rules that take points from a profile; "mean" has equispaced ones alone."""
RULES: tuple[str, ...] = (*FITTED_RULES, "mean")


def intervals(samples: int, rule: str) -> int:
    """The number of intervals of a partition that costs `samples` gradient evaluations under `rule`."""
    check_positive(samples, "samples")
    check_choice(rule, tuple(PARTITION_RULES), "rule")
    if rule not in CLOSED_RULES:
        return samples
    if samples < 2:
        raise ValueError(f"samples: the rule {rule} needs at least 2, got {samples}")
    return samples - 1


def schedule_from_partition(partition: ArrayLike, rule: str) -> Schedule:
    """The schedule of a partition 0 = b_0 < … < b_n = 1 under one of the partition rules.

    Raises ValueError unless the partition starts at 0, ends at 1 and does not decrease.
    """
    check_choice(rule, tuple(PARTITION_RULES), "rule")
    edges = np.asarray(partition, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or np.any(np.diff(edges) < 0):
        raise ValueError(f"partition: expected non-decreasing edges from 0 to 1, got {partition!r}")
    return PARTITION_RULES[rule](edges)


def partition_of(schedule: Schedule) -> tuple[Array, str]:
    """The partition (n + 1,) that a schedule of the left, right or trapezoid rule comes from, and that rule.

    Raises ValueError for any other schedule: its points do not tell the ends of its intervals.
    """
    points = schedule.points
    candidates = {"left": (*points, 1.0), "right": (0.0, *points), "trapezoid": points}
    for rule, edges in candidates.items():
        if len(edges) > 1 and edges[0] == 0 and edges[-1] == 1:
            expected = schedule_from_partition(edges, rule)
            if np.allclose(expected.weights, schedule.weights, rtol=0, atol=WEIGHT_SUM_TOLERANCE):
                return np.asarray(edges), rule
    raise ValueError(f"schedule: expected one of the left, right or trapezoid rule, got {schedule}")


def linear_partition(count: int) -> Array:
    """`count` equal intervals of [0, 1]. i / n is rounded once, so nested partitions share edges exactly."""
    check_positive(count, "intervals")
    return np.arange(count + 1) / count


def linear_schedule(samples: int, rule: str = "left") -> Schedule:
    """Equal intervals under `rule`; for "gauss_legendre", the Gauss-Legendre points of [0, 1].

    "mean" is the plain mean over equispaced points, both ends included, as in PAIR's implementation of
    Integrated Gradients: off by ((g(0) + g(1)) / 2 − ∫g) / n, even for a straight line that is not level.
    "released" is `released_linear`.
    """
    check_choice(rule, RULES, "rule")
    check_positive(samples, "samples")
    if rule == "gauss_legendre":
        return Schedule(*gauss_legendre(samples))
    if rule == "mean":
        return Schedule(tuple(np.linspace(0.0, 1.0, samples)), (1 / samples,) * samples)
    if rule == RELEASED:
        return released_linear(samples)
    return schedule_from_partition(linear_partition(intervals(samples, rule)), rule)


def released_linear(samples: int) -> Schedule:
    """Equal intervals as RiemannOpt's authors sum them: every (128/n)-th of 128 points from 0 to 1.

    All but 128 of them stop short of the path's end (16 at 0.945), and the first has weight 0. Raises
    ValueError for a number that does not divide 128, and for 1.
    """
    if samples < 2 or RELEASED_SAMPLES % samples:
        raise ValueError(
            f"samples: equal intervals under the rule {RELEASED} are a part of {RELEASED_SAMPLES} points: "
            f"expected a number from 2 that divides {RELEASED_SAMPLES}, got {samples}"
        )
    points = np.linspace(0.0, 1.0, RELEASED_SAMPLES)[:: RELEASED_SAMPLES // samples]
    return Schedule(tuple(points), (0.0, *np.diff(points)), float(points[-1]))


def gauss_legendre(samples: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The Gauss-Legendre points (1 + ξ)/2 and weights ω/2 on [0, 1], exact to degree 2 samples − 1."""
    from scipy.special import roots_legendre  # late: it takes as long as all the rest of this module

    check_positive(samples, "samples")
    nodes, weights = roots_legendre(samples)
    return tuple((1 + nodes) / 2), tuple(weights / 2)

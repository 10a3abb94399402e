"""From a profile |g′|(α) to the schedule that makes a Riemann sum's error bound small.

Five placements: "riemannopt" is RiemannOpt as its authors' code runs it, and "eq9" minimises the bound that
their paper prints (arXiv 2410.04118); "exact" minimises the bound before its Taylor step by dynamic
programming; "density" is that bound's limit for many samples; "rough" minimises not a bound but the expected
error of integrands that behave like random walks.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline
from scipy.optimize import minimize

from riemannopt_dist.choices import RENAMED, check_choice
from riemannopt_dist.profile import Profile
from riemannopt_dist.schedule import (
    FITTED_RULES,
    PARTITION_RULES,
    RELEASED,
    Array,
    Schedule,
    gauss_legendre,
    intervals,
    linear_partition,
    schedule_from_partition,
)

logger = logging.getLogger(__name__)

CANDIDATES = 512
BLOCK = 64
"""Last edges at a time in the dynamic programme."""
DENSITY_KNOTS = 4096
DENSITY_FLOOR = 1e-3
GAMED_FACTOR = 2.0
SMOOTHING = 11
"""The length of the Bartlett window, in values of the profile."""
LEAST_SHARE = 1e-12
"""Of the largest median, in place of those that are 0 and have no logarithm."""


def optimize_schedule(
    profile: Profile, samples: int, rule: str = "trapezoid", placement: str = "exact"
) -> Schedule:
    """The schedule of `samples` gradient evaluations that `placement` gives for `profile` under `rule`.

    RiemannOpt as its authors run it is the placement "riemannopt" with the rule "released" for Integrated
    Gradients, "right" for Blur IG and "left", which is that of a walk's steps, for Guided IG.

    Raises ValueError for an unknown rule or placement, for "gauss_legendre" with a placement that makes
    partitions (all but "density"): its points need the density's coordinate; and for a profile that lacks
    what the placement needs.
    """
    return optimize_schedules(profile, [samples], [rule], placement)[rule, samples]


def optimize_schedules(
    profile: Profile, samples: Iterable[int], rules: Iterable[str], placement: str = "exact"
) -> dict[tuple[str, int], Schedule]:
    """`optimize_schedule` for every (rule, samples), sharing the work between sample counts."""
    counts = list(samples)
    if not counts:
        raise ValueError("samples: expected at least one sample count, got none")
    check_placement(placement)
    schedules: dict[tuple[str, int], Schedule] = {}
    for rule in rules:
        check_choice(rule, FITTED_RULES, "rule")
        if rule == "gauss_legendre":
            if placement != "density":
                raise ValueError(f"placement: the rule gauss_legendre goes with density, got {placement!r}")
            schedules |= {(rule, count): warped_gauss_legendre(profile, count) for count in counts}
            continue
        partitions = PLACEMENTS[placement](profile, rule, [intervals(count, rule) for count in counts])
        schedules |= {
            (rule, count): schedule_from_partition(partition, rule)
            for count, partition in zip(counts, partitions, strict=True)
        }
    return schedules


def check_placement(name: str) -> None:
    """Raise ValueError if no placement is called `name`."""
    if name in RENAMED:
        raise ValueError(f"placement: {name!r} is called {RENAMED[name]!r} now")
    check_choice(name, tuple(PLACEMENTS), "placement")


def eq9_bound(profile: Profile, partition: Array) -> float:
    """Eq. 9 of arXiv 2410.04118: ½ Σ |g′|(b_i) (b_{i+1} − b_i)²."""
    return float(profile(partition[:-1]) @ np.diff(partition) ** 2 / 2)


def integral_bound(profile: Profile, partition: Array, rule: str) -> float:
    """Σ_i ∫ |g′|(t) κ_i(t) dt, which no integrand with this |g′| exceeds under a partition rule.

    κ is the magnitude of the rule's Peano kernel on [a, b] with middle c: b − t (left), t − a (right and
    released), the distance to the nearer end (midpoint), |t − c| (trapezoid).
    """
    check_choice(rule, tuple(PARTITION_RULES), "rule")
    return _bound(_Moments.of(profile), partition, rule)


def riemannopt_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions as the code that the authors of arXiv 2410.04118 released finds them.

    It is compute_alphas of github.com/ShreeSinghi/RiemannOpt. Powell's method from equal intervals minimises
    ½ Σ |g′|(b_{i+1}) (b_{i+1} − b_i)², which unlike eq. 9 has |g′| at the right end of each interval, and
    |g′| is not the mean of the images but `smoothed_medians`. The variables are interval lengths of at least
    0, scaled to sum to 1. The same for every rule; the code has the right rule in mind. Raises ValueError for
    a profile without medians.
    """
    slope = smoothed_medians(profile)
    return [
        _powell(lambda lengths, edges: float(lengths**2 @ slope(edges[1:]) / 2), count) for count in counts
    ]


def smoothed_medians(profile: Profile) -> BSpline:
    """|g′| on [0, 1] as the authors' code has it, up to a factor.

    Logarithms of the profile's medians are smoothed by a Bartlett window of 11 values, with the values
    reflected at both ends; the cubic spline through the exponentials has equispaced knots from 0 to 1. As
    there, the smoothing yields one value more than it is given, a reflected one at the end. Raises ValueError
    for a profile without medians.
    """
    if profile.medians is None:
        raise ValueError(
            "profile: the placement riemannopt needs one with medians, which come from equispaced positions "
            "(estimate it again)"
        )
    medians = np.asarray(profile.medians)
    logs = np.log(np.maximum(medians, LEAST_SHARE * (medians.max() or 1.0)))
    half, window = SMOOTHING // 2, np.bartlett(SMOOTHING)
    padded = np.pad(logs, (half, half + 1), mode="reflect")
    smoothed = np.exp(np.convolve(padded, window / window.sum(), mode="valid"))
    knots = np.linspace(0.0, 1.0, len(smoothed))
    return make_interp_spline(knots, smoothed, k=min(3, len(smoothed) - 1))


def eq9_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions that Powell's method finds for eq. 9 as it is printed, started from equal intervals.

    Eq. 9 sees |g′| at the left end of each interval only, so the method can step over a peak: a warning is
    logged where its bound is less than half of the integral bound. The same for every rule.
    """
    partitions = []
    for count in counts:
        found = _powell(lambda lengths, edges: float(profile(edges[:-1]) @ lengths**2 / 2), count)
        # SciPy's bounded Powell can end above its start.
        partition = min((found, linear_partition(count)), key=lambda edges: eq9_bound(profile, edges))
        claimed, actual = eq9_bound(profile, partition), integral_bound(profile, partition, "left")
        if claimed * GAMED_FACTOR < actual:
            logger.warning(
                "eq9, %d intervals, steps over a peak: eq. 9 is %.3g, the integral bound %.3g",
                count,
                claimed,
                actual,
            )
        partitions.append(partition)
    return partitions


def _powell(objective: Callable[[Array, Array], float], count: int) -> Array:
    """The partition into `count` intervals that SciPy's Powell, from equal ones, finds for `objective`.

    `objective` is given the interval lengths (count,), which sum to 1, and the edges (count + 1,).
    """

    def value(lengths: Array) -> float:
        edges = _normalised(lengths)
        return objective(np.diff(edges), edges)

    found = minimize(value, np.ones(count), method="Powell", bounds=[(0.0, None)] * count)
    return _normalised(found.x)


def exact_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions whose integral bound is the least among those with edges in a grid of candidates.

    Dynamic programming over the last edge: one table serves all counts up to 256, another up to 512, and so
    on, so that an interval has at least two candidates and a partition does not depend on the other counts.
    Half of the candidates are equispaced and half follow the density, so that a concentrated profile is
    resolved too. Where equal intervals or the density's, whose edges need not be candidates, are better
    still, they are taken. A profile of zeros, which all partitions suit alike, gets equal intervals.
    """
    if not any(profile.magnitudes):
        return [linear_partition(count) for count in counts]
    found: dict[int, Array] = {}
    sizes = [_candidates(count) for count in counts]
    for size in set(sizes):
        (candidates,) = density_partitions(profile, rule, [size // 2])
        grid = np.union1d(linear_partition(size // 2), candidates)
        alike = [count for count, other in zip(counts, sizes, strict=True) if other == size]
        partitions = least_cost_partitions(grid, _pairwise_bounds(profile, grid, rule), alike)
        found |= zip(alike, partitions, strict=True)
    dense = density_partitions(profile, rule, counts)
    moments = _Moments.of(profile)
    return [
        min((found[count], linear_partition(count), density), key=lambda edges: _bound(moments, edges, rule))
        for count, density in zip(counts, dense, strict=True)
    ]


def _candidates(count: int) -> int:
    """How many candidates partitions into `count` intervals choose from: CANDIDATES, doubled until enough."""
    size = CANDIDATES
    while size < 2 * count:
        size *= 2
    return size


def least_cost_partitions(grid: Array, costs: Array, counts: list[int]) -> list[Array]:
    """The partitions of `grid`'s span into each of `counts` intervals that cost least in all.

    costs[i, j] is the cost of the interval from grid[i] to grid[j]: at least 0, infinite unless i < j.
    """
    if max(counts) >= len(grid):
        raise ValueError(f"intervals: at most {len(grid) - 1} fit the candidate edges, got {max(counts)}")
    least = costs[0]
    origins = [np.zeros(len(grid), dtype=np.int64)]
    closing = np.ascontiguousarray(costs.T)  # a row for each end: its minimum is found several times faster
    blocks = [slice(start, min(start + BLOCK, len(grid))) for start in range(0, len(grid), BLOCK)]
    cheapest = [closing[block, : block.stop].min(axis=0) for block in blocks]
    for made, limit in enumerate(_cost_limits(costs, counts)[1:], start=1):
        origin = np.zeros(len(grid), dtype=np.int64)
        for block, cheap in zip(blocks, cheapest, strict=True):
            # The best partition has no interval that costs more than all of another, and `made` before this.
            first = min(max(int((cheap <= limit).argmax()), made), block.stop - 1)
            totals = closing[block, first : block.stop] + least[first : block.stop]
            origin[block] = first + totals.argmin(axis=1)
        least = least[origin] + closing[np.arange(len(grid)), origin]
        origins.append(origin)
    return [grid[_trace(origins[:count])] for count in counts]


def _cost_limits(costs: Array, counts: list[int]) -> Array:
    """What the best partitions into `counts` of at least 1, 2, … intervals cost at most, (max(counts),).

    Those with as many candidates in each interval cost that; the limit for k is the largest for counts ≥ k.
    """
    limits = np.zeros(max(counts))
    for count in counts:
        edges = np.linspace(0, len(costs) - 1, count + 1).round().astype(np.int64)
        limits[count - 1] = costs[edges[:-1], edges[1:]].sum()
    return np.asarray(np.maximum.accumulate(limits[::-1])[::-1])


def density_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions with equal shares of ∫|g′|^½, which minimise the integral bound as the count grows.

    The same for every rule: `rule` is taken for the sake of one signature for all placements.
    """
    alphas, shares, _ = density_coordinate(profile)
    return [np.interp(linear_partition(count), shares, alphas) for count in counts]


def warped_gauss_legendre(profile: Profile, samples: int) -> Schedule:
    """Gauss-Legendre points in the density's coordinate u: α = T(u), weights ω/2 · dα/du.

    T is no polynomial, so the weights come out near 1 in sum; they are scaled to sum to 1, which keeps
    the rule exact on constants.
    """
    nodes, weights = (np.asarray(values) for values in gauss_legendre(samples))
    alphas, shares, density = density_coordinate(profile)
    points = np.interp(nodes, shares, alphas)
    warped = weights / np.interp(points, alphas, density)
    return Schedule(tuple(points), tuple(warped / warped.sum()))


def rough_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions with equal shares of ∫roughness^⅓: the best for integrands that behave like random walks.

    Networks with kinks have gradients whose changes between neighbouring samples are nearly independent. The
    squared error of a sum is then Σ_k h_k² ∫_k roughness dα, up to a factor that is the same for all rules,
    in units of each image's own variation and in the mean over images; equal shares minimise it as the count
    grows. The same for every rule. Raises ValueError for a profile without roughness.
    """
    alphas, shares, _ = rough_coordinate(profile)
    return [np.interp(linear_partition(count), shares, alphas) for count in counts]


def density_coordinate(profile: Profile) -> tuple[Array, Array, Array]:
    """Positions α, the share u(α) of ∫|g′|^½ to their left (from 0 to 1), and du/dα there."""
    return _coordinate(profile, profile.magnitudes, 1 / 2)


def rough_coordinate(profile: Profile) -> tuple[Array, Array, Array]:
    """As `density_coordinate`, of ∫roughness^⅓. Raises ValueError for a profile without roughness."""
    if profile.roughness is None:
        raise ValueError("profile: placing by roughness needs one with roughness (estimate it again)")
    return _coordinate(profile, profile.roughness, 1 / 3)


def _coordinate(profile: Profile, values: tuple[float, ...], power: float) -> tuple[Array, Array, Array]:
    """Positions α, the share u(α) of ∫values^power to their left, and du/dα there.

    A thousandth of their mean is added everywhere, so that u increases where they are zero.
    """
    alphas = np.union1d(np.linspace(0.0, 1.0, DENSITY_KNOTS + 1), profile.points)
    heights = np.interp(alphas, profile.points, values)
    mean = float(np.trapezoid(heights, alphas))
    root = (heights + DENSITY_FLOOR * mean) ** power if mean > 0 else np.ones_like(alphas)
    areas = np.append(0.0, np.cumsum(np.diff(alphas) * (root[1:] + root[:-1]) / 2))
    return alphas, areas / areas[-1], root / areas[-1]


PLACEMENTS: dict[str, Callable[[Profile, str, list[int]], list[Array]]] = {
    "riemannopt": riemannopt_partitions,
    "eq9": eq9_partitions,
    "exact": exact_partitions,
    "density": density_partitions,
    "rough": rough_partitions,
}


@dataclass(frozen=True)
class _Moments:
    """∫_0^t |g′| and ∫_0^t s |g′|(s) ds in closed form: |g′| is linear between `knots`."""

    knots: Array
    values: Array
    slopes: Array
    zeroth: Array
    first: Array

    @classmethod
    def of(cls, profile: Profile) -> "_Moments":
        knots = np.union1d([0.0, 1.0], profile.points)
        values = profile(knots)
        lengths = np.diff(knots)
        middles = (knots[1:] + knots[:-1]) / 2
        middle_values = (values[1:] + values[:-1]) / 2
        # Simpson's rule is exact here: s |g'|(s) is quadratic between knots.
        firsts = (
            lengths / 6 * (knots[:-1] * values[:-1] + 4 * middles * middle_values + knots[1:] * values[1:])
        )
        return cls(
            knots,
            values,
            np.append(np.diff(values) / lengths, 0.0),
            np.append(0.0, np.cumsum(lengths * middle_values)),
            np.append(0.0, np.cumsum(firsts)),
        )

    def at(self, t: Array) -> tuple[Array, Array]:
        """Both moments at positions t in [0, 1], of any shape."""
        knot = np.clip(np.searchsorted(self.knots, t, side="right") - 1, 0, len(self.knots) - 1)
        start, value, slope = self.knots[knot], self.values[knot], self.slopes[knot]
        step = t - start
        zeroth = value * step + slope * step**2 / 2
        first = start * zeroth + value * step**2 / 2 + slope * step**3 / 3
        return self.zeroth[knot] + zeroth, self.first[knot] + first


def _interval_bounds(moments: _Moments, a: Array, b: Array, rule: str) -> Array:
    """∫_a^b |g′|(t) κ(t) dt for intervals [a, b] (arrays that broadcast), at least 0."""
    zeroth_a, first_a = moments.at(a)
    zeroth_b, first_b = moments.at(b)
    if rule == "left":
        bounds = b * (zeroth_b - zeroth_a) - (first_b - first_a)
    elif rule in ("right", RELEASED):
        bounds = (first_b - first_a) - a * (zeroth_b - zeroth_a)
    else:
        c = (a + b) / 2
        zeroth_c, first_c = moments.at(c)
        near, far = (a, b) if rule == "midpoint" else (c, c)
        opening = (first_c - first_a) - near * (zeroth_c - zeroth_a)
        closing = far * (zeroth_b - zeroth_c) - (first_b - first_c)
        bounds = np.abs(opening) + np.abs(closing)
    return np.asarray(np.maximum(bounds, 0.0))


def _bound(moments: _Moments, partition: Array, rule: str) -> float:
    return float(_interval_bounds(moments, partition[:-1], partition[1:], rule).sum())


def _pairwise_bounds(profile: Profile, grid: Array, rule: str) -> Array:
    """The integral bound of every interval between two grid positions, infinite unless it runs forward."""
    bounds = _interval_bounds(_Moments.of(profile), grid[:, None], grid[None, :], rule)
    forward = np.arange(len(grid))[:, None] < np.arange(len(grid))
    return np.asarray(np.where(forward, bounds, np.inf))


def _normalised(lengths: Array) -> Array:
    """The partition of interval lengths, scaled to end at exactly 1; equal intervals if all are 0."""
    total = lengths.sum()
    if total <= 0:
        return linear_partition(len(lengths))
    edges = np.append(0.0, np.cumsum(lengths) / total)
    edges[-1] = 1.0
    return np.asarray(np.minimum(edges, 1.0))


def _trace(origins: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> list[int]:
    """The grid indices of the best partition, from its end back to its start."""
    edges = [len(origins[0]) - 1]
    for origin in reversed(origins):
        edges.append(int(origin[edges[-1]]))
    return edges[::-1]

"""Bounds of a Riemann sum's error for an integrand whose |g′| is a profile."""

from dataclasses import dataclass

import numpy as np

from riemannopt_dist.choices import check_choice
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import PARTITION_RULES, RELEASED
from riemannopt_dist.quadrature.schedule import Array


def eq9_bound(profile: Profile, partition: Array) -> float:
    """Eq. 9 of arXiv 2410.04118: ½ Σ |g′|(b_i) (b_{i+1} − b_i)²."""
    return float(profile(partition[:-1]) @ np.diff(partition) ** 2 / 2)


def integral_bound(profile: Profile, partition: Array, rule: str) -> float:
    """Σ_i ∫ |g′|(t) κ_i(t) dt, which no integrand with this |g′| exceeds under a partition rule.

    κ is the magnitude of the rule's Peano kernel on [a, b] with middle c: b − t (left), t − a (right and
    released), the distance to the nearer end (midpoint), |t − c| (trapezoid).
    """
    check_choice(rule, tuple(PARTITION_RULES), "rule")
    return moment_bound(Moments.of(profile), partition, rule)


@dataclass(frozen=True)
class Moments:
    """∫_0^t |g′| and ∫_0^t s |g′|(s) ds in closed form: |g′| is linear between `knots`."""

    knots: Array
    values: Array
    slopes: Array
    zeroth: Array
    first: Array

    @classmethod
    def of(cls, profile: Profile) -> "Moments":
        """Those of a profile."""
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


def interval_bounds(moments: Moments, a: Array, b: Array, rule: str) -> Array:
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


def moment_bound(moments: Moments, partition: Array, rule: str) -> float:
    """`integral_bound` of a partition, from the moments of the profile."""
    return float(interval_bounds(moments, partition[:-1], partition[1:], rule).sum())


def pairwise_bounds(profile: Profile, grid: Array, rule: str) -> Array:
    """The integral bound of every interval between two grid positions, infinite unless it runs forward."""
    bounds = interval_bounds(Moments.of(profile), grid[:, None], grid[None, :], rule)
    forward = np.arange(len(grid))[:, None] < np.arange(len(grid))
    return np.asarray(np.where(forward, bounds, np.inf))

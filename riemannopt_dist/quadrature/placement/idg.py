"""Samples where the output rises: the adaptive sampling of Integrated Decision Gradients (AAAI 2024).

f at n equispaced points has n − 1 slopes. Samples are shared out to these intervals by how much steeper each
is than the least steep, and not at all if that is less than what is left over for the steepest of the others.
Within an interval they are equispaced, each weighted with the part that it opens. Intervals without samples
are left out.
"""

import numpy as np
from numpy.typing import NDArray

from riemannopt_dist.quadrature.placement.output import OutputPlacement
from riemannopt_dist.quadrature.profile import equispaced
from riemannopt_dist.quadrature.schedule import Array, Schedule

Counts = NDArray[np.int64]


def sample_counts(values: Array) -> Counts:
    """How many of n samples each of the n − 1 intervals between values (n,) of f gets: int64, (n − 1,).

    Whole shares first, then one each for the largest shares below one. Equal shares where f is constant.
    """
    samples = len(values)
    slopes = np.diff(values)
    steeper = slopes - min(slopes.min(), 0.0)
    shares = steeper / steeper.sum() if steeper.any() else np.full(samples - 1, 1 / (samples - 1))
    counts = (shares * samples).astype(np.int64)
    order = np.argsort(-np.where(counts == 0, shares, shares - 1), kind="stable")
    counts[order[: samples - counts.sum()]] += 1
    return counts


def rise_schedule(values: Array, rule: str, samples: int) -> Schedule:
    """Each interval's samples where the interval is, as the paper has them. `rule` is left."""
    return _spread(sample_counts(values), np.arange(samples - 1))


def released_schedule(values: Array, rule: str, samples: int) -> Schedule:
    """As the authors' code has them: intervals with samples are moved to the path's start, side by side.

    There the position goes on only after an interval that has samples
    (github.com/chasewalker26/Integrated-Decision-Gradients, getAlphaParameters).
    """
    counts = sample_counts(values)
    return _spread(counts, np.cumsum(counts > 0) - 1)


def _spread(counts: Counts, places: Counts) -> Schedule:
    """Samples (n,) in intervals of width 1 / (n − 1), the i-th of which begins at places[i] of these."""
    width = 1 / len(counts)
    interval = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(interval)) - np.repeat(np.cumsum(counts) - counts, counts)
    points = (places[interval] + within / counts[interval]) * width
    weights = width / counts[interval]
    return Schedule(tuple(points), tuple(weights), min(float(weights.sum()), 1.0))


RISE = OutputPlacement(equispaced, rise_schedule, partial=True)
RELEASED_RISE = OutputPlacement(equispaced, released_schedule, partial=True)

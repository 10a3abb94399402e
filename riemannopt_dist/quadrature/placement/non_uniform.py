"""Samples where the output changes: non-uniform interpolation (Bhat & Raychowdhury, arXiv 2302.11107).

f at the edges of a few equal intervals tells how much it changes in each. Samples are shared out by the
square root of that change, and are equispaced within an interval.
"""

import numpy as np
from numpy.typing import NDArray

from riemannopt_dist.quadrature.placement.output import OutputPlacement
from riemannopt_dist.quadrature.rules import intervals, linear_partition, schedule_from_partition
from riemannopt_dist.quadrature.schedule import Array, Schedule

COARSE = 4
"""The intervals of the first look, as the paper takes them."""


def asked(samples: int) -> Array:
    """The edges of the coarse intervals."""
    return linear_partition(COARSE)


def non_uniform_schedule(values: Array, rule: str, samples: int) -> Schedule:
    """The schedule under a rule for f of `values` at the edges of the coarse intervals."""
    counts = interval_counts(np.abs(np.diff(values)), intervals(samples, rule))
    edges = np.interp(np.arange(counts.sum() + 1), np.cumsum([0, *counts]), linear_partition(COARSE))
    edges[0] = 0.0  # where the first interval has none
    return schedule_from_partition(edges, rule)


def interval_counts(changes: Array, total: int) -> NDArray[np.int64]:
    """`total` intervals shared out by the square roots of `changes` (k,): int64, (k,).

    Each gets one at least, if there are so many, at the cost of the largest; those to round up are the
    largest fractions. Equal shares where nothing changes.
    """
    roots = np.sqrt(changes) if changes.any() else np.ones_like(changes)
    shares = total * roots / roots.sum()
    whole = (shares + 1e-9).astype(np.int64)  # a share that is whole but for rounding
    counts = np.maximum(whole, int(total >= len(changes)))
    while counts.sum() < total:
        counts[np.argmax(shares - counts)] += 1
    while counts.sum() > total:
        counts[np.argmax(counts)] -= 1
    return np.asarray(counts)


NON_UNIFORM = OutputPlacement(asked, non_uniform_schedule)

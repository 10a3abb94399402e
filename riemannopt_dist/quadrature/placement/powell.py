"""Powell's method over interval lengths, as RiemannOpt's authors start and scale it."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.quadrature.schedule import Array


def powell_partition(objective: Callable[[Array], float], count: int) -> Array:
    """The partition into `count` intervals that SciPy's Powell, from equal ones, finds for `objective`.

    `objective` is given the edges (count + 1,), from 0 to 1.
    """

    def value(lengths: Array) -> float:
        return objective(normalised_partition(lengths))

    minimum = minimize(value, np.ones(count), method="Powell", bounds=[(0.0, None)] * count)
    return normalised_partition(minimum.x)


def normalised_partition(lengths: Array) -> Array:
    """The partition of interval lengths, scaled to end at exactly 1; equal intervals if all are 0."""
    total = lengths.sum()
    if total <= 0:
        return linear_partition(len(lengths))
    edges = np.append(0.0, np.cumsum(lengths) / total)
    edges[-1] = 1.0
    return np.asarray(np.minimum(edges, 1.0))

"""The minimum of eq. 9 as arXiv 2410.04118 prints it."""

import logging

import numpy as np

from riemannopt_dist.quadrature.bounds import eq9_bound, integral_bound
from riemannopt_dist.quadrature.placement.powell import powell_partition
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.quadrature.schedule import Array

logger = logging.getLogger(__name__)

GAMED_FACTOR = 2.0


def eq9_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions that Powell's method finds for eq. 9 as it is printed, started from equal intervals.

    Eq. 9 sees |g′| at the left end of each interval only, so the method can step over a peak: a warning is
    logged where its bound is less than half of the integral bound. The same for every rule.
    """
    partitions = []
    for count in counts:
        minimum = powell_partition(lambda edges: float(profile(edges[:-1]) @ np.diff(edges) ** 2 / 2), count)
        # SciPy's bounded Powell can end above its start.
        partition = min((minimum, linear_partition(count)), key=lambda edges: eq9_bound(profile, edges))
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

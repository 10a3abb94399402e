"""RiemannOpt as its authors' code runs it (github.com/ShreeSinghi/RiemannOpt)."""

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline

from riemannopt_dist.quadrature.placement.powell import powell_partition
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.schedule import Array

SMOOTHING = 11
"""The length of the Bartlett window, in values of the profile."""
LEAST_SHARE = 1e-12
"""Of the largest median, in place of those that are 0 and have no logarithm."""


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
        powell_partition(lambda edges: float(np.diff(edges) ** 2 @ slope(edges[1:]) / 2), count)
        for count in counts
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

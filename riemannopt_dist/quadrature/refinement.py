"""The refined profile: a second pass over the images at points placed by the first one's profile.

Equispaced points resolve a profile badly where most of |g′| lies in a small part of the path, as it does for
Blur IG: there the first pass sees a few wide averages.
"""

import numpy as np

from riemannopt_dist.choices import DEFAULT_AVERAGE, Average, Refine
from riemannopt_dist.quadrature.placement.equidistribution import density_coordinate
from riemannopt_dist.quadrature.profile import Profile, Variations
from riemannopt_dist.quadrature.schedule import Array

CONCENTRATED = 0.5


def evenness(profile: Profile) -> float:
    """(∫|g′|^½)² / ∫|g′|, in (0, 1]: 1 for a level profile, small for one that lies in a part of the path.

    It is the ratio of the integral bounds, in the limit of many points, of the density's partition and of
    equal intervals.
    """
    alphas, _, _ = density_coordinate(profile)
    magnitudes = profile(alphas)
    mean = float(np.trapezoid(magnitudes, alphas))
    return float(np.trapezoid(np.sqrt(magnitudes), alphas)) ** 2 / mean if mean > 0 else 1.0


def needs_refinement(profile: Profile, refine: Refine) -> bool:
    """Whether a second pass is made: for "auto", if the density's bound is below half of equal intervals'."""
    return refine == "always" or (refine == "auto" and evenness(profile) < CONCENTRATED)


def refining_positions(profile: Profile, samples: int) -> Array:
    """`samples` positions from 0 to 1 for the second pass: half follow the density, half are even."""
    alphas, shares, _ = density_coordinate(profile)
    return np.interp(np.linspace(0.0, 1.0, samples), (shares + alphas) / 2, alphas)


def merged(first: Variations, second: Variations, average: Average = DEFAULT_AVERAGE) -> Profile:
    """One profile from two passes: every stretch of the path from the pass that sampled it more finely.

    The medians stay those of the first pass, whose positions are equispaced.
    """
    edges = np.union1d(first.alphas, second.alphas)
    middles = (edges[:-1] + edges[1:]) / 2
    passes = (first, second)
    intervals = [np.searchsorted(one.alphas, middles, side="right") - 1 for one in passes]
    widths = [one.widths[chosen] for one, chosen in zip(passes, intervals, strict=True)]
    finer = (widths[1] <= widths[0]).astype(int)
    profiles = [one.profile(average) for one in passes]
    values = {}
    for which, *interval in zip(finer, *intervals, strict=True):
        one, index = profiles[which], interval[which]
        assert one.roughness is not None
        values[one.points[index]] = (one.magnitudes[index], one.standard_errors[index], one.roughness[index])
    points = sorted(values)
    magnitudes, errors, roughness = zip(*(values[point] for point in points), strict=True)
    images, medians = profiles[0].images, profiles[0].medians
    return Profile(tuple(points), magnitudes, errors, images, roughness, medians, average)

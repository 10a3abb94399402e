"""Profiles estimated from images: Algorithm 1 of arXiv 2410.04118, with a second pass where it pays."""

from torch import Tensor

from riemannopt_dist.arguments import check_choice
from riemannopt_dist.choices import AVERAGES, DEFAULT_AVERAGE, REFINE, Average, Refine
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.paths.table import path_family
from riemannopt_dist.quadrature.profile import PROFILE_SAMPLES, Profile, Variations, equispaced
from riemannopt_dist.quadrature.refinement import merged, needs_refinement, refining_positions
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.quadrature.variation import path_variation


def estimate_profile(
    objective: Objective,
    images: Tensor,
    *,
    path: str | PathFamily = "ig",
    samples: int = PROFILE_SAMPLES,
    refine: Refine = "auto",
    average: Average = DEFAULT_AVERAGE,
) -> Profile:
    """The profile of a path over images (B, C, H, W), from `samples` equispaced points an image.

    `path` is as in `attribute`. `refine` "always" adds a second pass of as many points, placed by the first;
    "auto" does so where the profile lies in a part of the path, as Blur IG's does. `average`, of the images,
    is one of those of `profile_from_variations`.

    Raises ValueError for an unknown path or average, fewer than two samples (three for "guided_ig"), or
    images and targets that do not fit.
    """
    family = path_family(path) if isinstance(path, str) else path
    check_choice(refine, REFINE, "refine")
    check_choice(average, AVERAGES, "average")
    paths = family.through(images)

    def one_pass(alphas: Array) -> Variations:
        return Variations(alphas, path_variation(paths, objective, alphas))

    first = one_pass(equispaced(samples))
    profile = first.profile(average)
    if not needs_refinement(profile, refine):
        return profile
    return merged(first, one_pass(refining_positions(profile, samples)), average)

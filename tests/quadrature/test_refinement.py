"""The second pass of a profile: when it is made, where its points go, and what it sees."""

import math

import numpy as np
import pytest

from riemannopt_dist.quadrature.bounds import integral_bound
from riemannopt_dist.quadrature.placement.equidistribution import density_partitions
from riemannopt_dist.quadrature.profile import Profile, Variations, equispaced
from riemannopt_dist.quadrature.refinement import evenness, merged, needs_refinement, refining_positions
from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.quadrature.schedule import Array

BUMP, WIDTH = 0.953, 0.004


def bump(alphas: Array) -> Array:
    """g: a rise of width WIDTH at BUMP; its |g′| is a bump much narrower than a first pass's intervals."""
    return np.tanh((alphas - BUMP) / WIDTH)


def one_pass(alphas: Array) -> Variations:
    return Variations(alphas, np.abs(np.diff(bump(alphas)) / np.diff(alphas))[None])


def test_evenness_by_hand() -> None:
    level = Profile((0.0, 1.0), (3.0, 3.0), (0.0, 0.0), 5)
    assert evenness(level) == pytest.approx(1.0, rel=1e-12)
    # |g′| = t: (∫√t)² / ∫t = (2/3)² · 2 = 8/9.
    assert evenness(Profile((0.0, 1.0), (0.0, 1.0), (0.0, 0.0), 5)) == pytest.approx(8 / 9, rel=1e-4)
    # |g′| a triangle on the last hundredth of the path: (0.01 · 2/3)² / 0.005 = 8/900.
    late = Profile((0.99, 1.0), (0.0, 1.0), (0.0, 0.0), 5)
    assert evenness(late) == pytest.approx(8 / 900, rel=1e-2)
    assert evenness(Profile((0.5,), (0.0,), (0.0,), 5)) == 1.0


@pytest.mark.parametrize(
    ("refine", "made"), [("auto", (False, True)), ("always", (True, True)), ("never", (False, False))]
)
def test_a_second_pass_is_made_where_it_is_due(refine: str, made: tuple[bool, bool]) -> None:
    profiles = Profile((0.0, 1.0), (0.0, 1.0), (0.0, 0.0), 5), one_pass(equispaced(64)).profile()
    assert tuple(needs_refinement(profile, refine) for profile in profiles) == made  # type: ignore[arg-type]


def test_the_second_pass_resolves_what_the_first_one_blurs() -> None:
    first = one_pass(equispaced(33))
    positions = refining_positions(first.profile(), 33)
    assert (positions[0], positions[-1], len(positions)) == (0.0, 1.0, 33)
    assert np.diff(positions).max() <= 2 / 32 + 1e-9  # half of the points are spread evenly
    refined = merged(first, one_pass(positions))
    finest = one_pass(equispaced(4097)).profile()
    bounds = [
        integral_bound(finest, density_partitions(profile, "trapezoid", [16])[0], "trapezoid")
        for profile in (first.profile(), refined, finest)
    ]
    linear = integral_bound(finest, linear_partition(16), "trapezoid")
    assert bounds[1] < 0.8 * bounds[0] < linear
    assert bounds[1] < 2 * bounds[2]


def test_every_stretch_comes_from_the_finer_pass() -> None:
    first = Variations(np.array([0.0, 0.5, 1.0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    finer = np.array([[10.0, 20.0, 30.0], [10.0, 22.0, 34.0]])
    second = Variations(np.array([0.0, 0.8, 0.9, 1.0]), finer)
    found = merged(first, second, "mean")
    # [0, .5] is finer in the first pass; [.5, .8] lies in its [.5, 1], which is finer than [0, .8].
    assert found.points == pytest.approx((0.25, 0.75, 0.85, 0.95))
    assert found.magnitudes == pytest.approx((2.0, 3.0, 21.0, 32.0))
    assert found.standard_errors == pytest.approx((1.0, 1.0, 1.0, 2.0))
    assert found.images == 2
    assert (found.average, found.medians) == ("mean", first.profile().medians)  # those are of equal intervals
    same = merged(first, first, "normalised_median")
    assert same == first.profile("normalised_median")
    assert math.isfinite(evenness(found))

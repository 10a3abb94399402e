"""The bounds are true and attained; the placements minimise what they say they minimise."""

import logging
import math
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from riemannopt_dist.quadrature.bounds import eq9_bound, integral_bound
from riemannopt_dist.quadrature.optimize import PLACEMENTS, optimize_schedule, optimize_schedules
from riemannopt_dist.quadrature.placement.eq9 import eq9_partitions
from riemannopt_dist.quadrature.placement.equidistribution import (
    density_coordinate,
    density_partitions,
    rough_partitions,
)
from riemannopt_dist.quadrature.placement.exact import exact_partitions, least_cost_partitions
from riemannopt_dist.quadrature.placement.riemannopt import riemannopt_partitions, smoothed_medians
from riemannopt_dist.quadrature.profile import Profile, profile_from_variations
from riemannopt_dist.quadrature.rules import (
    CLOSED_RULES,
    FITTED_RULES,
    PARTITION_RULES,
    intervals,
    linear_partition,
    linear_schedule,
    schedule_from_partition,
)
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.testing.problems import (
    CONSTANT,
    INTEGRANDS,
    PROFILES,
    RISING,
    Integrand,
    linear_profile,
    profile_of,
    quadrature_error,
)

KERNELS = {  # Peano kernels of ∫g − Σ on [a, b], from textbooks
    "left": lambda t, a, b: b - t,
    "right": lambda t, a, b: a - t,
    "released": lambda t, a, b: a - t,
    "midpoint": lambda t, a, b: np.where(t < (a + b) / 2, a - t, b - t),
    "trapezoid": lambda t, a, b: (a + b) / 2 - t,
}
EACH_RULE = pytest.mark.parametrize("rule", PARTITION_RULES)
NESTED_RULES = tuple(rule for rule in FITTED_RULES if rule != "released")
"""Those whose equal intervals are what a constant profile gives; "released" takes a part of 128 points."""
EACH_PROFILE = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)

lopsided_partitions = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=9).map(
    lambda lengths: np.append(np.cumsum([0.0, *lengths[:-1]]) / math.fsum(lengths), 1.0)
)


@st.composite
def random_profiles(draw: st.DrawFn) -> Profile:
    magnitudes = draw(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=8))
    gaps = draw(st.lists(st.floats(0.01, 1.0), min_size=len(magnitudes) + 1, max_size=len(magnitudes) + 1))
    return linear_profile(np.cumsum(gaps)[:-1] / math.fsum(gaps), np.array(magnitudes))


def error_for_signs(profile: Profile, partition: Array, rule: str, signs: Array | None) -> float:
    """∫g − Σ of a rule for g(t) = ∫_0^t s|g′|, with s = +1 or −1 on each piece between breaks.

    g′ is linear on each piece and g quadratic, so the textbook formulas here are exact. Without `signs`,
    s has the sign of the rule's Peano kernel.
    """
    middles = (partition[1:] + partition[:-1]) / 2
    breaks = np.unique(np.concatenate([partition, middles, profile.points]))
    centres, lengths = (breaks[1:] + breaks[:-1]) / 2, np.diff(breaks)
    interval = np.searchsorted(partition, centres) - 1
    kernel = KERNELS[rule](centres, partition[interval], partition[interval + 1])
    s = np.sign(kernel) if signs is None else np.resize(signs, len(centres))
    start, end = s * profile(breaks[:-1]), s * profile(breaks[1:])
    g = np.append(0.0, np.cumsum(lengths * (start + end) / 2))
    g_centre = g[:-1] + lengths * (3 * start + end) / 8
    integral = (lengths / 6 * (g[:-1] + 4 * g_centre + g[1:])).sum()
    schedule = schedule_from_partition(partition, rule)
    return float(integral - np.dot(schedule.weights, g[np.searchsorted(breaks, schedule.points)]))


@EACH_RULE
@given(profile=random_profiles(), partition=lopsided_partitions)
def test_the_integral_bound_is_attained(rule: str, profile: Profile, partition: Array) -> None:
    worst = error_for_signs(profile, partition, rule, signs=None)
    assert math.isclose(worst, integral_bound(profile, partition, rule), rel_tol=1e-9, abs_tol=1e-12)


@EACH_RULE
@given(
    profile=random_profiles(),
    partition=lopsided_partitions,
    signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=30),
)
def test_no_signs_of_the_slope_exceed_the_integral_bound(
    rule: str, profile: Profile, partition: Array, signs: list[float]
) -> None:
    error = error_for_signs(profile, partition, rule, np.array(signs))
    assert abs(error) <= integral_bound(profile, partition, rule) * (1 + 1e-9) + 1e-12


@EACH_RULE
@given(profile=random_profiles(), partition=lopsided_partitions)
def test_the_integral_bound_equals_adaptive_quadrature(rule: str, profile: Profile, partition: Array) -> None:
    expected = 0.0
    for a, b in pairwise(partition):
        breaks = [t for t in (*profile.points, (a + b) / 2) if a < t < b]
        value, _ = quad(lambda t: profile(t) * abs(KERNELS[rule](t, a, b)), a, b, points=breaks)  # noqa: B023
        expected += value
    assert math.isclose(integral_bound(profile, partition, rule), expected, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("placement", ["exact", "equidistribution"])
@EACH_RULE
@pytest.mark.parametrize("integrand", INTEGRANDS.values(), ids=INTEGRANDS)
def test_the_bound_holds_for_real_integrands(integrand: Integrand, rule: str, placement: str) -> None:
    profile = profile_of(lambda t: np.abs(integrand.slope(t)), samples=2049)
    for samples in (2, 5, 16):
        (partition,) = PLACEMENTS[placement](profile, rule, [intervals(samples, rule)])
        error = quadrature_error(integrand, schedule_from_partition(partition, rule))
        assert abs(error) <= integral_bound(profile, partition, rule) * (1 + 1e-3) + 1e-12


def test_eq9_by_hand() -> None:
    # ½ (0 · 0.25² + 0.25 · 0.75²) for |g′|(t) = t; the integral bound (left): ∫t(¼ − t) + ∫t(1 − t).
    partition = np.array([0.0, 0.25, 1.0])
    assert eq9_bound(RISING, partition) == 0.5 * 0.25 * 0.75**2
    left = 0.25**3 / 6 + (1 / 6 - 0.25**2 / 2 + 0.25**3 / 3)
    assert math.isclose(integral_bound(RISING, partition, "left"), left, rel_tol=1e-14)


@EACH_RULE
def test_the_bounds_of_equal_intervals_of_a_constant_profile(rule: str) -> None:
    # |g′| = 3: 3 n h²/2 for the rules of degree 0, half of it for those of degree 1.
    share = 4 if rule in ("midpoint", "trapezoid") else 2
    partition = linear_partition(10)
    assert math.isclose(integral_bound(CONSTANT, partition, rule), 3 / (10 * share), rel_tol=1e-12)
    assert math.isclose(eq9_bound(CONSTANT, partition), 3 / 20, rel_tol=1e-12)


@given(seed=st.integers(0, 1000), size=st.integers(2, 9))
def test_dynamic_programming_finds_what_trying_all_partitions_finds(seed: int, size: int) -> None:
    costs = np.random.default_rng(seed).random((size, size))
    costs[np.tril_indices(size)] = np.inf
    counts = list(range(1, size))
    for count, found in zip(
        counts, least_cost_partitions(np.arange(float(size)), costs, counts), strict=True
    ):
        candidates = [(0, *inner, size - 1) for inner in combinations(range(1, size - 1), count - 1)]
        best = min(candidates, key=lambda edges: sum(costs[i, j] for i, j in pairwise(edges)))
        np.testing.assert_array_equal(found, best)


@given(seed=st.integers(0, 1000), power=st.floats(0.0, 3.0))
def test_dynamic_programming_equals_a_table_of_all_costs(seed: int, power: float) -> None:
    # More candidates than are worked on at a time, and costs that grow with the interval, as bounds do.
    size, counts = 150, [1, 2, 7, 30, 100]
    places = np.arange(float(size))
    lengths = np.clip(places[None, :] - places[:, None], 0, None)
    costs = np.random.default_rng(seed).random((size, size)) * lengths**power
    costs[np.tril_indices(size)] = np.inf
    least = {1: costs[0]}
    for count in range(2, max(counts) + 1):
        least[count] = (least[count - 1][:, None] + costs).min(axis=0)
    for count, found in zip(counts, least_cost_partitions(places, costs, counts), strict=True):
        edges = found.astype(int)
        assert len(edges) == count + 1
        assert math.isclose(costs[edges[:-1], edges[1:]].sum(), least[count][-1], rel_tol=1e-12)


@EACH_RULE
@EACH_PROFILE
def test_exact_beats_all_partitions_of_a_small_grid(profile: Profile, rule: str) -> None:
    # Multiples of 1/16 are among the placement's candidates, so none of these may be better.
    for count, found in zip((1, 2, 3), exact_partitions(profile, rule, [1, 2, 3]), strict=True):
        partitions = (np.array([0, *inner, 16]) / 16 for inner in combinations(range(1, 16), count - 1))
        best = min(integral_bound(profile, partition, rule) for partition in partitions)
        assert integral_bound(profile, found, rule) <= best * (1 + 1e-12)


@pytest.mark.parametrize(
    ("rule", "edge"),
    [
        ("left", 2 / 3),
        ("right", 1 / math.sqrt(3)),
        ("released", 1 / math.sqrt(3)),
        ("midpoint", (1 + math.sqrt(7)) / 6),
        ("trapezoid", (1 + math.sqrt(7)) / 6),
    ],
)
def test_exact_places_one_edge_where_calculus_does(rule: str, edge: float) -> None:
    # |g′|(t) = t and two intervals: the zero of the bound's derivative in the edge.
    (partition,) = exact_partitions(RISING, rule, [2])
    assert abs(partition[1] - edge) <= 1 / 256


@EACH_RULE
@EACH_PROFILE
def test_exact_is_never_worse_on_the_integral_bound(profile: Profile, rule: str) -> None:
    counts = [intervals(samples, rule) for samples in (4, 16, 64)]
    found = exact_partitions(profile, rule, counts)
    others = {
        "linear": [linear_partition(count) for count in counts],
        "equidistribution": density_partitions(profile, rule, counts),
        "eq9": eq9_partitions(profile, rule, counts[:2]),
    }
    for name, partitions in others.items():
        for count, exact, other in zip(counts, found, partitions, strict=False):
            bounds = [integral_bound(profile, partition, rule) for partition in (exact, other)]
            assert bounds[0] <= bounds[1] * (1 + 1e-12), (name, count)


@EACH_PROFILE
def test_exact_takes_any_count(profile: Profile) -> None:
    """More intervals than candidates for 256 of them could make, the partitions of fewer being the same."""
    counts = [16, 400, 200]
    found = exact_partitions(profile, "left", counts)
    np.testing.assert_array_equal(found[0], exact_partitions(profile, "left", counts[:1])[0])
    bounds = [integral_bound(profile, partition, "left") for partition in found]
    dense = density_partitions(profile, "left", counts)
    for count, bound, density in zip(counts, bounds, dense, strict=True):
        for other in (linear_partition(count), density):
            assert bound <= integral_bound(profile, other, "left") * (1 + 1e-12), count
    assert bounds[0] > bounds[2] > bounds[1]


@EACH_PROFILE
def test_eq9_is_never_worse_than_equal_intervals_on_eq9(profile: Profile) -> None:
    counts = [1, 2, 4, 8, 16]
    for count, partition in zip(counts, eq9_partitions(profile, "left", counts), strict=True):
        assert eq9_bound(profile, partition) <= eq9_bound(profile, linear_partition(count)) * (1 + 1e-9)


@EACH_RULE
@pytest.mark.parametrize("name", ["narrow peak", "late"])
def test_eq9_warns_where_it_steps_over_a_peak(name: str, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="riemannopt_dist"):
        eq9_partitions(PROFILES[name], rule, [8])
    (record,) = caplog.records
    assert "8 intervals, steps over a peak" in record.getMessage()


@EACH_RULE
@pytest.mark.parametrize("name", ["constant", "decaying"])
def test_eq9_does_not_warn_where_eq9_sees_all(name: str, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="riemannopt_dist"):
        eq9_partitions(PROFILES[name], rule, [4, 8, 16])
    assert not caplog.records


def test_density_places_edges_where_calculus_does() -> None:
    # ∫_0^t s^½ ds ∝ t^{3/2} for |g′|(t) = t, so b_i = (i/n)^{2/3} but for the thousandth that is added.
    (partition,) = density_partitions(RISING, "left", [16])
    np.testing.assert_allclose(partition, (np.arange(17) / 16) ** (2 / 3), atol=2e-3)


@EACH_PROFILE
def test_density_gives_each_interval_the_same_share(profile: Profile) -> None:
    (partition,) = density_partitions(profile, "left", [16])
    mean, _ = quad(profile, 0, 1, points=profile.points, limit=500)
    shares = [
        quad(lambda t: math.sqrt(profile(t) + mean / 1000), a, b, points=profile.points, limit=500)[0]
        for a, b in pairwise(partition)
    ]
    np.testing.assert_allclose(shares, np.mean(shares), rtol=2e-3)


@EACH_RULE
def test_the_density_is_the_limit_of_exact_for_many_samples(rule: str) -> None:
    profile = PROFILES["decaying"]
    gaps = []
    for count in (4, 64):
        partitions = exact_partitions(profile, rule, [count]) + density_partitions(profile, rule, [count])
        exact, density = (integral_bound(profile, partition, rule) for partition in partitions)
        gaps.append(abs(density / exact - 1))
    assert gaps[1] < 1e-3
    assert gaps[1] < gaps[0] or gaps[0] < 1e-3


@EACH_PROFILE
def test_the_density_coordinate_runs_from_0_to_1_with_its_own_slope(profile: Profile) -> None:
    alphas, shares, slopes = density_coordinate(profile)
    assert (alphas[0], alphas[-1], shares[0], shares[-1]) == (0, 1, 0, 1)
    assert np.all(np.diff(shares) > 0)
    np.testing.assert_allclose(np.diff(shares) / np.diff(alphas), (slopes[1:] + slopes[:-1]) / 2, rtol=1e-9)


def test_a_profile_of_zeros_counts_as_constant() -> None:
    zeros = profile_of(np.zeros_like)
    for rule in NESTED_RULES:
        density = optimize_schedule(zeros, 16, rule, "equidistribution")
        np.testing.assert_allclose(density.points, linear_schedule(16, rule).points, atol=1e-12)
    for rule in ("left", "right", "midpoint", "trapezoid"):
        for samples in (16, 300):
            assert optimize_schedule(zeros, samples, rule, "exact") == linear_schedule(samples, rule)


@pytest.mark.parametrize("rule", NESTED_RULES)
def test_a_constant_profile_gives_the_linear_schedule(rule: str) -> None:
    linear = linear_schedule(16, rule)
    found = optimize_schedule(CONSTANT, 16, rule, "equidistribution")
    np.testing.assert_allclose(found.points, linear.points, atol=1e-12)
    np.testing.assert_allclose(found.weights, linear.weights, atol=1e-12)


def test_exact_and_eq9_find_equal_intervals_for_a_constant_profile() -> None:
    for placement, resolution in (("exact", 1 / 256), ("eq9", 1e-3)):
        for rule, samples in (("left", 16), ("left", 10), ("trapezoid", 16)):
            found = optimize_schedule(CONSTANT, samples, rule, placement)
            np.testing.assert_allclose(found.points, linear_schedule(samples, rule).points, atol=resolution)


def test_gauss_legendre_is_warped_as_calculus_does() -> None:
    # |g′|(t) = t: α = T(u) = u^{2/3} and weights ω/2 · T′(u), but for the thousandth that is added.
    plain = linear_schedule(8, "gauss_legendre")
    warped = optimize_schedule(RISING, 8, "gauss_legendre", "equidistribution")
    nodes = np.array(plain.points)
    np.testing.assert_allclose(warped.points, nodes ** (2 / 3), atol=2e-3)
    np.testing.assert_allclose(warped.weights, np.array(plain.weights) * 2 / 3 * nodes ** (-1 / 3), atol=4e-3)


def test_warped_gauss_legendre_beats_the_warped_trapezoid_where_the_slope_never_vanishes() -> None:
    integrand = INTEGRANDS["exponential"]
    profile = profile_of(integrand.slope)
    gauss, trapezoid = (
        abs(quadrature_error(integrand, optimize_schedule(profile, 16, rule, "equidistribution")))
        for rule in ("gauss_legendre", "trapezoid")
    )
    assert gauss < trapezoid / 50


@pytest.mark.parametrize("rule", FITTED_RULES)
@EACH_PROFILE
def test_one_and_two_samples(profile: Profile, rule: str) -> None:
    placements = ["equidistribution"] if rule == "gauss_legendre" else list(PLACEMENTS)
    for placement in placements:
        for samples in (2,) if rule in CLOSED_RULES else (1, 2):
            schedule = optimize_schedule(profile, samples, rule, placement)
            assert len(schedule) == samples
            assert math.isclose(math.fsum(schedule.weights), 1, abs_tol=1e-12)
            if rule != "gauss_legendre" and intervals(samples, rule) == 1:
                assert schedule == schedule_from_partition([0.0, 1.0], rule)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_profile_of_one_point_is_constant(placement: str) -> None:
    point = Profile((0.3,), (2.0,), (math.nan,), 1, (5.0,), (1.0,))
    schedule = optimize_schedule(point, 8, "left", placement)
    np.testing.assert_allclose(schedule.points, linear_schedule(8, "left").points, atol=1e-3)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_schedules_of_all_counts_are_those_of_each_alone(placement: str) -> None:
    profile, rules, counts = PROFILES["decaying"], ["left", "trapezoid"], [4, 16, 7]
    together = optimize_schedules(profile, counts, rules, placement)
    assert together == {
        (rule, count): optimize_schedule(profile, count, rule, placement)
        for rule in rules
        for count in counts
    }


def test_the_profiles_scale_does_not_matter() -> None:
    profile = PROFILES["two peaks"]
    scaled = linear_profile(np.array(profile.points), 2.0**-40 * np.array(profile.magnitudes))
    for placement in ("exact", "equidistribution"):
        assert optimize_schedule(scaled, 16, "left", placement) == optimize_schedule(
            profile, 16, "left", placement
        )


def test_bad_arguments_are_refused_by_name() -> None:
    with pytest.raises(
        ValueError,
        match=r"placement: expected one of riemannopt, eq9, exact, .*, got 'newton'",
    ):
        optimize_schedule(CONSTANT, 16, "left", "newton")
    with pytest.raises(ValueError, match="placement: 'powell' is called 'eq9' now"):
        optimize_schedule(CONSTANT, 16, "left", "powell")
    with pytest.raises(ValueError, match=r"rule: expected one of left, .*, got 'simpson'"):
        optimize_schedule(CONSTANT, 16, "simpson")
    with pytest.raises(ValueError, match="gauss_legendre goes with equidistribution, got 'exact'"):
        optimize_schedule(CONSTANT, 16, "gauss_legendre", "exact")
    with pytest.raises(ValueError, match=r"samples: .* got 0"):
        optimize_schedule(CONSTANT, 0, "left")
    with pytest.raises(ValueError, match="samples: the rule trapezoid needs at least 2, got 1"):
        optimize_schedule(CONSTANT, 1, "trapezoid")
    with pytest.raises(ValueError, match=r"intervals: at most 2 .* got 3"):
        least_cost_partitions(linear_partition(2), np.zeros((3, 3)), [3])
    with pytest.raises(ValueError, match=r"rule: .* got 'gauss_legendre'"):
        integral_bound(CONSTANT, linear_partition(4), "gauss_legendre")


def test_rough_points_share_the_cube_root_of_the_roughness_evenly() -> None:
    """For roughness 8 on one half and 1 on the other the points are 2 to 1."""
    points = tuple(((np.arange(512) + 0.5) / 512).tolist())
    roughness = tuple(8.0 if point < 0.5 else 1.0 for point in points)
    profile = Profile(points, (1.0,) * 512, (0.0,) * 512, 5, roughness)
    (partition,) = rough_partitions(profile, "left", [30])
    assert partition[20] == pytest.approx(0.5, abs=2e-3)
    np.testing.assert_allclose(np.diff(partition[:19]), 0.5 / 20, rtol=1e-2)
    np.testing.assert_allclose(np.diff(partition[22:]), 0.5 / 10, rtol=1e-2)
    with pytest.raises(ValueError, match="needs one with roughness"):
        rough_partitions(Profile(points, (1.0,) * 512, (0.0,) * 512, 5), "left", [30])


def test_rough_points_sum_random_walks_better_than_other_points() -> None:
    """Walks whose pace changes along the path: the mean squared error is the least of all partitions."""
    rng = np.random.default_rng(0)
    steps, walks = 4096, 600
    pace = np.exp(-5 * np.arange(steps) / steps)  # the standard deviation of a step
    values = np.cumsum(rng.normal(size=(walks, steps)) * pace, axis=1) / np.sqrt(steps)
    alphas = np.linspace(0, 1, 129)
    sampled = values[:, np.minimum((alphas * steps).astype(int), steps - 1)]
    profile = profile_from_variations(alphas, np.abs(np.diff(sampled, axis=1)) / np.diff(alphas))

    def squared_error(partition: Array) -> float:
        index = np.minimum((partition * steps).astype(int), steps - 1)
        ends = values[:, index]
        sums = (np.diff(partition) * (ends[:, 1:] + ends[:, :-1]) / 2).sum(1)
        return float(np.mean((sums - values.mean(1)) ** 2))

    found = {
        name: squared_error(PLACEMENTS[name](profile, "trapezoid", [16])[0])
        for name in ("roughness", "equidistribution", "exact")
    } | {"linear": squared_error(linear_partition(16))}
    assert found["roughness"] < min(found["equidistribution"], found["exact"]) < found["linear"]


# RiemannOpt as its authors run it.
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "riemannopt.npz")


@pytest.mark.parametrize("samples", [16, 32, 64, 128])
@pytest.mark.parametrize(("method", "unused"), [("ig", 1), ("blur_ig", 0), ("guided_ig", 0)])
def test_riemannopt_is_the_authors_code(method: str, unused: int, samples: int) -> None:
    """n points have n − 1 intervals for Integrated Gradients there, and n for the other two methods."""
    count = samples - unused
    variations = GOLDEN[method].astype(np.float64)
    profile = profile_from_variations(np.linspace(0, 1, variations.shape[1] + 1), variations)
    (partition,) = riemannopt_partitions(profile, "right", [count])
    expected = GOLDEN[f"{method}_{count}"]
    if np.abs(partition - expected).max() > 1e-6:
        # Another version of SciPy may stop elsewhere: then the bounds reached are equal.
        slope = smoothed_medians(profile)
        bounds = [np.diff(edges) ** 2 @ slope(edges[1:]) / 2 for edges in (partition, expected)]
        assert scipy.__version__ != str(GOLDEN["scipy"])
        assert bounds[0] == pytest.approx(bounds[1], rel=0, abs=1e-9)


def test_released_points_are_the_authors_points() -> None:
    variations = GOLDEN["ig"].astype(np.float64)
    profile = profile_from_variations(np.linspace(0, 1, variations.shape[1] + 1), variations)
    released = optimize_schedule(profile, 16, "released", "riemannopt")
    assert released.points == pytest.approx(GOLDEN["ig_15"].tolist(), abs=1e-6)
    assert released.weights == pytest.approx([0.0, *np.diff(GOLDEN["ig_15"])], abs=1e-6)
    right = optimize_schedule(profile, 16, "right", "riemannopt")
    assert right.points == pytest.approx(GOLDEN["ig_16"][1:].tolist(), abs=1e-6)


def test_the_scale_of_single_images_does_not_matter_to_riemannopt() -> None:
    rng = np.random.default_rng(1)
    variations, alphas = rng.exponential(size=(9, 40)), np.linspace(0, 1, 41)
    scaled = variations * 2.0 ** rng.integers(-20, 20, size=(9, 1))
    schedules = [
        optimize_schedule(profile_from_variations(alphas, values), 8, "right", "riemannopt")
        for values in (variations, scaled, np.concatenate([scaled, np.zeros((3, 40))]))
    ]
    assert schedules[0] == schedules[1] == schedules[2]  # an image that does not vary says nothing


def test_smoothed_medians_by_hand() -> None:
    # The window's weights are (1, 2, 3, 4, 5, 4, 3, 2, 1) / 25: a single e² among ones is spread as they are.
    medians = np.ones(21)
    medians[10] = np.exp(2.0)
    point = Profile((0.5,), (1.0,), (0.0,), 1, None, tuple(medians))
    smoothed = smoothed_medians(point)
    expected = np.exp(2 / 25 * np.array([0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]))
    np.testing.assert_allclose(smoothed(np.arange(5, 16) / 21), expected, rtol=1e-12)
    # Values are reflected: the first value's neighbours count twice, and so do the last one's.
    medians = np.ones(21)
    medians[1] = np.exp(2.0)
    first = smoothed_medians(Profile((0.5,), (1.0,), (0.0,), 1, None, tuple(medians)))
    assert float(first(0.0)) == pytest.approx(np.exp(2 / 25 * 8), rel=1e-12)


def test_riemannopt_needs_medians_of_equispaced_positions() -> None:
    variations = np.ones((2, 3))
    for alphas in ([0.0, 0.1, 0.5, 1.0], [0.1, 0.4, 0.7, 1.0], [0.0, 0.3, 0.6, 0.9]):
        profile = profile_from_variations(alphas, variations)
        with pytest.raises(ValueError, match="profile: the placement riemannopt needs one with medians"):
            optimize_schedule(profile, 4, "right", "riemannopt")


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 40])
def test_riemannopt_takes_medians_that_are_zero_and_few(length: int, zeros: float) -> None:
    values = np.where(np.arange(length) < zeros * length, 0.0, 1.0)[None]
    profile = profile_from_variations(np.linspace(0, 1, length + 1), values)
    schedule = optimize_schedule(profile, 6, "right", "riemannopt")
    assert schedule.points[-1] == 1
    if zeros in (0.0, 1.0):
        np.testing.assert_allclose(schedule.points, linear_schedule(6, "right").points, atol=1e-3)

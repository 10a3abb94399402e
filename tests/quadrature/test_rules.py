"""Schedules are Riemann sums: exact to their rule's degree, wrong by the known amount one degree above."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riemannopt_dist.quadrature.rules import (
    PARTITION_RULES,
    RULES,
    intervals,
    linear_partition,
    linear_schedule,
    schedule_from_partition,
)
from riemannopt_dist.quadrature.schedule import Array, Schedule
from riemannopt_dist.testing.problems import INTEGRANDS, monomial, quadrature_error

DEGREES = {"left": 0, "right": 0, "released": 0, "midpoint": 1, "trapezoid": 1}

lopsided_partitions = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=9).map(
    lambda lengths: np.append(np.cumsum([0.0, *lengths[:-1]]) / math.fsum(lengths), 1.0)
)


@pytest.mark.parametrize("rule", PARTITION_RULES)
@given(partition=lopsided_partitions)
def test_a_rule_is_exact_to_its_degree_and_off_by_the_known_amount_above(rule: str, partition: Array) -> None:
    schedule = schedule_from_partition(partition, rule)
    lengths = np.diff(partition)
    error_above = {
        "left": -(lengths**2).sum() / 2,
        "right": (lengths**2).sum() / 2,
        "released": (lengths**2).sum() / 2,
        "midpoint": -(lengths**3).sum() / 12,
        "trapezoid": (lengths**3).sum() / 6,
    }[rule]
    for degree in range(DEGREES[rule] + 1):
        assert abs(quadrature_error(monomial(degree), schedule)) < 1e-14
    assert math.isclose(
        quadrature_error(monomial(DEGREES[rule] + 1), schedule), error_above, rel_tol=1e-9, abs_tol=1e-15
    )


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_gauss_legendre_is_exact_to_degree_2n_minus_1_and_off_by_the_known_amount_above(samples: int) -> None:
    schedule = linear_schedule(samples, "gauss_legendre")
    for degree in range(2 * samples):
        assert abs(quadrature_error(monomial(degree), schedule)) < 1e-14
    error_above = -(math.factorial(samples) ** 4) / ((2 * samples + 1) * math.factorial(2 * samples) ** 2)
    assert math.isclose(quadrature_error(monomial(2 * samples), schedule), error_above, rel_tol=1e-9)


@pytest.mark.parametrize("name", ["exponential", "wave", "bell", "saturating"])
@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)])
def test_errors_on_smooth_integrands_fall_at_the_rules_order(name: str, rule: str, order: int) -> None:
    # The bell ends where it starts, so its error under the left and right rule is of second order too.
    expected = 2 if name == "bell" else order
    coarse, fine = (
        quadrature_error(INTEGRANDS[name], schedule_from_partition(linear_partition(count), rule))
        for count in (256, 512)
    )
    assert math.isclose(coarse / fine, 2**expected, rel_tol=0.03)


def test_gauss_legendre_resolves_smooth_integrands_with_few_points() -> None:
    for name, samples in {"exponential": 8, "wave": 16, "bell": 64, "saturating": 64}.items():
        assert abs(quadrature_error(INTEGRANDS[name], linear_schedule(samples, "gauss_legendre"))) < 1e-8


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "released"])
@pytest.mark.parametrize("samples", [2, 3, 16, 100, 128])
def test_a_schedule_costs_its_samples_and_its_weights_sum_to_one(rule: str, samples: int) -> None:
    schedule = linear_schedule(samples, rule)
    assert len(schedule) == len(schedule.points) == len(schedule.weights) == samples
    assert math.isclose(math.fsum(schedule.weights), 1, abs_tol=1e-14)
    assert all(a < b for a, b in pairwise(schedule.points))


def test_released_points_are_the_authors() -> None:
    """By hand from their code: linspace(0, 1, 128)[:: 128 // n], the first gradient left out of the sum."""
    sixteen = linear_schedule(16, "released")
    assert sixteen.points == pytest.approx([8 * k / 127 for k in range(16)], abs=1e-15)
    assert sixteen.weights == pytest.approx([0.0, *[8 / 127] * 15], abs=1e-15)
    assert sixteen.reach == pytest.approx(120 / 127, abs=1e-15)  # 0.945: it stops short of the image
    whole = linear_schedule(128, "released")
    assert (whole.points[0], whole.points[-1], whole.reach) == (0.0, 1.0, 1.0)
    nested = [set(linear_schedule(samples, "released").points) for samples in (2, 16, 32, 64, 128)]
    assert all(coarse < fine for coarse, fine in pairwise(nested))
    for samples in (1, 3, 100, 256):
        with pytest.raises(ValueError, match=f"samples: .* divides 128, got {samples}"):
            linear_schedule(samples, "released")
    lopsided = schedule_from_partition([0.0, 0.25, 1.0], "released")
    assert lopsided == Schedule((0.0, 0.25, 1.0), (0.0, 0.25, 0.75))


def test_a_sum_that_stops_short_says_so() -> None:
    with pytest.raises(ValueError, match=r"weights: .* sum to 1, got 0.5"):
        Schedule((0.0, 0.5), (0.0, 0.5))
    assert Schedule((0.0, 0.5), (0.0, 0.5), reach=0.5).reach == 0.5
    for reach in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"reach: .* got {reach}"):
            Schedule((0.0, 0.5), (0.0, 0.5), reach)


@given(partition=lopsided_partitions)
def test_weights_of_lopsided_partitions_sum_to_one(partition: Array) -> None:
    for rule in PARTITION_RULES:
        assert math.isclose(math.fsum(schedule_from_partition(partition, rule).weights), 1, abs_tol=1e-14)


def test_schedules_of_two_and_four_samples_by_hand() -> None:
    assert linear_schedule(4, "left") == Schedule((0.0, 0.25, 0.5, 0.75), (0.25,) * 4)
    assert linear_schedule(4, "right") == Schedule((0.25, 0.5, 0.75, 1.0), (0.25,) * 4)
    assert linear_schedule(4, "midpoint") == Schedule((0.125, 0.375, 0.625, 0.875), (0.25,) * 4)
    assert linear_schedule(2, "trapezoid") == Schedule((0.0, 1.0), (0.5, 0.5))
    lopsided = schedule_from_partition([0.0, 0.25, 1.0], "trapezoid")
    assert lopsided == Schedule((0.0, 0.25, 1.0), (0.125, 0.5, 0.375))
    third = 1 / math.sqrt(3)
    gauss = linear_schedule(2, "gauss_legendre")
    np.testing.assert_allclose(gauss.points, [(1 - third) / 2, (1 + third) / 2], rtol=1e-14)
    np.testing.assert_allclose(gauss.weights, [0.5, 0.5], rtol=1e-14)


@pytest.mark.parametrize(
    ("rule", "point"), [("left", 0.0), ("right", 1.0), ("midpoint", 0.5), ("gauss_legendre", 0.5)]
)
def test_one_sample(rule: str, point: float) -> None:
    assert linear_schedule(1, rule) == Schedule((point,), (1.0,))


def test_rules_with_points_at_both_ends_have_one_interval_less_than_samples() -> None:
    assert intervals(16, "trapezoid") == intervals(16, "released") == 15
    assert intervals(16, "left") == intervals(16, "right") == intervals(16, "midpoint") == 16


@pytest.mark.parametrize("rule", ["left", "right"])
def test_linear_points_of_doubled_counts_are_nested_exactly(rule: str) -> None:
    nested = [set(linear_schedule(samples, rule).points) for samples in (16, 32, 64, 128)]
    assert all(coarse < fine for coarse, fine in pairwise(nested))


def test_edges_of_doubled_linear_partitions_are_nested_exactly() -> None:
    for count in (3, 7, 10, 100):
        assert set(linear_partition(count)) < set(linear_partition(2 * count))


@given(partition=lopsided_partitions)
def test_a_json_round_trip_is_exact(partition: Array) -> None:
    for rule in PARTITION_RULES:
        schedule = schedule_from_partition(partition, rule)
        assert Schedule.from_json(schedule.to_json()) == schedule


def test_json_keeps_how_far_a_sum_goes() -> None:
    short = linear_schedule(16, "released")
    assert Schedule.from_json(short.to_json()) == short
    assert Schedule.from_json('{"points": [0.5], "weights": [1.0]}').reach == 1.0  # as before there was any


def test_schedules_hold_python_floats_and_compare_and_hash_by_value() -> None:
    schedule = Schedule(tuple(np.array([0.0, 1.0])), tuple(np.array([0.5, 0.5], dtype=np.float32)))
    assert {type(number) for number in schedule.points + schedule.weights} == {float}
    assert hash(schedule) == hash(linear_schedule(2, "trapezoid"))


@pytest.mark.parametrize(
    ("points", "weights", "complaint"),
    [
        ((), (), "got 0 points and 0 weights"),
        ((0.0, 0.5), (1.0,), "got 2 points and 1 weights"),
        ((-0.1, 0.5), (0.5, 0.5), r"points: .* in \[0, 1\], got \(-0.1, 0.5\)"),
        ((0.5, 1.1), (0.5, 0.5), r"points: .* in \[0, 1\], got \(0.5, 1.1\)"),
        ((0.5, 0.4), (0.5, 0.5), r"points: expected non-decreasing .*\(0.5, 0.4\)"),
        ((math.nan, 0.5), (0.5, 0.5), "points: expected finite"),
        ((0.0, 0.5), (0.5, math.inf), "weights: expected finite"),
        ((0.0, "half"), (0.5, 0.5), "points: expected numbers"),
        ((0.0, 0.5), (0.5, 0.4), "weights: .* sum to 1, got 0.9"),
        ((0.0, 0.5), (1.5, -0.5), "weights: expected values of at least 0"),
    ],
)
def test_bad_schedules_are_refused_by_name(
    points: tuple[float, ...], weights: tuple[float, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Schedule(points, weights)


@pytest.mark.parametrize(
    "text", ["", "3", "null", "[0, 1]", '"points"', "{}", '{"points": [0], "weights": 1}']
)
def test_json_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        Schedule.from_json(text)


@pytest.mark.parametrize(
    "partition",
    [[0.0], [0.1, 1.0], [0.0, 0.9], [0.0, 0.6, 0.4, 1.0], [[0.0, 1.0], [0.0, 1.0]], []],
)
def test_bad_partitions_are_refused(partition: list[float]) -> None:
    with pytest.raises(ValueError, match="partition: expected non-decreasing edges from 0 to 1"):
        schedule_from_partition(partition, "left")


@pytest.mark.parametrize("samples", [0, -1, 2.0, True, "16", None])
@pytest.mark.parametrize("rule", RULES)
def test_bad_sample_counts_are_refused(samples: object, rule: str) -> None:
    with pytest.raises(ValueError, match=f"samples: .* got {samples!r}"):
        linear_schedule(samples, rule)  # type: ignore[arg-type]


def test_bad_rules_and_a_trapezoid_of_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rule: expected one of left, right, .*, got 'simpson'"):
        linear_schedule(16, "simpson")
    with pytest.raises(ValueError, match=r"rule: .* got 'gauss_legendre'"):
        schedule_from_partition([0.0, 1.0], "gauss_legendre")
    with pytest.raises(ValueError, match="samples: the rule trapezoid needs at least 2, got 1"):
        linear_schedule(1, "trapezoid")

"""Cells and their schedules."""

import numpy as np
import pytest

from riemannopt_dist.optimize import optimize_schedule
from riemannopt_dist.profile import profile_from_variations
from riemannopt_dist.run.grid import Cell, cell_schedules, product_of, sums_of, tolerance_cells
from riemannopt_dist.schedule import linear_schedule

EDGES = np.linspace(0, 1, 33)
PEAK = np.exp(-((((EDGES[1:] + EDGES[:-1]) / 2 - 0.6) / 0.1) ** 2))
PEAKED = profile_from_variations(EDGES, [PEAK])


def test_product_is_full_and_distinct() -> None:
    cells = product_of(["ig"], ["linear", "density"], ["left", "gauss_legendre"], [4, 8, 16])
    assert len(set(cells)) == len(cells) == 12


def test_every_cell_has_the_schedule_of_its_name() -> None:
    cells = product_of(
        ["ig"], ["linear", "exact", "density", "riemannopt", "eq9"], ["left", "trapezoid"], [8, 5]
    )
    schedules = cell_schedules(cells, {"ig": PEAKED})
    assert set(schedules) == set(cells)
    for cell, schedule in schedules.items():
        assert len(schedule) == cell.samples
        if cell.schedule == "linear":
            assert schedule == linear_schedule(cell.samples, cell.rule)
        else:
            assert schedule == optimize_schedule(PEAKED, cell.samples, cell.rule, cell.schedule)


@pytest.mark.parametrize(("method", "rule"), [("blur_ig", "right"), ("guided_ig", "trapezoid")])
def test_end_weights_take_another_rules_points(method: str, rule: str) -> None:
    """Without the path's start, where they need no gradient; a guided walk has one there all the same."""
    cells = product_of([method], ["linear", "density"], ["left", "end_weights"], [8])
    schedules = cell_schedules(cells, {method: PEAKED})
    assert [cell.sum for cell in cells] == ["riemann", "end_weighted"] * 2
    assert schedules[cells[1]] == linear_schedule(8, rule)
    assert schedules[cells[3]] == optimize_schedule(PEAKED, 8, rule, "density")


def test_secants_take_the_points_of_the_right_rule() -> None:
    cells = product_of(["blur_ig"], ["linear", "exact"], ["secant"], [8])
    schedules = cell_schedules(cells, {"blur_ig": PEAKED})
    assert [cell.sum for cell in cells] == ["secant"] * 2
    assert schedules[cells[0]] == linear_schedule(8, "right")
    assert schedules[cells[1]] == optimize_schedule(PEAKED, 8, "right", "exact")
    ordered, sums = sums_of(
        [*product_of(["blur_ig"], ["linear"], ["end_weights"], [8]), *cells],
        {**schedules, **cell_schedules(product_of(["blur_ig"], ["linear"], ["end_weights"], [8]), {})},
    )
    assert [schedule for schedule in sums.secant] == [schedules[cell] for cell in cells]
    assert ordered[1:] == cells


def test_linear_cells_need_no_profile() -> None:
    (schedule,) = cell_schedules([Cell("ig", "linear", "left", 3)], {}).values()
    assert schedule == linear_schedule(3)


def test_points_per_image_are_cells_without_a_schedule() -> None:
    cells = [
        *product_of(["ig"], ["adaptive"], ["end_weights", "secant"], [16]),
        *tolerance_cells(["blur_ig"], [0.05], 99),
    ]
    assert [(str(cell), cell.tolerance) for cell in cells] == [
        ("ig/adaptive/end_weights/16", None),
        ("ig/adaptive/secant/16", None),
        ("blur_ig/auto_0.05/end_weights/99", 0.05),
    ]
    assert all(cell.fitted and cell.per_image for cell in cells)
    assert cell_schedules(cells, {}) == {}


@pytest.mark.parametrize(
    ("method", "schedule", "rule", "named"),
    [
        ("ig", "adaptive", "left", "adaptive goes with the rules end_weights and secant only"),
        ("ig_idgi", "linear", "end_weights", "left, right and trapezoid"),
        ("guided_ig", "adaptive", "end_weights", "ig and blur_ig only"),
        ("ig", "density", "mean", "goes with linear only"),
        ("ig_idgi", "linear", "midpoint", "left, right and trapezoid"),
        ("guided_ig", "linear", "right", "left, trapezoid and end_weights"),
        ("guided_ig", "linear", "secant", "left, trapezoid and end_weights"),
        ("ig_idgi", "linear", "secant", "left, right and trapezoid"),
        ("ig_idgi", "riemannopt", "released", "left, right and trapezoid"),
        ("guided_ig", "riemannopt", "right", "left, trapezoid and end_weights"),
        ("ig", "adaptive", "released", "adaptive goes with the rules end_weights and secant only"),
        ("ig_idgi", "adaptive", "secant", "ig and blur_ig only"),
    ],
)
def test_combinations_that_do_not_exist_are_named(method: str, schedule: str, rule: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        product_of([method], [schedule], [rule], [8])


def test_released_sums_are_as_many_as_a_part_of_128_where_they_are_equal() -> None:
    cells = product_of(["ig"], ["linear", "riemannopt"], ["released"], [16])
    linear, fitted = (cell_schedules(cells, {"ig": PEAKED})[cell] for cell in cells)
    assert (len(linear), len(fitted)) == (16, 16)
    assert (linear.weights[0], fitted.weights[0], fitted.points[0]) == (0, 0, 0)
    assert linear.reach < fitted.reach == 1
    product_of(["ig"], ["riemannopt"], ["released"], [20])
    with pytest.raises(ValueError, match=r"samples: .* divides 128, got 20"):
        product_of(["ig"], ["linear"], ["released"], [20])
    with pytest.raises(ValueError, match="samples: the rule released needs at least 2, got 1"):
        product_of(["ig"], ["riemannopt"], ["released"], [1])


def test_partition_placements_refuse_gauss_legendre() -> None:
    with pytest.raises(ValueError, match="gauss_legendre goes with linear and density"):
        product_of(["ig"], ["riemannopt"], ["gauss_legendre"], [4])

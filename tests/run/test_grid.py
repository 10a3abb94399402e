"""Cells, what goes together in them, and where their samples are."""

from dataclasses import fields

import numpy as np
import pytest

from riemannopt_dist.choices import CELL
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.paths.table import PATHS, Straight, path_family
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.profile import profile_from_variations
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.quadrature.schedule import Schedule
from riemannopt_dist.run.grid import Cell, make_cell, place

EDGES = np.linspace(0, 1, 33)
PEAK = np.exp(-((((EDGES[1:] + EDGES[:-1]) / 2 - 0.6) / 0.1) ** 2))
PEAKED = profile_from_variations(EDGES, [PEAK])


def cells_of(path: str, estimators: list[str], placements: list[str], samples: list[int]) -> list[Cell]:
    family = path_family(path)
    return [make_cell(family, e, p, n) for e in estimators for p in placements for n in samples]


def schedules_of(cells: list[Cell]) -> dict[Cell, Schedule]:
    families = {name: path_family(name) for name in PATHS}
    placed = place(cells, families, dict.fromkeys(PATHS, PEAKED))
    return {cell: where.fixed for cell, where in placed.items()}


def test_a_cell_is_told_by_its_fields() -> None:
    assert tuple(field.name for field in fields(Cell)) == CELL


def test_every_cell_has_the_schedule_of_its_name() -> None:
    placements = ["linear", "exact", "equidistribution", "riemannopt", "eq9"]
    cells = cells_of("ig", ["left", "trapezoid"], placements, [8, 5])
    schedules = schedules_of(cells)
    assert set(schedules) == set(cells)
    for cell, schedule in schedules.items():
        assert len(schedule) == cell.samples
        if cell.placement == "linear":
            assert schedule == linear_schedule(cell.samples, cell.estimator)
        else:
            assert schedule == optimize_schedule(PEAKED, cell.samples, cell.estimator, cell.placement)


@pytest.mark.parametrize(
    ("path", "estimator", "rule"),
    [
        ("blur_ig", "softmax_trapezoid", "right"),
        ("guided_ig", "softmax_trapezoid", "trapezoid"),
        ("blur_ig", "rescale", "right"),
        ("ig", "idgi", "left"),
        ("guided_ig", "idgi_trapezoid", "trapezoid"),
        ("blur_ig", "idgi_right", "right"),
    ],
)
def test_what_is_no_riemann_sum_takes_a_rules_points(path: str, estimator: str, rule: str) -> None:
    """The softmax-weighted trapezoid needs no gradient at the start; a walk has one there all the same."""
    linear, fitted = cells_of(path, [estimator], ["linear", "equidistribution"], [8])
    schedules = schedules_of([linear, fitted])
    assert schedules[linear] == linear_schedule(8, rule)
    assert schedules[fitted] == optimize_schedule(PEAKED, 8, rule, "equidistribution")


def test_linear_cells_need_no_profile() -> None:
    cell = Cell("ig", "left", "linear", 3)
    (placed,) = place([cell], {"ig": Straight()}, {}).values()
    assert placed.schedule == linear_schedule(3)


def test_points_per_image_are_cells_without_a_schedule() -> None:
    family = path_family("blur_ig")
    cells = [
        make_cell(family, "softmax_trapezoid", "adaptive", 16),
        make_cell(family, "rescale", "adaptive", 16),
        make_cell(family, "softmax_trapezoid", "adaptive", 99, 0.05),
    ]
    assert [str(cell) for cell in cells] == [
        "blur_ig/softmax_trapezoid/adaptive/16",
        "blur_ig/rescale/adaptive/16",
        "blur_ig/softmax_trapezoid/adaptive/99/0.05",
    ]
    assert all(cell.fitted and cell.per_image for cell in cells)
    placed = place(cells, {"blur_ig": family}, {"blur_ig": PEAKED})
    assert [placed[cell].schedule for cell in cells] == [None] * 3
    assert [placed[cell].tolerance for cell in cells] == [None, None, 0.05]
    assert all(placed[cell].known_profile == PEAKED for cell in cells)


@pytest.mark.parametrize(
    ("path", "estimator", "placement", "reason"),
    [
        ("ig", "left", "adaptive", "is for softmax_trapezoid and rescale"),
        ("ig", "released", "adaptive", "is for softmax_trapezoid and rescale"),
        ("ig", "idgi", "adaptive", "is for softmax_trapezoid and rescale"),
        ("guided_ig", "softmax_trapezoid", "adaptive", "no points per image"),
        ("ig", "mean", "equidistribution", "expected the placement linear, got equidistribution"),
        ("ig", "gauss_legendre", "riemannopt", "expected the placement linear or equidistribution"),
        ("guided_ig", "right", "linear", "rules left and trapezoid, not right"),
        ("guided_ig", "idgi_right", "exact", "rules left and trapezoid, not right"),
        ("guided_ig", "rescale", "linear", "needs the path before"),
    ],
)
def test_combinations_that_do_not_exist_are_named(
    path: str, estimator: str, placement: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^{path}/{estimator}/{placement}/8: .*{reason}"):
        make_cell(path_family(path), estimator, placement, 8)


def test_released_sums_are_as_many_as_a_part_of_128_where_they_are_equal() -> None:
    cells = cells_of("ig", ["released"], ["linear", "riemannopt"], [16])
    linear, fitted = (schedules_of(cells)[cell] for cell in cells)
    assert (len(linear), len(fitted)) == (16, 16)
    assert (linear.weights[0], fitted.weights[0], fitted.points[0]) == (0, 0, 0)
    assert linear.reach < fitted.reach == 1
    cells_of("ig", ["released"], ["riemannopt"], [20])
    with pytest.raises(ValueError, match=r"samples: .* divides 128, got 20"):
        cells_of("ig", ["released"], ["linear"], [20])
    with pytest.raises(ValueError, match="samples: the rule released needs at least 2, got 1"):
        cells_of("ig", ["released"], ["riemannopt"], [1])


def test_cells_have_an_order_and_tell_their_paths_parameters() -> None:
    white = path_family("ig", {"baseline": "white"})
    assert white.label == "ig(baseline=white)"
    assert path_family("ig", {"baseline": [0, 0, 0]}).label == "ig(baseline=0 0 0)"
    assert path_family("guided_ig", {"fraction": 0.5}).label == "guided_ig(fraction=0.5)"
    assert path_family("blur_ig", {"sigma_max": 30.0}).label == "blur_ig(sigma_max=30)"
    cells = [make_cell(white, "left", "linear", 8), *cells_of("ig", ["right", "left"], ["linear"], [9, 4])]
    assert [str(cell) for cell in sorted(cells)] == [
        "ig/left/linear/4",
        "ig/left/linear/9",
        "ig/right/linear/4",
        "ig/right/linear/9",
        "ig(baseline=white)/left/linear/8",
    ]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ig", {"colour": "white"}, "path ig: expected some of baseline, draws, got"),
        ("ig", {"baseline": "grey"}, "baseline: expected black, white, mean, blurred, noise, numbers"),
        ("ig", {"baseline": 1.5}, r"baseline: expected numbers in \[0, 1\], got \(1.5,\)"),
        ("blur_ig", {"sigma_max": 0.0}, "sigma_max: expected a positive number of pixels"),
        ("guided_ig", {"fraction": 0.0}, "fraction: expected a number above 0"),
        ("curved", {}, "path: expected one of ig, blur_ig, guided_ig, got 'curved'"),
        ("no.such.module:path", {}, "path: 'no.such.module:path' cannot be imported"),
    ],
)
def test_bad_paths_are_named(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        path_family(name, parameters)


def test_every_estimator_says_whether_it_goes_with_every_path() -> None:
    """Only Guided IG's walks are not for all; expected gradients are for lines from several baselines."""
    several = path_family("ig(baseline=noise, draws=4)")
    for name, estimator in ESTIMATORS.items():
        refused = {path for path in PATHS if estimator.refusal(path_family(path), "linear", 8)}
        assert refused <= ({*PATHS} if name == "expected_gradients" else {"guided_ig"}), name
        assert estimator.refusal(several, "linear", 8) is None, name

"""Sample efficiency and tolerances, on errors that follow a law."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from riemannopt_dist.reports.efficiency import (
    AT_LEAST,
    AT_MOST,
    EXACT,
    ROUNDING,
    equivalent_count,
    sample_efficiency,
    tolerances,
)
from riemannopt_dist.reports.statistics import TOO_FEW

REACH = 2.0639 * np.sqrt(25 / 24)
"""Of a 95 % interval of 25 images, in standard errors of their population's variance: Student's t."""
SCALES = np.linspace(0.5, 1.5, 25)  # an image's error is its scale times the cell's law


def results(cells: dict[tuple[str, str, int], float], costs: dict[str, float] | None = None) -> pa.Table:
    """Rows of one path: (placement, estimator, samples) → the mean error; auto_0.05 is a tolerance."""
    rows = [
        {
            "image_id": f"i{n:02}",
            "path": "ig",
            "placement": "adaptive" if placement.startswith("auto_") else placement,
            "estimator": estimator,
            "samples": samples,
            "tolerance": float(placement.removeprefix("auto_")) if placement.startswith("auto_") else np.nan,
            "gradient_evaluations": (costs or {}).get(placement, samples),
            "reference_error": error * scale,
        }
        for (placement, estimator, samples), error in cells.items()
        for n, scale in enumerate(SCALES)
    ]
    return pa.Table.from_pandas(pd.DataFrame(rows))


LINEAR = {("linear", "left", n): 1.6 / n for n in (16, 32, 64, 128)}


def test_efficiency_of_errors_that_fall_like_one_over_n() -> None:
    table = sample_efficiency(
        results(
            LINEAR
            | {
                ("equidistribution", "trapezoid", 16): 1.6 / 48,
                ("exact", "left", 32): 1.6 / 500,
                ("riemannopt", "left", 16): 0.9,
            }
        )
    ).set_index(["placement", "samples"])
    assert table.loc[("equidistribution", 16), "efficiency"] == pytest.approx(3)
    # Every image has the same law: each resample gives the same ratio.
    assert table.loc[("equidistribution", 16), "efficiency_low"] == pytest.approx(3)
    assert table.loc[("equidistribution", 16), "efficiency_high"] == pytest.approx(3)
    for count in (16, 32, 64, 128):
        assert table.loc[("linear", count), "efficiency"] == pytest.approx(1)
    assert (table.loc[("exact", 32), "efficiency"], table.loc[("exact", 32), "bound"]) == (
        pytest.approx(4),
        AT_LEAST,
    )
    assert (table.loc[("riemannopt", 16), "efficiency"], table.loc[("riemannopt", 16), "bound"]) == (
        pytest.approx(1),
        AT_MOST,
    )
    assert table.loc[("equidistribution", 16), "bound"] == EXACT
    mean = table.loc[("equidistribution", 16)]
    spread = SCALES.std() / np.sqrt(len(SCALES)) * 1.6 / 48
    assert mean["reference_error_mean"] == pytest.approx(1.6 / 48)
    assert mean["reference_error_mean_high"] - mean["reference_error_mean"] == pytest.approx(
        REACH * spread, rel=0.1
    )


def test_errors_that_are_rounding_have_no_ratio() -> None:
    """A map that equal intervals get exactly, as of a linear model: any count is enough."""
    noise = {("linear", "left", n): error for n, error in ((16, 2e-7), (32, 0.0), (64, 3e-7))}
    others = {
        ("equidistribution", "trapezoid", 16): 1e-8,
        ("riemannopt", "left", 8): 0.0,
        ("exact", "left", 8): 0.5,
    }
    table = sample_efficiency(results(noise | others)).set_index(["placement", "samples"])
    for cell, efficiency in (
        (("equidistribution", 16), 1.0),
        (("riemannopt", 8), 2.0),
        (("linear", 64), 0.25),
        (("exact", 8), 2.0),
    ):
        assert table.loc[cell, "efficiency"] == pytest.approx(efficiency)
        assert table.loc[cell, "bound"] == AT_MOST
    assert table.loc[("linear", 32), "reference_error_mean"] == 0


def test_an_exact_map_saves_at_least_what_the_largest_count_takes() -> None:
    table = sample_efficiency(results(LINEAR | {("equidistribution", "trapezoid", 16): 0.0}))
    row = table.set_index("placement").loc["equidistribution"]
    assert (row["efficiency"], row["bound"]) == (pytest.approx(8), AT_LEAST)


def test_the_first_count_that_is_exact_but_for_rounding_is_enough() -> None:
    exact_from_64 = LINEAR | {("linear", "left", 64): ROUNDING / 3, ("linear", "left", 128): 0.0}
    table = sample_efficiency(results(exact_from_64 | {("equidistribution", "trapezoid", 16): ROUNDING / 2}))
    row = table.set_index("placement").loc["equidistribution"]
    assert (row["efficiency"], row["bound"]) == (pytest.approx(4.0), EXACT)


def test_what_an_image_costs_is_of_the_images_compared_and_resampled_with_its_error() -> None:
    table = results(LINEAR | {("auto_0.05", "softmax_trapezoid", 256): 1.6 / 48}).to_pandas()
    table = table.astype({"gradient_evaluations": float})
    auto = table["placement"] == "adaptive"
    table.loc[auto, "gradient_evaluations"] = 16 * SCALES
    elsewhere = table[auto].assign(reference_error=np.nan, gradient_evaluations=1000)
    elsewhere["image_id"] += " without a converged map"
    frame = sample_efficiency(pa.Table.from_pandas(pd.concat([table, elsewhere])))
    row = frame.set_index("placement").loc["adaptive"]
    assert (row["images"], row["gradient_evaluations"]) == (25, 16)
    # Linear left's count is 48 in every resample; only the cost's mean moves.
    assert row["efficiency"] == pytest.approx(3)
    spread = 3 * SCALES.std() / np.sqrt(len(SCALES))
    assert row["efficiency_high"] - row["efficiency_low"] == pytest.approx(2 * REACH * spread, rel=0.1)


def test_the_first_count_that_is_as_near_counts_where_errors_go_up_and_down() -> None:
    counts = np.array([1.0, 2.0, 4.0, 8.0])
    yardstick = np.array([[8.0, 1.0, 4.0, 1.0]] * 4)
    found = equivalent_count(np.array([2.0, 16.0, 0.5, 8.0]), counts, yardstick)
    # Two thirds of the way down from 8 to 1; above all; below all; the first itself.
    np.testing.assert_allclose(found, [2 ** (2 / 3), 1.0, 8.0, 1.0])


def test_more_points_that_are_further_off_are_no_yardstick() -> None:
    """Guided IG's walks depend on how many steps they have: with more of them its gap may grow."""
    equal = {("linear", "left", n): error for n, error in ((16, 0.9), (32, 1.5), (64, 2.0), (128, 2.5))}
    table = sample_efficiency(results(equal | {("riemannopt", "left", 32): 1.6})).set_index(
        ["placement", "samples"]
    )
    assert table.loc[("linear", 16), "efficiency"] == pytest.approx(1)
    # With 16 equal points it is off by less already.
    for cell, efficiency in ((("riemannopt", 32), 0.5), (("linear", 128), 0.125)):
        assert table.loc[cell, "efficiency"] == pytest.approx(efficiency)
        assert table.loc[cell, "bound"] == AT_MOST


def test_an_interval_is_open_where_equal_points_reach_no_further() -> None:
    """An error beside that of the largest or the least count: resampled ones are beyond what is known."""
    rng = np.random.default_rng(0)

    def noisy(error: float) -> pd.DataFrame:
        table = results(LINEAR | {("exact", "left", 16): error}).to_pandas()
        table.loc[table["placement"] == "exact", "reference_error"] *= rng.uniform(0.5, 1.5, len(SCALES))
        return sample_efficiency(pa.Table.from_pandas(table)).set_index("placement").loc["exact"]

    near, far = noisy(1.6 / 124), noisy(1.6 / 16.5)
    assert 4 < near["efficiency_low"] < near["efficiency"] <= 8
    assert near["efficiency_high"] == np.inf
    assert far["efficiency_low"] == 0
    assert 1 < far["efficiency_high"] < 2


def test_a_tolerance_is_compared_with_the_count_that_keeps_as_many_images_within() -> None:
    table = tolerances(
        results(LINEAR | {("auto_0.05", "softmax_trapezoid", 256): 0.05 / 1.3}, costs={"auto_0.05": 20})
    )
    (row,) = table.to_dict("records")
    assert row["within"] == np.mean(SCALES <= 1.3)
    # At 32 linear's error is 0.05 · scale, within for half of the images; at 64 for all.
    assert row["linear_count"] == 64
    assert row["cost"] == 20 / 64
    assert (row["images"], row["at_maximum"], row["bound"]) == (25, 0.0, EXACT)
    # The share of 25 independent images. Of linear's, 64 is enough in all resamples, 32 in hardly any.
    spread = np.sqrt(row["within"] * (1 - row["within"]) / 25)
    assert row["within_high"] - row["within_low"] == pytest.approx(2 * REACH * spread, abs=1.5 / 25)
    assert (row["cost_low"], row["cost_high"]) == (20 / 64, 20 / 64)


def test_a_tolerance_that_no_count_of_the_grid_holds_costs_at_most_what_the_largest_says() -> None:
    auto = {("auto_0.01", "softmax_trapezoid", 256): 0.01 / 1.3}
    (row,) = tolerances(results(LINEAR | auto, costs={"auto_0.01": 20})).to_dict("records")
    # At 128 linear's error is 0.0125 · scale, within 0.01 for fewer.
    assert (row["linear_count"], row["cost"], row["bound"]) == (128, 20 / 128, AT_MOST)
    (row,) = tolerances(results(auto)).to_dict("records")
    assert np.isnan(row["linear_count"])
    assert np.isnan(row["cost"])
    assert row["bound"] == EXACT


def test_with_several_draws_evaluations_are_compared_with_evaluations() -> None:
    """Eight draws of a baseline: each cell takes its count eight times over."""
    cells = LINEAR | {("exact", "left", 16): 1.6 / 32, ("expected", "expected_gradients", 64): 1.6 / 16}
    costs = {"linear": 8, "exact": 8, "auto_0.05": 8, "expected": 1}
    auto = {("auto_0.05", "softmax_trapezoid", 256): 0.05 / 1.3}
    frame = results(cells | auto).to_pandas()
    kinds = frame["placement"].replace("adaptive", "auto_0.05")
    frame["gradient_evaluations"] = frame["samples"] * kinds.map(costs)
    is_auto = frame["placement"] == "adaptive"
    some = frame["image_id"] < "i05"
    # Five images are at the most of all draws, the others at no more than that of one or of two.
    frame.loc[is_auto & ~some, "gradient_evaluations"] = [256, 512] * 10
    table = sample_efficiency(pa.Table.from_pandas(frame)).set_index(["placement", "samples"])
    for count in LINEAR:
        assert table.loc[(count[0], count[2]), "efficiency"] == pytest.approx(1)
    assert table.loc[("exact", 16), "efficiency"] == pytest.approx(2)
    # 16 points of 8 draws each have the error of 64 gradients in all.
    assert table.loc[("expected", 64), "efficiency"] == pytest.approx(2)
    (row,) = tolerances(pa.Table.from_pandas(frame)).to_dict("records")
    assert row["linear_count"] == 64
    assert row["cost"] == pytest.approx((5 * 2048 + 10 * 256 + 10 * 512) / 25 / (8 * 64))
    assert row["at_maximum"] == 5 / 25
    (row,) = tolerances(pa.Table.from_pandas(frame[is_auto])).to_dict("records")
    assert row["at_maximum"] == 5 / 25


@pytest.mark.parametrize(("images", "bounds"), [(9, {TOO_FEW}), (10, {AT_LEAST, AT_MOST, EXACT})])
def test_fewer_than_ten_images_are_called_too_few(images: int, bounds: set[str]) -> None:
    cells = LINEAR | {("exact", "left", 32): 1.6 / 500, ("powell", "left", 16): 0.9}
    auto = {("auto_0.01", "softmax_trapezoid", 256): 0.01 / 1.3}
    table = results(cells | auto, costs={"auto_0.01": 20}).to_pandas()
    some = pa.Table.from_pandas(table[table["image_id"].isin(sorted(set(table["image_id"]))[:images])])
    efficiency = sample_efficiency(some)
    assert set(efficiency["images"]) == {images}
    assert set(efficiency["bound"]) == bounds
    assert efficiency[["efficiency", "efficiency_low", "efficiency_high"]].notna().all(axis=None)
    (row,) = tolerances(some).to_dict("records")
    assert (row["images"], row["bound"]) == (images, TOO_FEW if images < 10 else AT_MOST)


def test_nothing_without_converged_maps() -> None:
    table = results(LINEAR).drop_columns(["reference_error"])
    assert sample_efficiency(table).empty
    assert tolerances(table).empty
    one = results({("linear", "left", 16): 0.1, ("equidistribution", "left", 16): 0.1})
    assert sample_efficiency(one).empty

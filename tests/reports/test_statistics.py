"""Intervals and paired comparisons, by theory and by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.metrics.insertion import INSERTION
from riemannopt_dist.reports.statistics import (
    CELL,
    LARGE,
    RESAMPLES,
    against,
    changes,
    mean_interval,
    resampled_means,
    rows_of,
)
from riemannopt_dist.run.schemas import results_schema


def test_the_interval_of_few_values_is_nearly_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, LARGE - 1)
    mean, low, high = mean_interval(values)
    expected = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert mean == values.mean()
    np.testing.assert_allclose((low, high), expected, atol=0.01)
    assert mean_interval(values) == (mean, low, high)
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([1.0])


def test_the_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(1).exponential(size=LARGE)
    expected = stats.norm.interval(0.95, values.mean(), stats.sem(values, ddof=0))
    np.testing.assert_allclose(mean_interval(values)[1:], expected, rtol=1e-12)


@pytest.mark.parametrize("images", [500, LARGE])
def test_resampled_means_vary_and_covary_as_means_of_so_many_images_do(images: int) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(images, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -0.8], [0.0, 0.0, 2.0]])
    first, *others = resampled_means(values)
    np.testing.assert_array_equal(first, values.mean(0))
    assert np.shape(others) == (RESAMPLES, 3)
    np.testing.assert_allclose(np.mean(others, 0), first, atol=5 * values.std() / (images * RESAMPLES) ** 0.5)
    np.testing.assert_allclose(images * np.cov(np.transpose(others)), np.cov(values.T, ddof=0), atol=0.25)


def test_rows_are_read_with_what_is_asked_for_alone_and_a_text_is_a_byte() -> None:
    cells = {("ig", name): [0.5] * 4 for name in ("linear", "exact")}
    frame = rows_of(table(cells), "insertion")
    assert [*frame.columns] == [*CELL, "insertion", "image"]
    assert frame["image"].tolist() == [0, 1, 2, 3] * 2
    assert [frame[name].cat.codes.dtype.itemsize for name in ("path", "placement", "estimator")] == [1, 1, 1]


def table(cells: dict[tuple[str, str], list[float]]) -> pa.Table:
    """Result rows of insertion and relative error: cell (path, placement) → a value an image for both."""
    rows = [
        {
            "image_id": f"i{n}",
            "target": 0,
            "path": path,
            "placement": placement,
            "estimator": "random" if path == "none" else "left",
            "samples": 8,
            "f_input": 1.0,
            "f_baseline": 0.0,
            "gradient_evaluations": 8,
            "seconds": 1.0,
            "relative_error": value,
            "insertion": value,
        }
        for (path, placement), values in cells.items()
        for n, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, results_schema([COMPLETENESS, INSERTION]))


def test_changes_are_paired_and_know_which_way_is_better() -> None:
    # Images differ by 10, the schedules by 1: only a paired comparison sees it.
    base = [10.0 * n for n in range(12)]
    steps = (0.9, 1.1, 1.0, 1.0) * 3
    found = changes(
        table(
            {
                ("ig", "linear"): base,
                ("ig", "exact"): [v + d for v, d in zip(base, steps, strict=True)],
            }
        )
    )
    rows = {row.score: row for row in found.itertuples()}
    assert set(rows) == {"relative_error", "insertion"}
    for score, verdict in (("relative_error", "worse"), ("insertion", "better")):
        assert rows[score].change == pytest.approx(1.0)
        assert 0.9 <= rows[score].low <= rows[score].high <= 1.1
        assert rows[score].verdict == verdict


def test_images_without_a_value_are_left_out_of_the_pair() -> None:
    found = changes(table({("ig", "linear"): [1.0, np.nan, 3.0], ("ig", "exact"): [1.0, 5.0, 3.0]}))
    assert set(found["images"]) == {2}
    assert set(found["change"]) == {0.0}
    assert set(found["verdict"]) == {"too few"}


@pytest.mark.parametrize(("images", "expected"), [(2, "too few"), (9, "too few"), (10, "better")])
def test_a_verdict_needs_ten_images_and_its_interval_does_not(images: int, expected: str) -> None:
    control = {("none", "none"): [0.1] * images}
    linear, exact = {("ig", "linear"): [0.2] * images}, {("ig", "exact"): [0.5] * images}
    (row,) = against(table(control | linear), ["random"], "insertion").itertuples()
    assert (row.images, row.verdict) == (images, expected)
    assert (row.low, row.high) == pytest.approx((0.1, 0.1))
    found = changes(table(linear | exact)).set_index("score")
    assert found.loc["insertion", "verdict"] == expected
    assert found.loc["insertion", "low"] == pytest.approx(0.3)


def test_images_without_a_value_do_not_count_for_a_verdict() -> None:
    found = changes(table({("ig", "linear"): [0.1] * 9 + [np.nan], ("ig", "exact"): [0.2] * 10}))
    assert set(found["images"]) == {9}
    assert set(found["verdict"]) == {"too few"}
    same = changes(table({("ig", "linear"): [0.1] * 10, ("ig", "exact"): [0.1] * 10}))
    assert set(same["verdict"]) == {"open"}


def test_controls_are_subtracted_image_by_image() -> None:
    found = against(
        table({("none", "none"): [0.1, 0.2, 0.3], ("ig", "linear"): [0.2, 0.4, 0.6]}),
        ["random"],
        "insertion",
    )
    (row,) = found.itertuples()
    assert (row.path, row.control, row.images) == ("ig", "random", 3)
    assert row.change == pytest.approx(0.2)
    assert isinstance(found, pd.DataFrame)

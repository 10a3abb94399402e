"""Intervals and paired comparisons, by theory and by hand."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from riemannopt_dist.estimators.base import has_gap
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.metrics.insertion import INSERTION
from riemannopt_dist.reports import statistics
from riemannopt_dist.reports.comparison import NamedRun, compare_runs
from riemannopt_dist.reports.gaps import KNOWN, gauged
from riemannopt_dist.reports.statistics import (
    LARGE,
    RESAMPLES,
    against,
    changes,
    holm,
    mean_interval,
    mean_intervals,
    resampled_means,
    saving_interval,
)
from riemannopt_dist.reports.summary import comparison_files
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


@pytest.mark.parametrize(("count", "least"), [(4, 0.85), (10, 0.92), (40, 0.93)])
def test_intervals_of_few_values_hold_their_mean_as_often_as_they_say(count: int, least: float) -> None:
    """Plain percentiles hold 80, 90 and 94 % of them. Of four values none holds more than 1 − 2 / 2⁴."""
    rng = np.random.default_rng(5)
    intervals = [
        interval
        for seed in range(20)
        for interval in mean_intervals([*rng.normal(1.0, 2.0, (50, count))], seed)
    ]
    share = np.mean([low <= 1.0 <= high for _, low, high in intervals])
    assert least < share < 0.97


def test_the_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(1).exponential(size=LARGE)
    expected = stats.norm.interval(0.95, values.mean(), stats.sem(values, ddof=0))
    np.testing.assert_allclose(mean_interval(values)[1:], expected, rtol=1e-12)


def test_the_normal_limit_is_the_bootstrap_of_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of skewed scores such as errors; bounds are the same to a fraction of the interval's length."""
    errors = np.random.default_rng(3).exponential(0.2, LARGE)
    mean, low, high = mean_interval(errors)
    saved = saving_interval(errors, errors * np.linspace(0.2, 1.0, LARGE))
    monkeypatch.setattr(statistics, "LARGE", LARGE + 1)
    assert mean_interval(errors) == pytest.approx((mean, low, high), abs=0.03 * (high - low))
    drawn = saving_interval(errors, errors * np.linspace(0.2, 1.0, LARGE))
    assert drawn == pytest.approx(saved, abs=0.03 * (saved[2] - saved[1]))


def test_intervals_of_samples_of_any_size_are_those_of_each() -> None:
    rng = np.random.default_rng(4)
    samples = [rng.normal(size=count) for count in (12, LARGE, 30, 12)]
    for several, alone in zip(mean_intervals(samples), map(mean_interval, samples), strict=True):
        np.testing.assert_allclose(several, alone, rtol=1e-12)


def test_a_signed_rank_test_of_ten_images_by_hand() -> None:
    """Changes +1, …, +10: one of 2^10 signs each way is as far, p = 2 / 1024. With −1 for +1, 4 / 1024."""
    base = [100.0 + n * n for n in range(10)]
    (up,) = p_values(base, [value + n + 1 for n, value in enumerate(base)])
    (mixed,) = p_values(base, [base[0] - 1, *(value + n + 1 for n, value in enumerate(base[1:], 1))])
    assert (up, mixed) == pytest.approx((2 / 1024, 4 / 1024))


def test_images_served_alike_do_not_count_in_a_test() -> None:
    """Six that are better of thirty: one of 2^6 signs each way is as far, however many others there are."""
    base = [0.1 * n for n in range(1, 31)]
    few = [value + 0.01 * (n + 1) if n < 6 else value for n, value in enumerate(base)]
    assert p_values(base, few) == pytest.approx([2 / 64])
    assert p_values(base, base) == [1.0]
    assert np.isnan(p_values(base[:9], few[:9])).all()


def p_values(before: list[float], after: list[float]) -> list[float]:
    """The p-values of one pair of cells, of which one score is told: both have the same values."""
    found = changes(table({("ig", "linear"): before, ("ig", "exact"): after}))
    return [*dict.fromkeys(found["wilcoxon_p"])]


def test_holm_multiplies_the_smallest_most_and_never_reorders() -> None:
    """Worked by hand: 0.01 · 4, 0.02 · 3 = 0.06, 0.03 · 2 = 0.06, 0.5 · 1; NaN is no test."""
    assert holm([0.02, np.nan, 0.5, 0.01, 0.03]) == pytest.approx(
        [0.06, np.nan, 0.5, 0.04, 0.06], nan_ok=True
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_test_is_corrected_for_all_pairs_of_its_score() -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(size=40)
    cells = {("ig", "linear"): [*base]}
    cells |= {("ig", name): [*(base + rng.normal(0.3, 1, 40))] for name in ("exact", "eq9", "riemannopt")}
    for _, rows in changes(table(cells)).groupby("score"):
        assert len(rows) == 3
        assert rows["wilcoxon_p_holm"].tolist() == holm(rows["wilcoxon_p"].tolist())
        assert rows["wilcoxon_p_holm"].min() == pytest.approx(3 * rows["wilcoxon_p"].min())


@pytest.mark.parametrize("images", [500, LARGE])
def test_resampled_means_vary_and_covary_as_means_of_so_many_images_do(images: int) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(images, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -0.8], [0.0, 0.0, 2.0]])
    first, *others = resampled_means(values)
    np.testing.assert_array_equal(first, values.mean(0))
    assert np.shape(others) == (RESAMPLES, 3)
    np.testing.assert_allclose(np.mean(others, 0), first, atol=5 * values.std() / (images * RESAMPLES) ** 0.5)
    np.testing.assert_allclose(images * np.cov(np.transpose(others)), np.cov(values.T, ddof=0), atol=0.25)


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


def test_no_verdict_rests_on_a_gap_that_is_no_measure() -> None:
    """By design or 0 by construction, of the estimators of which no gap tends to 0 by the integral's error;
    the rows keep it, and other scores are compared."""
    assert {*KNOWN} == {name for name, one in ESTIMATORS.items() if not has_gap(one)}
    rows = table({("ig", "linear"): [0.5] * 10, ("ig", "exact"): [0.4] * 9 + [0.5]})
    place = rows.schema.get_field_index("estimator")
    alike = [rows.set_column(place, "estimator", pa.array([name] * 20)) for name in ("left", *KNOWN)]
    together = pa.concat_tables(alike)
    compared = pd.read_csv(io.BytesIO(comparison_files(together)["comparisons.csv"]))
    assert {*compared[compared["score"] == "relative_error"]["estimator"]} == {"left"}
    assert {*compared[compared["score"] == "insertion"]["estimator"]} == {"left", *KNOWN}
    holm = compared[compared["score"] == "relative_error"]["wilcoxon_p_holm"]
    assert holm.item() == pytest.approx(2 * 0.5**9)  # of one pair alone
    runs = [NamedRun(name, together, {}, {}) for name in ("first", "second")]
    changes = compare_runs(runs).changes
    assert {*changes[changes["score"] == "relative_error"]["estimator"]} == {"left"}
    assert not pc.any(pc.is_nan(together["relative_error"])).as_py()


def test_a_run_tells_its_estimators_without_a_gap() -> None:
    """One of another package, too; and of one that says so the gap of a known name is judged."""
    rows = pa.Table.from_pylist(
        [{"image_id": "a", "estimator": name, "relative_error": 0.5} for name in ("left", "theirs", "idg")]
    )

    def judged(table: pa.Table) -> list[str]:
        return [row["estimator"] for row in gauged(table).to_pylist() if row["relative_error"] == 0.5]

    assert judged(rows) == ["left", "theirs"]
    told = (results_schema([], ["theirs"]).metadata, results_schema([], []).metadata)
    assert [judged(rows.replace_schema_metadata(one)) for one in told] == [
        ["left", "idg"],
        ["left", "theirs", "idg"],
    ]


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

"""Table 1 of a run: its numbers against DuckDB on the same files, its forms, and runs that lack something."""

import csv
import io
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.reports.formats import FORMATS
from riemannopt_dist.reports.statistics import mean_interval, saving_interval
from riemannopt_dist.reports.table_one import comma_separated, latex, markdown, table_one
from riemannopt_dist.run.results import read_results, write_files
from riemannopt_dist.run.schemas import results_schema
from riemannopt_dist.run_data.data import run_data
from riemannopt_dist.storage.base import Storage

RULES = {"ig": "released", "blur_ig": "right", "guided_ig": "left"}
COUNTS = (16, 32, 64, 128)


def run_of(images: int, methods: dict[str, str], schedules: tuple[str, ...]) -> pa.Table:
    """Result rows with random gaps, RiemannOpt's about half of linear's; every eighth f does not change."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(images):
        change = 0.0 if number % 8 == 7 else float(rng.uniform(0.2, 0.9))
        for method, rule in methods.items():
            for schedule in schedules:
                for samples in COUNTS:
                    scale = (0.5 if schedule == "riemannopt" else 1.0) * 8 / samples
                    delta = float(rng.normal(0, scale))
                    rows.append(
                        {"image_id": f"image {number}", "target": 1, "path": method, "placement": schedule}
                        | {"estimator": rule, "samples": samples, "f_input": change, "f_baseline": 0.0}
                        | {"gradient_evaluations": samples, "seconds": 1.0, "output_change": change}
                        | {"attribution_sum": change + delta, "completeness_delta": delta}
                        | {"relative_error": abs(delta) / change if change else float("nan")}
                    )
    return pa.Table.from_pylist(rows, results_schema([COMPLETENESS]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of results in three shards."""
    folder = tmp_path_factory.mktemp("run")
    results = run_of(40, RULES, ("linear", "riemannopt", "exact"))
    for shard in range(3):
        part = results.slice(shard * 500, 500)
        Storage(folder).write_table(f"results/shard-0000{shard}.parquet", part)
    return folder


QUERY = """
    SELECT path, placement, samples, SUM(ABS(completeness_delta)) / SUM(ABS(output_change)) AS ratio_of_sums,
           AVG(relative_error) FILTER (NOT isnan(relative_error)) AS mean
    FROM read_parquet('{files}') WHERE placement IN ('linear', 'riemannopt') GROUP BY ALL
"""


def test_numbers_are_those_of_a_query_on_the_same_files(run: Path) -> None:
    data = run_data(Storage(run))
    names = [name for part in FORMATS.values() for name in write_files(Storage(run), part(data))]
    assert {f"report/table1.{ending}" for ending in ("md", "tex", "csv")} <= set(names)
    expected = duckdb.sql(QUERY.format(files=run / "results/*.parquet")).fetchall()
    assert len(expected) == 3 * 2 * 4
    lines = list(csv.DictReader(io.StringIO((run / "report/table1.csv").read_text())))
    found = {(e["aggregate"], e["method"], e["placement"], int(e["samples"])): e for e in lines}
    shown, typeset = ((run / f"report/table1.{ending}").read_text() for ending in ("md", "tex"))
    for method, schedule, samples, *errors in expected:
        for aggregate, error in zip(("ratio_of_sums", "mean"), errors, strict=True):
            entry = found[aggregate, method, schedule, samples]
            assert float(entry["error"]) == pytest.approx(error, rel=1e-12)
            assert entry["rule"] == RULES[method]
            assert f" {error:.3f} " in shown
            assert f" {error:.3f} " in typeset
    assert len(found) == 2 * len(expected)


def test_savings_are_paired_and_have_intervals(run: Path) -> None:
    table = table_one(read_results(Storage(run)), "inception_v3", 40)
    entry = table.entry("ratio_of_sums", "ig", "riemannopt", 16)
    linear = table.entry("ratio_of_sums", "ig", "linear", 16)
    assert entry is not None
    assert linear is not None
    assert entry.saving == pytest.approx(1 - entry.error / linear.error)
    assert entry.low < entry.saving < entry.high
    assert 0.2 < entry.low < 0.5 < entry.high < 0.7
    assert (linear.paper, entry.paper) == (0.708, 0.404)
    assert "0.708 | 0.374 | 0.166 | 0.066" in markdown(table)
    of_logits = markdown(table_one(read_results(Storage(run)), "inception_v3", 40, "logit"))
    assert "0.708" not in of_logits
    assert "f is the logit of the class here; the paper's is the probability." in of_logits


def test_an_interval_of_many_images_is_the_bootstraps_limit() -> None:
    """At 1,999 images it is resampled, at 2,000 it is the normal limit: the same but for noise."""
    rng = np.random.default_rng(0)
    before = rng.gamma(2.0, size=2000)
    after = before * rng.uniform(0.2, 0.9, 2000)
    resampled, limit = saving_interval(before[:1999], after[:1999]), saving_interval(before, after)
    assert resampled == pytest.approx(limit, abs=2e-3)
    width = limit[2] - limit[1]
    assert resampled[2] - resampled[1] == pytest.approx(width, rel=0.05)
    _, low, high = mean_interval((1 - limit[0]) * before - after)
    assert (high - low) / before.mean() == pytest.approx(width, rel=0.05)


@pytest.mark.parametrize(
    ("images", "methods", "schedules", "promised", "said"),
    [
        (1, RULES, ("linear", "riemannopt"), 1, "1 image. Savings and their intervals need 10."),
        (12, RULES, ("linear", "riemannopt"), 40, "12 images of 40: the run is not finished."),
        (12, {"ig": "right"}, ("linear", "riemannopt"), 12, "Blur IG is not in this run"),
        (
            12,
            {"ig": "right"},
            ("linear", "riemannopt"),
            12,
            "by the rule right here; the authors' is released",
        ),
        (12, {"ig": "midpoint"}, ("linear",), 12, "IG is not in this run, or not under released or right"),
        (12, RULES, ("riemannopt",), 12, "Blur IG is not in this run under the rule right, so that nothing"),
        (12, RULES, ("linear",), 12, "Guided IG + RiemannOpt is not in this run under the rule left"),
        (12, RULES, ("exact",), 12, "Guided IG is not in this run"),
    ],
)
def test_what_a_run_lacks_is_said(
    images: int, methods: dict[str, str], schedules: tuple[str, ...], promised: int, said: str
) -> None:
    table = table_one(run_of(images, methods, schedules), "small", promised)
    assert said in markdown(table)
    for text in (markdown(table), latex(table)):
        assert "nan" not in text
    assert comma_separated(table).count("\n") == 1 + len(table.entries)
    assert all(entry.paper is None for entry in table.entries)


def test_the_rule_is_one_that_both_placements_have() -> None:
    """Linear alone is under the authors' rule, both are under another: that one is compared."""
    both = run_of(12, {"ig": "right"}, ("linear", "riemannopt"))
    results = pa.concat_tables([run_of(12, {"ig": "released"}, ("linear",)), both])
    assert {entry.rule for entry in table_one(results, "small", 12).entries} == {"right"}


def test_a_run_without_relative_errors_says_so() -> None:
    table = table_one(pa.table({"image_id": ["a"], "path": ["ig"]}), "a_model & more", 1)
    assert "The run has no relative errors" in markdown(table)
    assert r"a\_model \& more" in latex(table)

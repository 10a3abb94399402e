"""The summary table, by a case computed by hand."""

import math
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.reports.gaps import gauged, gauged_summary
from riemannopt_dist.reports.summary import summarize, summary_files
from riemannopt_dist.run.results import read_results, write_files
from riemannopt_dist.run.schemas import results_schema
from riemannopt_dist.storage.base import Storage


def _row(image: str, samples: int, delta: float, change: float) -> dict[str, object]:
    cell = {"image_id": image, "path": "ig", "placement": "linear", "estimator": "left", "samples": samples}
    return cell | {
        "label": None,
        "target": 1,
        "f_input": change,
        "f_baseline": 0.0,
        "gradient_evaluations": samples,
        "seconds": 2.0,
        "attribution_sum": change + delta,
        "output_change": change,
        "completeness_delta": delta,
        "relative_error": abs(delta) / change if change else math.nan,
    }


# Relative errors 0.5, 0 and 1.0; the fourth image's output does not change along the path.
ROWS = [
    _row("a", 4, -0.5, 1.0),
    _row("b", 4, 0.0, 0.25),
    _row("c", 4, 0.5, 0.5),
    _row("d", 4, 0.1, 0.0),
    _row("a", 8, 0.0, 1.0),
]
SCHEMA = results_schema([COMPLETENESS])


def test_summary_of_a_hand_computed_case() -> None:
    four, eight = summarize(pa.Table.from_pylist(ROWS, SCHEMA)).itertuples()
    assert (four.samples, eight.samples) == (4, 8)
    assert (four.images, eight.images) == (4, 1)
    assert four.relative_error_mean == pytest.approx(0.5)
    assert four.relative_error_median == pytest.approx(0.5)
    assert four.ratio_of_sums == pytest.approx((0.5 + 0 + 0.5 + 0.1) / (1 + 0.25 + 0.5))
    assert (four.relative_error_mean_left_out, eight.relative_error_mean_left_out) == (1, 0)
    assert four.seconds == 2.0
    assert four.gradient_evaluations == 4


def test_what_is_no_gap_is_not_printed_among_gaps() -> None:
    """A map that is complete by construction has none: it would be the best of all."""
    rows = [*ROWS, *({**row, "estimator": "rescale", "completeness_delta": 0.0} for row in ROWS)]
    results = pa.Table.from_pylist(rows, SCHEMA)
    summary = summarize(results)
    assert summary["ratio_of_sums"].notna().all()
    printed = gauged_summary(summary, results)
    gaps = ["relative_error_mean", "relative_error_median", "ratio_of_sums"]
    rescale = summary["estimator"] == "rescale"
    assert printed.loc[rescale, gaps].isna().all(axis=None)
    pd.testing.assert_frame_equal(printed[~rescale], summary[~rescale])
    assert summarize(gauged(results)).loc[rescale, gaps].isna().all(axis=None)


def test_summary_is_written_and_read_from_a_run_directory(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with pytest.raises(ValueError, match="no results"):
        read_results(storage)
    storage.write_table("results/shard-00000.parquet", pa.Table.from_pylist(ROWS[:2], SCHEMA))
    storage.write_table("results/shard-00001.parquet", pa.Table.from_pylist(ROWS[2:], SCHEMA))
    summary = summarize(read_results(storage))
    names = write_files(storage, summary_files(summary))
    pd.testing.assert_frame_equal(storage.read_table(names[0]).to_pandas(), summary)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / names[1]), summary)

"""The images that a cell serves worst."""

import csv
import io

import numpy as np
import pandas as pd
import pyarrow as pa

from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.formats import FORMATS
from riemannopt_dist.run.schemas import results_schema

COUNT = 25


def run_of(names: list[str], errors: dict[int, list[float]]) -> RunData:
    rows = [
        {"image_id": name, "target": 1, "path": "ig", "placement": "linear", "estimator": "left"}
        | {"samples": samples, "relative_error": error}
        for samples, values in errors.items()
        for name, error in zip(names, values, strict=True)
    ]
    empty = {name: None for name in results_schema([COMPLETENESS]).names}
    table = pa.Table.from_pylist([empty | row for row in rows], schema=_nullable())
    return RunData(table, pd.DataFrame(), "tiny", COUNT, {}, {})


def _nullable() -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in results_schema([COMPLETENESS])])


def read(files: dict[str, bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files["report/worst.csv"].decode())))


def test_the_ten_worst_of_each_cell_come_first_with_their_share() -> None:
    names = [f"image {number:02}" for number in range(COUNT)]
    random = np.random.default_rng(1)
    errors = {count: list(random.permutation(np.arange(1.0, COUNT + 1))) for count in (16, 32)}
    errors[16][3] = float("nan")
    rows = read(FORMATS["worst"](run_of(names, errors)))
    for count, values in errors.items():
        ranked = sorted((-v, n) for v, n in zip(values, names, strict=True) if not np.isnan(v))[:10]
        cell = [row for row in rows if row["samples"] == str(count)]
        assert [(-float(row["relative_error"]), row["image_id"]) for row in cell] == ranked
        assert [row["rank"] for row in cell] == [str(rank) for rank in range(1, 11)]
        total = np.nansum(values)
        assert np.allclose([float(row["share"]) for row in cell], [-value / total for value, _ in ranked])


def test_a_name_is_no_formula_and_a_run_without_errors_has_a_table_of_no_rows() -> None:
    rows = read(FORMATS["worst"](run_of(["=1+1", "b"], {16: [2.0, 0.0]})))
    assert [(row["image_id"], row["share"]) for row in rows] == [("'=1+1", "1.0"), ("b", "0.0")]
    assert read(FORMATS["worst"](run_of(["a"], {16: [float("nan")]}))) == []
    bare = run_of(["a"], {16: [1.0]})
    without = RunData(bare.results.drop_columns("relative_error"), bare.summary, "tiny", 1, {}, {})
    assert FORMATS["worst"](without) == {}

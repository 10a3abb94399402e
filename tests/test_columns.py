"""The page on columns is that of the schemas, and says something of each."""

import json
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest

from riemannopt_dist.choices import CELL as PLACE
from riemannopt_dist.columns import TABLES, columns_page
from riemannopt_dist.metrics.metric import summaries_of
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.reports.efficiency import (
    EFFICIENCY_COLUMNS,
    TOLERANCE_COLUMNS,
    sample_efficiency,
    tolerances,
)
from riemannopt_dist.reports.summary import SUMMARY_COLUMNS, meaning_of
from riemannopt_dist.reports.table_one import ENTRY_COLUMNS, Entry
from riemannopt_dist.reports.worst_images import WORST_COLUMNS, worst_images
from riemannopt_dist.run.schemas import RESULT, results_schema
from tests.reports.small_run import data_of, make_run

OTHER_CURVES = {
    "road_curve": [n / 10 for n in range(10)],
    "sensitivity_n_by_share": [0.01, 0.03, 0.1, 0.3, 0.8],
}
RESULTS = results_schema([METRICS[name] for name in METRICS])


def test_the_page_is_not_stale() -> None:
    """`python -m riemannopt_dist.columns > docs/columns.md` makes it anew."""
    assert Path("docs/columns.md").read_text(encoding="utf-8") == columns_page()


@pytest.mark.parametrize("schema", [RESULTS, *(schema for _, schema in TABLES.values())])
def test_every_column_says_what_it_is(schema: list[object]) -> None:
    for field in schema:
        meaning = field.metadata[b"description"].decode()  # type: ignore[attr-defined]
        assert not meaning.startswith("metric ")


def test_the_numbers_of_a_run_are_told_of_column_by_column(tmp_path: Path) -> None:
    """Each table has the columns that its declaration names, beside those of a cell, and no others."""
    data = data_of(make_run(tmp_path, maps=None))
    summed = [one.name for one in summaries_of(data.results)]
    left_out = [name for name in data.summary if str(name).endswith("_left_out")]
    assert {*data.summary} - {*PLACE} == {*SUMMARY_COLUMNS, *summed, *left_out}
    assert {*sample_efficiency(data.results)} - {*PLACE} == {*EFFICIENCY_COLUMNS}
    assert {*worst_images(data, "reference_error")} - {*PLACE} == {*WORST_COLUMNS}
    assert {*ENTRY_COLUMNS} == {field.name for field in fields(Entry)}
    place = data.results.schema.get_field_index("tolerance")
    within = pa.array([0.1 if one == "exact" else None for one in data.results["placement"].to_pylist()])
    assert [*tolerances(data.results.set_column(place, "tolerance", within))] == [*TOLERANCE_COLUMNS]
    page = columns_page()
    assert all(f"| `{name}` |" in page for name in (*summed, "at_maximum", "within", "samples_left"))
    assert meaning_of(METRICS["information"].summaries[0]).startswith("area under the pointwise median")


def test_curves_have_their_x_values_with_them() -> None:
    curves = [field for field in RESULTS if str(field.type).startswith("list")]
    assert len(curves) == 3 + 3 * 4 + 2
    for field in curves:
        x = (field.metadata.get(b"x") or b"").decode()
        if field.name.startswith("information"):
            assert x == ""  # it is those of others
        elif field.name.endswith("_y"):
            assert x in RESULTS.names
        elif field.name in OTHER_CURVES:
            assert json.loads(x) == pytest.approx(OTHER_CURVES[field.name])
        else:
            assert json.loads(x) == pytest.approx([n / 20 for n in range(21)])
    assert len(RESULTS) > len(RESULT)

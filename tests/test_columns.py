"""The page on columns is that of the schemas, and says something of each."""

import json
from pathlib import Path

import pytest

from riemannopt_dist.columns import TABLES, columns_page
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.run.schemas import RESULT, results_schema

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

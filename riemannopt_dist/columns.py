"""docs/columns.md: what every column of a run's tables is, from their schemas.

python -m riemannopt_dist.columns > docs/columns.md
"""

import json
import sys
from collections.abc import Iterator

import pyarrow as pa

from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.reports.efficiency import EFFICIENCY_COLUMNS, TOLERANCE_COLUMNS
from riemannopt_dist.reports.statistics import COMPARISON_COLUMNS
from riemannopt_dist.reports.summary import SUMMARY_COLUMNS, meaning_of
from riemannopt_dist.reports.table_one import ENTRY_COLUMNS
from riemannopt_dist.reports.worst_images import WORST_COLUMNS
from riemannopt_dist.run import schemas
from riemannopt_dist.run.maps import MAPS

TABLES = {
    "images.parquet": ("A row for every input.", pa.schema([*schemas.IMAGES, *schemas.OPTIONAL])),
    "listing.parquet": ("What the image source held when the run began.", schemas.LISTING),
    "maps/\\<cell\\>/\\*.parquet": ("A row for each image. The file's metadata say how to read it.", MAPS),
    "failures.parquet": ("A row for each image given up on in a stage.", schemas.FAILURES),
    "fit/\\*.parquet, refine/\\*.parquet": ("A row for each image and path.", schemas.VARIATIONS),
    "probes.parquet": ("What the model gave when the run began.", schemas.PROBES),
    "audit.parquet, .csv": ("A row for each map that `riemannopt audit` looks at.", schemas.AUDIT),
}
"""The tables but for the results: what a row is, and the schema."""

OF_CELL = "A row for each cell of the grid; beside the cell's columns:"
LEFT_OUT = "images that the summary before leaves out, for which it is not defined; there where any are"
CSV = {
    "comparisons.csv, controls.csv": (
        "A row for each pair of cells and score; beside the cell's columns:",
        COMPARISON_COLUMNS,
    ),
    "efficiency.csv": (OF_CELL, EFFICIENCY_COLUMNS),
    "tolerances.csv": ("A row for each cell with a tolerance:", TOLERANCE_COLUMNS),
    "report/worst.csv": (
        "A row for each cell and each of its worst images; beside the cell's columns:",
        WORST_COLUMNS,
    ),
    "report/table1.csv": ("A row for each number of the table:", ENTRY_COLUMNS),
}
"""The tables of numbers that follow from results: what a row is, and what their columns are."""

HEAD = """# Columns

Made by `python -m riemannopt_dist.columns` from the schemas that runs are written with. Each Parquet file
carries the same in its columns' metadata: `description`, `unit`, `direction` and, of curves, `x`. f is the
explained output, x the image and x′ the path's start.

images.parquet has the names of classes beside their indices (`label_name`, `prediction_name`) where the
model's are known, and results are joined to it by `image_id`. `open_run(…)` adds them to results as well
(`label_name`, `target_name`), and to images their `use`: evaluated, to come, fit, misclassified, not
selected, unreadable, given up on or not drawn.

## results/\\*.parquet

A row for each image and cell of the grid. Every run has these:
"""


def columns_page() -> str:
    """The page."""
    lines = [HEAD, *_table(pa.schema(schemas.RESULT))]
    for name in METRICS:
        own = schemas.results_schema([METRICS[name]]).names[len(schemas.RESULT) :]
        fields = [schemas.results_schema([METRICS[name]]).field(column) for column in own]
        lines += ["", f"With the metric `{name}`:", "", *_table(pa.schema(fields))]
    for title, (row, schema) in TABLES.items():
        lines += ["", f"## {title}", "", row, "", *_table(schema)]
    of_metrics = {one.name: meaning_of(one) for name in METRICS for one in METRICS[name].summaries}
    summed = {**SUMMARY_COLUMNS, **of_metrics, "…_left_out": LEFT_OUT}
    for title, (row, meanings) in {"summary.parquet, .csv": (OF_CELL, summed), **CSV}.items():
        lines += ["", f"## {title}", "", row, "", "| column | what it is |", "|---|---|"]
        lines += [f"| `{name}` | {_escaped(meaning)} |" for name, meaning in meanings.items()]
    return "\n".join(lines) + "\n"


def _table(schema: pa.Schema) -> Iterator[str]:
    """The rows of a table of a schema's columns."""
    yield "| column | type | unit | what it is |"
    yield "|---|---|---|---|"
    for field in schema:
        about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        meaning = [about["description"]]
        meaning += [about["direction"]] if "direction" in about else []
        meaning += [f"x: {_shown(about['x'])}"] if "x" in about else []
        text = _escaped("; ".join(meaning))
        yield f"| `{field.name}` | {field.type} | {about.get('unit', '')} | {text} |"


def _escaped(text: str) -> str:
    """What stands in a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _shown(x: str) -> str:
    """The x-values of a curve, or the column that has them."""
    if not x.startswith("["):
        return f"`{x}`"
    first, second, *_, last = json.loads(x)
    return f"{first:g}, {second:g}, …, {last:g}"


if __name__ == "__main__":
    sys.stdout.write(columns_page())

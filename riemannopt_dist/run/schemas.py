"""The tables of a run: their columns, with each column's unit, direction and meaning as field metadata."""

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict

import pyarrow as pa

from riemannopt_dist.metrics.metric import AGAINST_CONTROLS, SUMMARIES, WITHOUT_GAP, Column, Metric


def field(
    name: str,
    kind: pa.DataType,
    meaning: str,
    unit: str = "",
    direction: str = "",
    nullable: bool = False,
    x: str = "",
) -> pa.Field:
    """A column with what it is in its metadata."""
    metadata = {"description": meaning, "unit": unit, "direction": direction, "x": x}
    return pa.field(name, kind, nullable, {key: value for key, value in metadata.items() if value})


DIGEST = "BLAKE2b of the image's own bytes as they are stored, 128 bits in hexadecimal digits"

_PLACE = [
    field("uri", pa.string(), "where the image lies: its file, or the tar or Parquet file it is a part of"),
    field("offset", pa.int64(), "where the image begins in a tar, or its row in Parquet", nullable=True),
    field("size", pa.int64(), "bytes of the image, where its listing tells them", "B", nullable=True),
    field("group", pa.int32(), "in Parquet the row group that its row is in", nullable=True),
]
_IN_FIT = field("in_fit", pa.bool_(), "drawn into the subset that schedules are fitted on")
_DRAW = field(
    "draw",
    pa.int32(),
    "0; 1, 2, … of images that were out of reach at first: drawn after all others",
    nullable=True,
)

SELECTION = pa.schema(
    [
        field("image_id", pa.string(), "path below the image source, unique in a run"),
        *_PLACE,
        field("label", pa.int32(), "class index; null where the source has no labels", nullable=True),
        field("prediction", pa.int32(), "class index of the highest logit", nullable=True),
        field("probability", pa.float32(), "softmax probability of the prediction", "1", nullable=True),
        field(
            "selected",
            pa.bool_(),
            "readable, and used by its label and what the model sees (select, min_probability)",
        ),
        field("digest", pa.string(), DIGEST, nullable=True),
        field("error", pa.string(), "why the image could not be used", nullable=True),
    ]
)
IMAGES = SELECTION.append(_IN_FIT).append(_DRAW)
RUNNER_UP = field(
    "runner_up",
    pa.int32(),
    "class index of the second highest logit; with targets: runner_up alone",
    nullable=True,
)
LIKELIEST = field(
    "likeliest",
    pa.int32(),
    "class index of the highest logit of those that targets lists; with a list alone",
    nullable=True,
)
OPTIONAL = (RUNNER_UP, LIKELIEST)
"""What images.parquet has besides where the targets ask for it."""

LISTING = pa.schema(
    [
        SELECTION.field("image_id"),
        *_PLACE,
        SELECTION.field("label"),
        field("reason", pa.string(), "why the image cannot be used, where its listing tells", nullable=True),
    ]
)

VARIATIONS = pa.schema(
    [
        field("image_id", pa.string(), "the image's id in images.parquet"),
        field("path", pa.string(), "the path that is sampled"),
        field("alphas", pa.list_(pa.float64()), "positions sampled on the path", "1"),
        field(
            "variation",
            pa.list_(pa.float64()),
            "|Δg / Δα| between them, the mean over features, with g the integrand of the attribution",
            "f",
        ),
    ]
)

RESULT = [
    field("image_id", pa.string(), "the image's id in images.parquet"),
    field("label", pa.int32(), "class index; null where the source has no labels", nullable=True),
    field("target", pa.int32(), "class index whose output is explained"),
    field("path", pa.string(), "the path from a baseline to the image; none of a control"),
    field("estimator", pa.string(), "how the integral is estimated from the samples; a control's name"),
    field("placement", pa.string(), "where the samples are; none of a control"),
    field(
        "samples",
        pa.int32(),
        "samples asked for: points, or intervals of rescale; with a tolerance the most that an image takes. "
        "Of several draws of a baseline those of each, but of expected_gradients all",
        "evaluations",
    ),
    field(
        "tolerance",
        pa.float64(),
        "error, as the image's own samples let it be estimated, at which it has samples enough; null for a "
        "count",
        "1",
        nullable=True,
    ),
    field("f_input", pa.float32(), "explained output at the image", "f"),
    field(
        "f_baseline",
        pa.float32(),
        "explained output at the path's start, of several draws of a baseline the mean; NaN for a control",
        "f",
    ),
    field(
        "gradient_evaluations",
        pa.int32(),
        "gradients that this map alone costs, over all draws of a baseline; of rescale its intervals, for n "
        "of which n + 1 samples go through the model and back",
        "evaluations",
    ),
    field("seconds", pa.float64(), "time that this map's gradients take, from the time of its batch", "s"),
]
"""The columns of result rows before those of the metrics."""

_KINDS = {"number": pa.float64(), "list": pa.list_(pa.float32()), "text": pa.string()}


def results_schema(metrics: Iterable[Metric], without_gap: Collection[str] | None = None) -> pa.Schema:
    """The columns of result rows with these metrics.

    How images are to be summed up goes along as metadata, so that the files can be read by themselves; so do
    the estimators `without_gap`, whose completeness gap is no measure, where they are given. Each column has
    its description, unit and direction, and of a curve `x`: its x-values as a JSON list, or the column that
    has them.
    """
    chosen = list(metrics)
    columns = [
        field(
            column.name,
            _KINDS[column.kind],
            (column.meaning or f"metric {metric.name}")
            + (f"; NaN {column.undefined}" if column.undefined else ""),
            column.unit,
            f"{column.direction} is better" if column.direction else "",
            nullable=True,
            x=_x_of(column),
        )
        for metric in chosen
        for column in metric.columns
    ]
    summaries = [asdict(summary) for metric in chosen for summary in metric.summaries]
    judged = [metric.against_controls for metric in chosen if metric.against_controls]
    told = {SUMMARIES: json.dumps(summaries), AGAINST_CONTROLS: json.dumps(judged)}
    told |= {} if without_gap is None else {WITHOUT_GAP: json.dumps(sorted(without_gap))}
    return pa.schema([*RESULT, *columns], told)


def _x_of(column: Column) -> str:
    """The column of a curve's x-values, or these as JSON; nothing for what is no curve."""
    return column.x if isinstance(column.x, str) else json.dumps(column.x) if column.x else ""


PROBES = pa.schema(
    [
        field("image_id", pa.string(), "the image's id in images.parquet"),
        field("digest", pa.string(), DIGEST),
        field("logits", pa.list_(pa.float64()), "the model's logits of it"),
    ]
)

FAILURES = pa.schema(
    [
        field("stage", pa.string(), "selection, fit, refine or results"),
        field("image_id", pa.string(), "the image given up on"),
        field("reason", pa.string(), "why"),
        field("attempts", pa.int32(), "how often it was tried"),
    ]
)

AUDIT = pa.schema(
    [
        field("maps", pa.string(), "the file or folder of the map, below the one that is audited"),
        field("image_id", pa.string(), "path below the image source"),
        field("target", pa.int32(), "class index whose output the map explains"),
        field("summed", pa.bool_(), "the map is summed over channels, and compared so"),
        field(
            "reference_error",
            pa.float64(),
            "L1 distance from the converged map of the path; NaN where that is zero",
            "share of the converged map's L1 norm",
            "lower is better",
        ),
        field(
            "reference_residual",
            pa.float64(),
            "that of the converged map from the one with half of its intervals",
            "share of the converged map's L1 norm",
        ),
        field("completeness_delta", pa.float64(), "the map's sum less the change of f along the path", "f"),
        field(
            "relative_error",
            pa.float64(),
            "its size as a share of the change; NaN where f does not change",
            "1",
            "lower is better",
        ),
        *(
            field(
                f"samples_{rule}",
                pa.int32(),
                f"gradients on equal intervals, with the rule {rule}, whose sum is off by no more: the least "
                "number tried; null where more are needed",
                "evaluations",
                nullable=True,
            )
            for rule in ("left", "midpoint", "trapezoid")
        ),
    ]
)

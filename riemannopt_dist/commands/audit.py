"""`riemannopt audit`: the true error of maps from any tool."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from riemannopt_dist.choices import OUTPUTS, Output, check_choice
from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import check_file, errors, say
from riemannopt_dist.commands.options import (
    MODEL,
    ModelOfOption,
    ModelOption,
    WeightsOption,
    chosen_classifier,
)
from riemannopt_dist.paths.baselines import BASELINES

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".parquet", ".csv")

TheirImages = Annotated[
    str,
    typer.Option(
        envvar="RIEMANNOPT_IMAGES",
        help='Their images: a folder, .parquet or .tar files (local, s3://, gs://), or "demo:".',
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        help=f"Of ig: {', '.join(BASELINES)}, a grey in [0, 1], red, green and blue (0.485,0.456,0.406), a "
        "picture, or package.module:name."
    ),
]
ExplainOption = Annotated[
    str, typer.Option(help="What the maps explain of the class: its probability, or its logit.")
]


@app.command()
def audit(
    context: typer.Context,
    maps: Annotated[str, typer.Argument(help="Maps: .npy, .parquet or .h5, a folder of them, or Zarr.")],
    images: TheirImages,
    model: ModelOption = MODEL,
    weights: WeightsOption = None,
    config: ModelOfOption = None,
    path: Annotated[str, typer.Option(help="The path that the maps integrate along: ig or blur_ig.")] = "ig",
    baseline: BaselineOption = None,
    explain: ExplainOption = "probability",
    intervals: Annotated[
        int, typer.Option(min=2, help="Those of the converged maps, an even number.")
    ] = 1024,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .parquet or .csv to write, a row a map.")
    ] = Path("audit.parquet"),
) -> None:
    """Tell how far maps from any tool are from the converged map of their path, and what that is worth.

    Of each map: its true error, the gap to completeness, and the samples on equal intervals that it takes to
    be as near, by the left, the midpoint and the trapezoid rule.

    A .npy holds one map and bears its image's name, or many, with NAME.txt (an image id a line) or NAME.json
    beside it. Parquet has columns image_id and map, HDF5 ViRelAy's layout. Maps are those of the model's
    input, (C, H, W), or (H, W) summed over channels.
    """
    with errors(context):
        kind = check_file(output, TABLES)
        check_choice(explain, OUTPUTS, "explain")
        from riemannopt_dist.paths.table import path_family

        family = path_family(path, {} if baseline is None else {"baseline": colour(baseline)})
        if not Path(maps).exists():
            raise ValueError(f"maps: there is no {maps}")
        import torch

        from riemannopt_dist.audit.files import Comparison, audit_files
        from riemannopt_dist.reports.audit_table import audit_lines

        what = cast(Output, explain)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        classifier = chosen_classifier(model, weights, config, what).to(device)
        comparison = Comparison(classifier, family, what, intervals)
        table = audit_files(maps, images, comparison)
        output.write_bytes(written(table, kind))
        for line in audit_lines(table):
            say(line)
        say(f"wrote {output}")


def colour(text: str) -> str | list[float]:
    """A colour's name, or its numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return text


def written(table: "pa.Table", kind: str) -> bytes:
    """The table as a file of a format."""
    from riemannopt_dist.reports.summary import csv_of
    from riemannopt_dist.storage.seal import sealed

    return csv_of(table.to_pandas()).encode() if kind == "csv" else bytes(sealed(table))

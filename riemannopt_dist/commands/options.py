"""Options and arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="A YAML file; see jobs/configs/.")]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        envvar="RIEMANNOPT_IMAGES",
        help="Images: a folder, .parquet or .tar files (local, s3://, gs://), such files at https:// "
        'addresses (no folders there), or "demo:". Overrides the config.',
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        envvar="RIEMANNOPT_LABELS",
        help="LOC_val_solution.csv or ILSVRC2012_validation_ground_truth.txt. Overrides the config.",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        envvar="RIEMANNOPT_OUTPUT",
        help="The run directory (local, s3://, gs://). Overrides the config.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(help="Evaluate at most so many images. Overrides the config.")
]
RunArgument = Annotated[str, typer.Argument(help="A run directory: local, s3:// or gs://.")]

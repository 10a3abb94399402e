"""Options and arguments that several commands take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from riemannopt_dist.choices import Output
    from riemannopt_dist.models.classifier import Classifier

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="A YAML file; see jobs/configs/.")]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        envvar="RIEMANNOPT_IMAGES",
        help="Images: a folder, .parquet or .tar files, a .csv of addresses (local, s3://, gs://), such at "
        'https:// addresses (no folders there), or "demo:". Overrides the config.',
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
ModelOption = Annotated[str, typer.Option(help="A classifier that load_model knows.")]
MODEL = "efficientnet_lite0"
WeightsOption = Annotated[str | None, typer.Option(help="Names of published weights, or a local file.")]
OnePathOption = Annotated[
    str, typer.Option(help='A path of a configuration, such as blur_ig or "ig(baseline=noise, draws=8)".')
]
ModelOfOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="A configuration, whose model is taken instead of --model and --weights."
    ),
]
RunArgument = Annotated[
    str, typer.Argument(envvar="RIEMANNOPT_OUTPUT", help="A run directory: local, s3:// or gs://.")
]
PathOption = Annotated[
    list[str] | None,
    typer.Option("--path", help="Only cells of this path, as tables call it; several may be given."),
]
EstimatorOption = Annotated[list[str] | None, typer.Option("--estimator", help="Only of this estimator.")]
PlacementOption = Annotated[list[str] | None, typer.Option("--placement", help="Only of this placement.")]
SamplesOption = Annotated[list[int] | None, typer.Option("--samples", help="Only of this number of samples.")]
ToleranceOption = Annotated[list[float] | None, typer.Option("--tolerance", help="Only of this tolerance.")]


def chosen_classifier(
    model: str, weights: str | None, config: Path | None, output: "Output" = "probability"
) -> "Classifier":
    """The classifier that options name, by itself or in a configuration.

    Raises ValueError for both, and as `checked_classifier` does.
    """
    from riemannopt_dist.run.classifier import checked_classifier
    from riemannopt_dist.run.config.loading import load_config

    if config is None:
        return checked_classifier(model, weights, output)
    if model != MODEL or weights is not None:
        raise ValueError("config: expected no --model and --weights beside it")
    told = load_config(str(config)).model
    classifier = checked_classifier(told.name, told.weights, output, **told.settings)
    if (names := told.class_names()) is not None:
        classifier.network.class_names = names  # type: ignore[assignment]
    return classifier


def chosen_cells(
    path: list[str] | None,
    estimator: list[str] | None,
    placement: list[str] | None,
    samples: list[int] | None,
    tolerance: list[float] | None,
) -> dict[str, list[Any]]:
    """The choices of cells that were made, as a run's reader takes them."""
    choices = {
        "path": path,
        "estimator": estimator,
        "placement": placement,
        "samples": samples,
        "tolerance": tolerance,
    }
    return {name: [*values] for name, values in choices.items() if values}

"""`riemannopt explain`: the attribution maps of single images, as pictures or numbers."""

from pathlib import Path
from typing import Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import EXPLANATIONS, check_file, errors, say
from riemannopt_dist.commands.options import (
    MODEL,
    ModelOfOption,
    ModelOption,
    OnePathOption,
    WeightsOption,
    chosen_classifier,
)

EXPLANATION = Path("explanation.png")
FOLDER = Path("explanations")


ImagesArgument = Annotated[list[str], typer.Argument(help="Image files, or folders of them.")]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The file to write, whose name tells the format: .png, .jpg, .svg, .pdf, .npy or .html; of "
        f"several images the folder. {EXPLANATION} or {FOLDER} if not given.",
    ),
]
FormatOption = Annotated[str, typer.Option("--format", help="What several images are written as.")]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        help='The class to explain, "tabby" or 281; of several, given one by one, the likeliest in each '
        "image; the predicted one if not given."
    ),
]
EstimatorOption = Annotated[
    str, typer.Option(help="An estimator of a configuration, such as trapezoid or rescale.")
]
PlacementOption = Annotated[
    str | None,
    typer.Option(
        help="Where the samples are, such as linear, riemannopt or adaptive. With a profile and no "
        "placement it is the one that suits the estimator, for most of them exact."
    ),
]
SamplesOption = Annotated[
    int, typer.Option(min=1, help="Gradient evaluations; with the estimator rescale, intervals.")
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(help="Stop at this estimated error; goes with adaptive and softmax_trapezoid."),
]
ProfileOption = Annotated[
    Path | None, typer.Option(help="A profile from `riemannopt fit`. Equal intervals without.")
]
ConvergedOption = Annotated[
    int | None,
    typer.Option(min=2, help="Also the converged map, of so many intervals, and what is off."),
]


@app.command()
def explain(
    context: typer.Context,
    images: ImagesArgument,
    output: FileOption = None,
    kind: FormatOption = "png",
    model: ModelOption = MODEL,
    weights: WeightsOption = None,
    config: ModelOfOption = None,
    target: TargetOption = None,
    path: OnePathOption = "ig",
    estimator: EstimatorOption = "trapezoid",
    placement: PlacementOption = None,
    samples: SamplesOption = 64,
    tolerance: ToleranceOption = None,
    profile: ProfileOption = None,
    converged: ConvergedOption = None,
) -> None:
    """Explain images by Integrated Gradients or another path: the map over the photo, or its numbers.

    The five likeliest classes are printed with each. Of several images one is in memory at a time.
    """
    with errors(context):
        several = len(images) > 1 or Path(images[0]).is_dir() or images[0] == "demo:"
        place = output or (FOLDER if several else EXPLANATION)
        kind = _folder(place, kind) if several else check_file(place, EXPLANATIONS)
        from riemannopt_dist.local import Choice, explain
        from riemannopt_dist.quadrature.profile import Profile
        from riemannopt_dist.reports.explanation import KINDS

        fitted = Profile.from_json(profile.read_text(encoding="utf-8")) if profile else None
        choice = Choice(path, estimator, placement, samples, tolerance, fitted, converged)
        for explanation in explain(chosen_classifier(model, weights, config), images, target or (), choice):
            file = place / f"{explanation.image_id}.{kind}" if several else place
            if several:
                file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(KINDS[kind](explanation))
            say(f"{explanation.image_id}: {explanation.sentence}")
            say("  " + ", ".join(f"{name} {share:.3f}" for name, share in explanation.top))
            say(f"wrote {file}")


def _folder(place: Path, kind: str) -> str:
    """The format of several files in a folder. Raises ValueError for another, and for a file in its place."""
    if f".{kind}" not in EXPLANATIONS:
        known = ", ".join(end.removeprefix(".") for end in EXPLANATIONS)
        raise ValueError(f"format: expected one of {known}, got {kind!r}")
    if place.is_file() or place.suffix.lower() in EXPLANATIONS:
        raise ValueError(f"output: several images need a folder, got {place}")
    return kind

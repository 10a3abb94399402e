"""`riemannopt fit`: the profile of a path, without Ray."""

from pathlib import Path
from typing import Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import PROFILES, check_file, errors, say
from riemannopt_dist.commands.options import (
    MODEL,
    ModelOfOption,
    ModelOption,
    OnePathOption,
    WeightsOption,
    chosen_classifier,
)


@app.command()
def fit(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON file to write.")],
    images: Annotated[
        str,
        typer.Option(envvar="RIEMANNOPT_IMAGES", help='A folder, .parquet or .tar files, or "demo:".'),
    ],
    model: ModelOption = MODEL,
    weights: WeightsOption = None,
    config: ModelOfOption = None,
    count: Annotated[int, typer.Option(min=1, help="Images to fit on; the first so many by name.")] = 200,
    samples: Annotated[int, typer.Option(min=2, help="Points along each image's path.")] = 128,
    path: OnePathOption = "ig",
) -> None:
    """Estimate the profile |g'| of Integrated Gradients, or another path, and store it as JSON.

    Every schedule follows from it: ro.optimize_schedule(ro.Profile.from_json(text), samples=16).
    """
    with errors(context):
        check_file(output, PROFILES)
        from riemannopt_dist.local import fit_profile

        profile = fit_profile(chosen_classifier(model, weights, config), images, count, samples, path)
        output.write_text(profile.to_json(), encoding="utf-8")
        say(f"wrote {output}: |g'| from {profile.images} images")

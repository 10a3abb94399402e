"""`riemannopt explain`: one image, without Ray."""

from pathlib import Path
from typing import Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import PICTURES, check_file, errors, say


@app.command()
def explain(
    image: Annotated[str, typer.Argument(help="An image file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .png, .jpg, .svg or .pdf to write.")
    ] = Path("explanation.png"),
    model: Annotated[str, typer.Option(help="A classifier that load_model knows.")] = "efficientnet_lite0",
    weights: Annotated[str | None, typer.Option(help="Names of published weights, or a local file.")] = None,
    target: Annotated[
        int | None, typer.Option(min=0, help="The class to explain; the predicted one if not given.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=2, help="Gradient evaluations; with the estimator rescale, intervals.")
    ] = 64,
    estimator: Annotated[
        str, typer.Option(help="An estimator of a configuration, such as trapezoid or rescale.")
    ] = "trapezoid",
    profile: Annotated[
        Path | None,
        typer.Option(
            help="A profile from `riemannopt fit`, to place the samples by: by roughness for rescale, "
            "equidistribution for gauss_legendre, and exact for others. Equal intervals without."
        ),
    ] = None,
) -> None:
    """Explain one image by Integrated Gradients: its map beside it, as a picture."""
    with errors():
        kind = check_file(output, PICTURES)
        text = profile.read_text(encoding="utf-8") if profile else None
        from riemannopt_dist.local import explain_image

        picture, sentence = explain_image(image, model, weights, target, samples, estimator, text, kind)
        output.write_bytes(picture)
        say(sentence)
        say(f"wrote {output}")

"""`riemannopt demo`: the whole system on a few photos."""

from typing import TYPE_CHECKING, Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, say
from riemannopt_dist.commands.evaluate import run_config

if TYPE_CHECKING:
    from riemannopt_dist.run.directory import RunDirectory


@app.command()
def demo(
    context: typer.Context,
    output: Annotated[str, typer.Option("--output", "-o", help="The run directory.")] = "demo-run",
    fit: Annotated[
        bool,
        typer.Option("--fit", help="Fit on four of the photos, not with the profiles that come along."),
    ] = False,
) -> None:
    """Evaluate photos, print a table and draw maps, in some three minutes on two cores. Needs no network.

    EfficientNet-Lite0 (ImageNet weights), all methods, 16 evaluations a map: equal points, RiemannOpt's
    points, and our best, each against the converged map. Profiles were fitted on ImageNet photos.
    """
    from riemannopt_dist.demo.demo import demo_config, demo_table, draw_maps
    from riemannopt_dist.run.results import read_results
    from riemannopt_dist.text import table_lines

    def finish(directory: "RunDirectory") -> None:
        pictures = draw_maps(directory)
        say("Error: the distance from the converged map, as a share of its L1 norm.")
        for line in table_lines(demo_table(read_results(directory.storage)), left=2):
            say(line)
        say("Equal points as good, and photos whose map is nearer than that of 16 equal points. Small")
        say("numbers of photos say little: the README has what to expect on ImageNet.")
        for name in pictures:
            say(f"wrote {directory.storage.uri(name)}")

    with errors(context):
        run_config(demo_config(output, fit), finish)

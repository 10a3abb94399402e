"""`riemannopt score`: metrics of stored maps."""

from typing import Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, say
from riemannopt_dist.commands.options import (
    EstimatorOption,
    PathOption,
    PlacementOption,
    RunArgument,
    SamplesOption,
    ToleranceOption,
    chosen_cells,
)


@app.command()
def score(
    context: typer.Context,
    run: RunArgument,
    metrics: Annotated[str, typer.Option(help="Names of metrics, separated by commas: insertion,deletion.")],
    images: Annotated[
        str | None,
        typer.Option(
            envvar="RIEMANNOPT_IMAGES",
            help="The address of the run's images, where it has a password or options that no run keeps.",
        ),
    ] = None,
    path: PathOption = None,
    estimator: EstimatorOption = None,
    placement: PlacementOption = None,
    samples: SamplesOption = None,
    tolerance: ToleranceOption = None,
) -> None:
    """Compute metrics from a run's stored maps, without a gradient, and print their table.

    In this process, on one device. Scores are kept in the run, scores/<metric>/, and are not computed twice:
    the same command goes on where it was interrupted.
    """
    from riemannopt_dist.metrics.metric import summaries_of
    from riemannopt_dist.reader import SCORES, open_run
    from riemannopt_dist.reports.summary import summarize
    from riemannopt_dist.reports.tables import summary_lines

    with errors(context):
        cells = chosen_cells(path, estimator, placement, samples, tolerance)
        reader = open_run(run)  # a bad one is refused before torch is imported
        from riemannopt_dist.scoring import score_run

        for name, table in score_run(reader, metrics.split(","), images, **cells).items():
            for line in summary_lines(summarize(table), {s.name: s.direction for s in summaries_of(table)}):
                say(line)
            say(f"scores of each image: {reader.directory.storage.uri(f'{SCORES}/{name}')}")

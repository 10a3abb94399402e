"""`riemannopt report`: the page of a run, its Table 1 and its figures."""

from typing import Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, print_table, say, storage_at
from riemannopt_dist.commands.options import RunArgument


@app.command()
def report(
    context: typer.Context,
    run: RunArgument,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Only this part of it: table1, figures, worst or html."),
    ] = None,
) -> None:
    """Write a page of a run, Table 1 of the paper and figures, and print what its schedules save.

    Page: report/index.html, a file that holds all it shows, with the answer, tables, figures and pictures.

    Table 1: relative error by method and samples, linear and RiemannOpt, in Markdown, LaTeX and CSV, beside
    the paper's numbers where the model is InceptionV3.
    Figures: errors against gradient evaluations, each profile with its points and those of single images.
    Worst: the ten images that each cell serves worst, and their share in its error.
    Tables: gradient evaluations that equal intervals need for the same true error, over those of each cell;
    what a tolerance costs. Numbers come with 95 % intervals.
    """
    from riemannopt_dist.reports.efficiency import sample_efficiency, tolerances
    from riemannopt_dist.reports.formats import FORMATS
    from riemannopt_dist.run.results import write_files
    from riemannopt_dist.run_data.data import run_data

    with errors(context):
        parts = {name: FORMATS[name] for name in formats or FORMATS}
        storage = storage_at(run)
        data = run_data(storage)
        for title, table in (
            (
                "sample efficiency: evaluations of linear left for the same error, over a cell's own",
                sample_efficiency(data.results),
            ),
            ("tolerances: images within, and cost over that of equal intervals", tolerances(data.results)),
        ):
            if len(table):
                print_table(table, title)
        for kind, part in parts.items():
            if not isinstance(files := part(data), dict):
                raise ValueError(f"format: {kind!r}: expected files by name, got {files!r:.80}")
            for name in write_files(storage, files):
                say(f"wrote {storage.uri(name)}")

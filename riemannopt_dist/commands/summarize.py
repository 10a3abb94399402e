"""`riemannopt summarize`: the table of a run."""

from typing import TYPE_CHECKING, Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, say, storage_at
from riemannopt_dist.commands.options import RunArgument

if TYPE_CHECKING:
    from riemannopt_dist.storage.base import Storage


@app.command()
def summarize(
    context: typer.Context,
    run: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, a record a cell.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print it as CSV.")] = False,
) -> None:
    """Print the table of a run, finished or not, and write it into the run, with what follows from it.

    summary.csv and summary.parquet; and where the run has something for them comparisons.csv (fitted against
    equal intervals), efficiency.csv and tolerances.csv (with converged maps), controls.csv (with controls).
    """
    with errors(context):
        if as_json and as_csv:
            raise ValueError("json: expected --json or --csv, got both")
        if as_json or as_csv:
            from riemannopt_dist.reports.summary import csv_of, summarize
            from riemannopt_dist.run.results import read_results

            table = summarize(read_results(storage_at(run)))
            typer.echo(table.to_json(orient="records", indent=2) if as_json else csv_of(table).rstrip())
        else:
            print_summary(storage_at(run))


def print_summary(storage: "Storage") -> None:
    """Print the table of a run, and write it and what follows from it into the run."""
    from riemannopt_dist.metrics.metric import summaries_of
    from riemannopt_dist.reports.gaps import gauged_summary
    from riemannopt_dist.reports.inputs import IMAGES, failed_in_selection, inputs_sentence
    from riemannopt_dist.reports.summary import comparison_files, summarize, summary_files, without_curves
    from riemannopt_dist.reports.tables import summary_lines
    from riemannopt_dist.run.directory import FAILURES, RUN, RunDirectory
    from riemannopt_dist.run.results import read_results, write_files

    results = read_results(storage)
    summary = summarize(results)
    results = without_curves(results)
    directions = {one.name: one.direction for one in summaries_of(results)}
    for line in summary_lines(gauged_summary(summary, results), directions):
        say(line)
    if storage.exists(RUN) and storage.exists(IMAGES):
        directory = RunDirectory(storage)
        failures = [vars(failure) for failure in directory.read_failures()]
        select = directory.read_run()["config"].get("select", "correct")
        sentence = inputs_sentence(directory.table(IMAGES), select, failed_in_selection(failures))
        say(f"{sentence}: see {storage.uri(IMAGES)}")
        if given_up := len({failure["image_id"] for failure in failures}):
            say(f"{given_up} images given up on: see {storage.uri(FAILURES)}")
    for name in write_files(storage, summary_files(summary) | comparison_files(results)):
        say(f"wrote {storage.uri(name)}")

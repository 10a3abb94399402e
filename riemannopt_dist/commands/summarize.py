"""`riemannopt summarize`: the table of a run."""

from typing import TYPE_CHECKING

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, print_table, say, storage_at
from riemannopt_dist.commands.options import RunArgument

if TYPE_CHECKING:
    from riemannopt_dist.storage.base import Storage


@app.command()
def summarize(run: RunArgument) -> None:
    """Print the table of a run, finished or not, and write it into the run, with what follows from it.

    summary.csv and summary.parquet; and where the run has something for them comparisons.csv (fitted against
    equal intervals), efficiency.csv and tolerances.csv (with converged maps), controls.csv (with controls).
    """
    with errors():
        print_summary(storage_at(run))


def print_summary(storage: "Storage") -> None:
    """Print the table of a run, and write it and what follows from it into the run."""
    from riemannopt_dist.reports.inputs import IMAGES, inputs_sentence
    from riemannopt_dist.reports.summary import comparison_files, summarize, summary_files
    from riemannopt_dist.run.directory import RunDirectory
    from riemannopt_dist.run.results import read_results, write_files

    results = read_results(storage)
    summary = summarize(results)
    print_table(summary, "errors: lower is better; insertion, cosine and rank: higher is better")
    if storage.exists(IMAGES):
        say(f"{inputs_sentence(RunDirectory(storage).table(IMAGES))}: see {storage.uri(IMAGES)}")
    for name in write_files(storage, summary_files(summary) | comparison_files(results)):
        say(f"wrote {storage.uri(name)}")

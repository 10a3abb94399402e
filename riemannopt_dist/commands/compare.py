"""`riemannopt compare`: runs side by side, paired."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import check_file, errors, say, storage_at

if TYPE_CHECKING:
    from riemannopt_dist.reports.comparison import Comparison, NamedRun

PAGES = (".html",)


@app.command()
def compare(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="Run directories: local, s3:// or gs://.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="An .html to write: the same as a page.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the changes as CSV.")] = False,
) -> None:
    """Compare runs of other models, versions or methods with the first, paired by image and cell.

    What differs in their configurations, every score's change with its 95 % interval over the images of
    both, and what has no partner. Fewer than 10 images of both have no verdict.
    """
    with errors(context):
        if len(runs) < 2:
            raise ValueError(f"runs: expected two or more, got {', '.join(runs)}")
        if as_json and as_csv:
            raise ValueError("json: expected --json or --csv, got both")
        if output is not None:
            check_file(output, PAGES)
        from riemannopt_dist.reports.comparison import compare_runs
        from riemannopt_dist.reports.comparison_page import comparison_page
        from riemannopt_dist.reports.page.rendering import rendered

        named = [read_named(run) for run in runs]
        comparison = compare_runs(named)
        _print(comparison, as_json, as_csv)
        if output is not None:
            output.write_bytes(rendered(comparison_page(comparison, named)))
            say(f"wrote {output}", err=as_json or as_csv)


def read_named(run: str) -> "NamedRun":
    """The run in a directory, as it is compared; ValueError where there is none."""
    from riemannopt_dist.reports.comparison import NamedRun
    from riemannopt_dist.run.directory import RunDirectory
    from riemannopt_dist.run.results import read_scores

    storage = storage_at(run)
    directory = RunDirectory(storage)
    about, images = directory.read_run(), directory.read_images() or []
    digests = {row["image_id"]: row["digest"] for row in images if row["digest"]}
    return NamedRun(storage.root, read_scores(storage), about, digests)


def _print(comparison: "Comparison", as_json: bool, as_csv: bool) -> None:
    if as_json:
        changes = comparison.changes.astype(object)  # JSON has no NaN
        fields = {
            "runs": [*comparison.names],
            "differences": {key: [*texts] for key, texts in comparison.differences.items()},
            "changes": changes.where(changes.notna(), None).to_dict("records"),
            "unpaired": [*comparison.unpaired],
        }
        typer.echo(json.dumps(fields, indent=2, ensure_ascii=False))
    elif as_csv:
        from riemannopt_dist.reports.summary import csv_of

        typer.echo(csv_of(comparison.changes).rstrip())
    else:
        from riemannopt_dist.reports.comparison_lines import comparison_lines

        for line in comparison_lines(comparison):
            say(line)

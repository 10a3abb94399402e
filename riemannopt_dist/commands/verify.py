"""`riemannopt verify`: whether a run is whole."""

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, say, storage_at
from riemannopt_dist.commands.options import RunArgument


@app.command()
def verify(context: typer.Context, run: RunArgument) -> None:
    """Check that every row a run promises is there once, finite, and nothing else; exit code 1 if not."""
    from riemannopt_dist.run.directory import RunDirectory
    from riemannopt_dist.run.verification import problems

    with errors(context):
        storage = storage_at(run)
        faults = list(problems(RunDirectory(storage)))
        for problem in faults:
            say(problem, err=True)
        if faults:
            raise typer.Exit(1)
        say(f"{storage.root}: every row is there once")

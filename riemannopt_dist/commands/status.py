"""`riemannopt status`: how far a run is."""

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, say, storage_at
from riemannopt_dist.commands.options import RunArgument


@app.command()
def status(context: typer.Context, run: RunArgument) -> None:
    """Tell how far a run is: images and shards done, failed and left, the rate and the time left.

    Reads the run directory alone, from any machine, while the run goes on.
    """
    from riemannopt_dist.run.status import read_status

    with errors(context):
        for line in read_status(storage_at(run)).lines():
            say(line)

"""The command line's application, to which every command adds itself."""

from importlib.metadata import version
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Path attributions (Integrated Gradients and kin) at dataset scale, with optimised Riemann sums.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"riemannopt-dist {version('riemannopt-dist')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options that no command is needed for."""

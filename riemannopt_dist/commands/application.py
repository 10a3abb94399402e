"""The command line's application, to which every command adds itself."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Path attributions (Integrated Gradients and kin) at dataset scale, with optimised Riemann sums.",
)

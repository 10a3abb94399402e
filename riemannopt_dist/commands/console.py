"""What commands print, and how they end: one line for bad input, tables, exit codes."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd

    from riemannopt_dist.storage.base import Storage


GAVE_UP = 1
BAD_INPUT = 2
STOPPED = 3
INTERRUPTED = 130
PROFILES = (".json",)
EXPLANATIONS = (".png", ".jpg", ".jpeg", ".svg", ".pdf", ".npy", ".html")
"""How the names of files end that are written, which tells their format."""


def check_secrets(context: typer.Context) -> None:
    """Raise ValueError for an address with a password or token that was given on the command line."""
    from riemannopt_dist.storage.redaction import holds_secret

    for parameter in context.command.params:
        name = str(parameter.name)
        source, value = context.get_parameter_source(name), context.params.get(name)
        several = value if isinstance(value, list | tuple) else [value]
        is_seen = source is not None and source.name == "COMMANDLINE"
        if is_seen and any(holds_secret(str(one)) for one in several):
            instead = (
                f"give it in {parameter.envvar}, or in a configuration where one is read"
                if parameter.envvar
                else "leave it to the environment, such as AWS_SECRET_ACCESS_KEY"
            )
            raise ValueError(
                f"{name}: a password, or a token after a ?, is seen by all users on the command line, and "
                f"stands in Ray's table of jobs: {instead}"
            )


def check_file(output: Path, suffixes: tuple[str, ...]) -> str:
    """The format that a file's name tells, before the work for it is done.

    Raises ValueError for a name that ends in none of `suffixes`, and where no file can be written.
    """
    if output.is_dir():
        raise ValueError(f"output: expected a file, got the folder {output}")
    if not output.parent.is_dir():
        raise ValueError(f"output: expected a file in a folder that is there, got {output}")
    if output.suffix.lower() not in suffixes:
        expected = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if suffixes[1:] else suffixes[0]
        raise ValueError(f"output: expected a name that ends in {expected}, got {output}")
    return output.suffix.lower().removeprefix(".")


def storage_at(root: str) -> "Storage":
    """The storage at `root`; imported late, so that help comes at once.

    Tables are read into jemalloc's memory, where Arrow has it, else into the C library's. Arrow's own
    allocator takes a third more for a large run, and the C library does not give back what is let go.
    """
    import pyarrow as pa

    from riemannopt_dist.storage.base import Storage

    returning = "jemalloc" in pa.supported_memory_backends()
    pa.set_memory_pool(pa.jemalloc_memory_pool() if returning else pa.system_memory_pool())
    return Storage(root)


def say(text: str, *, err: bool = False) -> None:
    """Print a line that holds names of files: what a terminal would obey is shown as an escape."""
    from riemannopt_dist.text import printable

    typer.echo(printable(text), err=err)


class Printable(logging.Formatter):
    """Lines of a log, of which a terminal obeys nothing."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The record's line."""
        from riemannopt_dist.text import printable

        return printable(super().formatMessage(record))


def print_table(rows: "pd.DataFrame", title: str) -> None:
    """A table with its title; counts of what was left out stay in the files."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from riemannopt_dist.text import printable

    rows = rows.drop(columns=[name for name in rows.columns if name.endswith("_left_out")])
    table = Table(title=title, title_justify="left")
    numbers = rows.select_dtypes("number").columns
    for name in rows.columns:
        table.add_column(
            Text(printable(name.replace("_", " "))), justify="right" if name in numbers else "left"
        )
    for row in rows.itertuples(index=False):
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    # Job logs and pipes have no width of their own: never cut a column there.
    console = Console() if sys.stdout.isatty() else Console(width=1000)
    console.print(table)


@contextmanager
def errors(context: typer.Context) -> Iterator[None]:
    """One line for bad input (exit code 2), a run that stopped (3) or was interrupted (130), no traceback.

    A secret that was given on the command line is bad input to every command.
    """
    try:
        check_secrets(context)
        yield
    except (ValueError, OSError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except (RuntimeError, KeyboardInterrupt) as error:
        from riemannopt_dist.run.errors import Interrupted, StartError, Stopped
        from riemannopt_dist.run.lock import InUse

        if isinstance(error, StartError | InUse):
            say(f"error: {error}", err=True)
            raise typer.Exit(GAVE_UP) from None
        if isinstance(error, Stopped | KeyboardInterrupt):
            goes_on = "; the same command goes on from here" if isinstance(error, Stopped) else ""
            say(f"{str(error) or 'interrupted'}{goes_on}", err=True)
            by_signal = isinstance(error, Interrupted | KeyboardInterrupt)
            raise typer.Exit(INTERRUPTED if by_signal else STOPPED) from None
        raise

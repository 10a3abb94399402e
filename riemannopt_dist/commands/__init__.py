"""The command line, a file a command: `riemannopt demo | evaluate | status | …`."""

from riemannopt_dist.commands import (
    demo,
    evaluate,
    explain,
    export,
    fit,
    report,
    score,
    status,
    summarize,
    verify,
)
from riemannopt_dist.commands.application import app

__all__ = [
    "app",
    "demo",
    "evaluate",
    "explain",
    "export",
    "fit",
    "report",
    "score",
    "status",
    "summarize",
    "verify",
]

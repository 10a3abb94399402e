"""The command line, a file a command: `riemannopt demo | evaluate | status | …`."""

from riemannopt_dist.commands import (
    audit,
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
    "audit",
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

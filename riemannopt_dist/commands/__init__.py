"""The command line, a file a command: `riemannopt demo | evaluate | status | …`."""

from riemannopt_dist.commands import (
    audit,
    compare,
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
    "compare",
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

"""The command line, a file a command: `riemannopt demo | evaluate | status | …`."""

from riemannopt_dist.commands import (
    compare,
    demo,
    evaluate,
    explain,
    fit,
    report,
    status,
    summarize,
    verify,
)
from riemannopt_dist.commands.application import app

__all__ = ["app", "compare", "demo", "evaluate", "explain", "fit", "report", "status", "summarize", "verify"]

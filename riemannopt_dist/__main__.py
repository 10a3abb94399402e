"""`python -m riemannopt_dist` is the command `riemannopt`."""

from riemannopt_dist.commands import app

app(prog_name="riemannopt")

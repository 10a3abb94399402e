"""`python -m riemannopt_dist` is the command `riemannopt`."""

from riemannopt_dist.commands import app

if __name__ == "__main__":
    app(prog_name="riemannopt")

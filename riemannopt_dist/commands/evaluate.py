"""`riemannopt evaluate`: run a configuration, or plan it."""

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import GAVE_UP, Printable, errors, say, storage_at
from riemannopt_dist.commands.options import (
    ConfigOption,
    ImagesOption,
    LabelsOption,
    LimitOption,
    OutputOption,
)
from riemannopt_dist.commands.summarize import print_summary

if TYPE_CHECKING:
    from riemannopt_dist.run.config.config import Config
    from riemannopt_dist.run.directory import RunDirectory


@app.command()
def evaluate(
    context: typer.Context,
    config: ConfigOption,
    images: ImagesOption = None,
    labels: LabelsOption = None,
    output: OutputOption = None,
    limit: LimitOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Exactly so many workers; where there is no room for them, nodes are asked for. "
            "Overrides the config's scaling.",
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(help="Give it where the GPUs are still to come. Overrides the config's scaling."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the run would do and take, and do none of it.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(help="With --dry-run: gradients/s of a device, instead of measuring this machine's."),
    ] = None,
) -> None:
    """Run a configuration: select images, fit schedules, evaluate every cell of the grid, summarise.

    A run that was interrupted goes on where it stopped when the same command is given again, and one that is
    given more images, cells or metrics with these. On a Ray cluster (RAY_ADDRESS set, or under `ray job
    submit`) it uses that; else this machine's GPUs or CPUs.
    """
    from riemannopt_dist.run.config.loading import load_config

    with errors(context):
        scaling = {"min_workers": workers, "max_workers": workers, "gpus_per_worker": gpus_per_worker}
        overrides = {"images": images, "labels": labels, "output": output, "limit": limit, "scaling": scaling}
        if rate is not None and not dry_run:
            raise ValueError("rate: goes with --dry-run only")
        chosen = load_config(str(config), overrides)
        if dry_run:
            _plan(chosen, rate)
        else:
            _evaluate(chosen)


def _plan(config: "Config", rate: float | None) -> None:
    from riemannopt_dist.run.plan import make_plan
    from riemannopt_dist.run.speed import assumed_speed, measure_speed

    plan = make_plan(config)
    for line in plan.lines(measure_speed(config, plan.kinds) if rate is None else assumed_speed(rate)):
        say(line)


def _evaluate(config: "Config") -> None:
    run_config(config, lambda directory: print_summary(directory.storage))


def run_config(config: "Config", finish: "Callable[[RunDirectory], None]") -> None:
    """The run, to its end; what it gave up on is told, and too much of that is no success."""
    storage_at(config.output)  # a bad one is refused before torch and Ray are imported
    from riemannopt_dist.run.errors import Interrupted
    from riemannopt_dist.run.failure import given_up_share
    from riemannopt_dist.run.ray.driver import evaluate as run

    def tell(directory: "RunDirectory") -> None:
        # First of all: where every image failed there is no table.
        if failures := directory.read_failures():
            say(f"{len(failures)} image(s) given up on: see {directory.storage.uri('failures.parquet')}")
        finish(directory)

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        directory = run(config, tell)
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    share, most = given_up_share(directory, config), config.scaling.max_given_up
    if share > most:
        limit = f"scaling.max_given_up: {most:.2%}"
        say(f"error: {share:.2%} of the images of a stage were given up on ({limit})", err=True)
        raise typer.Exit(GAVE_UP)

"""The command line: `riemannopt demo | fit | evaluate | status | summarize | verify | report | explain`."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from riemannopt_dist.run.config import Config
    from riemannopt_dist.run.directory import RunDirectory
    from riemannopt_dist.run.storage import Storage

GAVE_UP = 1
BAD_INPUT = 2
STOPPED = 130

PROFILES = (".json",)
PICTURES = (".png", ".jpg", ".jpeg", ".svg", ".pdf")
"""How the names of files end that are written, which tells their format."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Path attributions (Integrated Gradients and kin) at dataset scale, with optimised Riemann sums.",
)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="A YAML file; see jobs/configs/.")]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        envvar="RIEMANNOPT_IMAGES",
        help="Images: a folder, .parquet or .tar files (local, s3://, gs://), such files at https:// "
        'addresses (no folders there), or "demo:". Overrides the config.',
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        envvar="RIEMANNOPT_LABELS",
        help="LOC_val_solution.csv or ILSVRC2012_validation_ground_truth.txt. Overrides the config.",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        envvar="RIEMANNOPT_OUTPUT",
        help="The run directory (local, s3://, gs://). Overrides the config.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(help="Evaluate at most so many images. Overrides the config.")
]
RunArgument = Annotated[str, typer.Argument(help="A run directory: local, s3:// or gs://.")]


@app.command()
def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="The run directory.")] = "demo-run",
    fit: Annotated[
        bool,
        typer.Option("--fit", help="Fit on four of the photos, not with the profiles that come along."),
    ] = False,
) -> None:
    """Evaluate photos, print a table and draw maps, in some three minutes on two cores. Needs no network.

    EfficientNet-Lite0 (ImageNet weights), all methods, 16 evaluations a map: equal points, RiemannOpt as its
    authors run it, and our best, each against the converged map. Profiles were fitted on ImageNet photos.
    """
    from riemannopt_dist.analysis.summary import read_results
    from riemannopt_dist.run.demo import demo_config, demo_table, draw_maps
    from riemannopt_dist.run.text import table_lines

    def finish(directory: "RunDirectory") -> None:
        pictures = draw_maps(directory)
        _say("Error: the distance from the converged map, as a share of its L1 norm.")
        for line in table_lines(demo_table(read_results(directory.storage)), left=2):
            _say(line)
        _say("Equal points as good, and photos whose map is nearer than that of 16 equal points. Small")
        _say("numbers of photos say little: the README has what to expect on ImageNet.")
        for name in pictures:
            _say(f"wrote {directory.storage.uri(name)}")

    with _errors():
        _run(demo_config(output, fit), finish)


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
            "Overrides the config's means.",
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(help="Give it where the GPUs are still to come. Overrides the config's means."),
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

    A run that was interrupted goes on where it stopped when the same command is given again. On a Ray
    cluster (RAY_ADDRESS set, or under `ray job submit`) it uses that; else this machine's GPUs or CPUs.
    """
    from riemannopt_dist.run.config import load_config

    with _errors():
        means = {"min_workers": workers, "max_workers": workers, "gpus_per_worker": gpus_per_worker}
        _check_secrets(context, {"images": images, "labels": labels, "output": output})
        given = {"images": images, "labels": labels, "output": output, "limit": limit, "means": means}
        if rate is not None and not dry_run:
            raise ValueError("rate: goes with --dry-run only")
        chosen = load_config(str(config), given)
        if dry_run:
            _plan(chosen, rate)
        else:
            _evaluate(chosen)


@app.command()
def fit(
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON file to write.")],
    images: Annotated[str, typer.Option(help='A folder, .parquet or .tar files, or "demo:".')],
    model: Annotated[str, typer.Option(help="A classifier that load_model knows.")] = "efficientnet_lite0",
    weights: Annotated[str | None, typer.Option(help="Names of published weights, or a local file.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Images to fit on; the first so many by name.")] = 200,
    samples: Annotated[int, typer.Option(min=2, help="Points along each image's path.")] = 128,
) -> None:
    """Estimate the profile |g'| of Integrated Gradients in this process and store it as JSON.

    Every schedule follows from it: ro.optimize_schedule(ro.Profile.from_json(text), samples=16).
    """
    with _errors():
        _check_file(output, PROFILES)
        from riemannopt_dist.run.local import fit_profile

        profile = fit_profile(model, weights, images, count, samples)
        output.write_text(profile.to_json(), encoding="utf-8")
        _say(f"wrote {output}: |g'| from {profile.images} images")


@app.command()
def summarize(run: RunArgument) -> None:
    """Print the table of a run, finished or not, and write it into the run, with what follows from it.

    summary.csv and summary.parquet; and where the run has something for them comparisons.csv (fitted against
    equal intervals), efficiency.csv and tolerances.csv (with converged maps), controls.csv (with controls).
    """
    with _errors():
        _summarize(_storage(run))


@app.command()
def status(run: RunArgument) -> None:
    """Tell how far a run is: images and shards done, failed and left, the rate and the time left.

    Reads the run directory alone, from any machine, while the run goes on.
    """
    from riemannopt_dist.run.status import read_status

    with _errors():
        for line in read_status(_storage(run)).lines():
            _say(line)


@app.command()
def verify(run: RunArgument) -> None:
    """Check that every row a run promises is there once, finite, and nothing else; exit code 1 if not."""
    from riemannopt_dist.run.directory import RunDirectory
    from riemannopt_dist.run.verification import problems

    with _errors():
        storage = _storage(run)
        found = list(problems(RunDirectory(storage)))
        for problem in found:
            _say(problem, err=True)
        if found:
            raise typer.Exit(1)
        _say(f"{storage.root}: every row is there once")


@app.command()
def report(run: RunArgument) -> None:
    """Write Table 1 of the paper and the figures of a run, and print what its schedules save.

    Table 1: relative error by method and samples, linear and RiemannOpt, in Markdown, LaTeX and CSV, beside
    the paper's numbers where the model is InceptionV3.
    Figures: errors against gradient evaluations, each profile with its points and those of single images.
    Tables: gradient evaluations that equal intervals need for the same true error, over those of each cell;
    what a tolerance costs. Numbers come with 95 % intervals.
    """
    from riemannopt_dist.analysis.efficiency import sample_efficiency, tolerances
    from riemannopt_dist.analysis.report import write_report
    from riemannopt_dist.analysis.summary import read_results, summarize

    with _errors():
        storage = _storage(run)
        results = read_results(storage)
        for title, table in (
            (
                "sample efficiency: evaluations of linear left for the same error, over a cell's own",
                sample_efficiency(results),
            ),
            ("tolerances: images within, and cost over that of equal intervals", tolerances(results)),
        ):
            if len(table):
                _print_table(table, title)
        for name in write_report(storage, results, summarize(results)):
            _say(f"wrote {storage.uri(name)}")


@app.command()
def explain(
    image: Annotated[str, typer.Argument(help="An image file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .png, .jpg, .svg or .pdf to write.")
    ] = Path("explanation.png"),
    model: Annotated[str, typer.Option(help="A classifier that load_model knows.")] = "efficientnet_lite0",
    weights: Annotated[str | None, typer.Option(help="Names of published weights, or a local file.")] = None,
    target: Annotated[
        int | None, typer.Option(min=0, help="The class to explain; the predicted one if not given.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=2, help="Gradient evaluations; with the rule secant, intervals.")
    ] = 64,
    rule: Annotated[
        str, typer.Option(help="A rule of a configuration, such as trapezoid or secant.")
    ] = "trapezoid",
    profile: Annotated[
        Path | None,
        typer.Option(
            help="A profile from `riemannopt fit`, to place the samples by: as the schedule rough does for "
            "secant, density for gauss_legendre, and exact for other rules. Equal intervals without."
        ),
    ] = None,
) -> None:
    """Explain one image by Integrated Gradients: its map beside it, as a picture."""
    with _errors():
        kind = _check_file(output, PICTURES)
        text = profile.read_text(encoding="utf-8") if profile else None
        from riemannopt_dist.run.local import explain_image

        picture, sentence = explain_image(image, model, weights, target, samples, rule, text, kind)
        output.write_bytes(picture)
        _say(sentence)
        _say(f"wrote {output}")


def _check_secrets(context: typer.Context, addresses: dict[str, str | None]) -> None:
    """Raise ValueError for an address with a password or token that was given on the command line."""
    from riemannopt_dist.stores import holds_secret

    for name, address in addresses.items():
        source = context.get_parameter_source(name)
        is_seen = source is not None and source.name == "COMMANDLINE"
        if is_seen and holds_secret(address or ""):
            raise ValueError(
                f"{name}: a password, or a token after a ?, is seen by all users on the command line, and "
                f"stands in Ray's table of jobs: give it in RIEMANNOPT_{name.upper()} or the configuration"
            )


def _check_file(output: Path, suffixes: tuple[str, ...]) -> str:
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


def _storage(root: str) -> "Storage":
    """The storage at `root`; imported late, so that help comes at once."""
    from riemannopt_dist.run.storage import Storage

    return Storage(root)


def _plan(config: "Config", rate: float | None) -> None:
    from riemannopt_dist.run.plan import assumed_speed, make_plan, measure_speed

    plan = make_plan(config)
    for line in plan.lines(measure_speed(config) if rate is None else assumed_speed(rate)):
        _say(line)


def _evaluate(config: "Config") -> None:
    _run(config, lambda directory: _summarize(directory.storage))


def _run(config: "Config", finish: "Callable[[RunDirectory], None]") -> None:
    """The run, to its end; what it gave up on is told, and too much of that is no success."""
    _storage(config.output)  # a bad one is refused before torch and Ray are imported
    from riemannopt_dist.run.driver import evaluate as run
    from riemannopt_dist.run.driver import given_up_share
    from riemannopt_dist.run.stage_run import Stopped

    def tell(directory: "RunDirectory") -> None:
        # First of all: where every image failed there is no table.
        if failures := directory.read_failures():
            _say(f"{len(failures)} image(s) given up on: see {directory.storage.uri('failures.parquet')}")
        finish(directory)

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        directory = run(config, tell)
    except KeyboardInterrupt:
        raise Stopped("interrupted") from None
    share, most = given_up_share(directory, config), config.means.max_given_up
    if share > most:
        _say(
            f"error: {share:.2%} of the images of a stage were given up on (means.max_given_up: {most:.2%})",
            err=True,
        )
        raise typer.Exit(GAVE_UP)


def _say(text: str, *, err: bool = False) -> None:
    """Print a line that holds names of files: what a terminal would obey is shown as an escape."""
    from riemannopt_dist.run.text import printable

    typer.echo(printable(text), err=err)


class _Printable(logging.Formatter):
    """Lines of a log, of which a terminal obeys nothing."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        from riemannopt_dist.run.text import printable

        return printable(super().formatMessage(record))


def _summarize(storage: "Storage") -> None:
    from riemannopt_dist.analysis.inputs import IMAGES, inputs_sentence
    from riemannopt_dist.analysis.summary import (
        read_results,
        summarize,
        write_comparisons,
        write_summary,
    )
    from riemannopt_dist.run.directory import RunDirectory

    results = read_results(storage)
    summary = summarize(results)
    _print_table(summary, "errors: lower is better; insertion, cosine and rank: higher is better")
    if storage.exists(IMAGES):
        _say(f"{inputs_sentence(RunDirectory(storage).table(IMAGES))}: see {storage.uri(IMAGES)}")
    for name in [*write_summary(storage, summary), *write_comparisons(storage, results)]:
        _say(f"wrote {storage.uri(name)}")


def _print_table(rows: "pd.DataFrame", title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from riemannopt_dist.run.text import printable

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
def _errors() -> Iterator[None]:
    """One line for bad input (exit code 2) and for a run that was stopped (130), no traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        _say(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except (RuntimeError, KeyboardInterrupt) as error:
        from riemannopt_dist.run.lock import InUse
        from riemannopt_dist.run.pool import StartError
        from riemannopt_dist.run.stage_run import Stopped

        if isinstance(error, StartError | InUse):
            _say(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        if isinstance(error, Stopped | KeyboardInterrupt):
            goes_on = "; the same command goes on from here" if isinstance(error, Stopped) else ""
            _say(f"{str(error) or 'interrupted'}{goes_on}", err=True)
            raise typer.Exit(STOPPED) from None
        raise

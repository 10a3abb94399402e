"""Tables and reports of a large run: seconds, processor seconds and peak memory of each command.

Makes a run directory of so many images and cells, with the schemas of a real one and random values, curves
included, and starts each command on it as a process of its own.

    python -m benchmarks.tables_scale [--images 40000] [--cells 25] [--json FILE] [--run FOLDER] [--only NAME]

Rows are images × cells. A FOLDER that holds such a run already is taken as it is.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from riemannopt_dist.commands import app
from riemannopt_dist.metrics.metric import Column
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.directory import IMAGES, LISTING, RUN, RunDirectory
from riemannopt_dist.run.draw import drawn_images
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.schemas import IMAGES as IMAGE_COLUMNS
from riemannopt_dist.run.schemas import LISTING as LISTING_COLUMNS
from riemannopt_dist.run.schemas import results_schema
from riemannopt_dist.run.shards import shards_of
from riemannopt_dist.run.stages.tally import Timings
from riemannopt_dist.storage.base import Storage

FIT = 200
REPLACED, OFFICIAL, PAIRED = 21, 25, 13
"""Points of curves whose positions are a column of their own: information curves, by their conventions."""
SKIPPED = 0.1
"""The share of images that information curves leave out."""
COMMANDS = {
    "summarize": ("summarize",),
    "report table1": ("report", "--format", "table1"),
    "report figures": ("report", "--format", "figures"),
    "report worst": ("report", "--format", "worst"),
    "report": ("report",),
    "compare": ("compare",),
    "status": ("status",),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--cells", type=int, default=25)
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    parser.add_argument("--run", type=Path, help="the run directory; one in a temporary folder by default")
    parser.add_argument("--metrics", nargs="+", default=[*METRICS], help="all by default")
    parser.add_argument(
        "--only", nargs="+", choices=COMMANDS, default=[*COMMANDS], help="some of the commands"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if not (run / RUN).exists():
            make_run(run_config(run, options.images, options.cells, options.metrics))
        measured = {name: measure(arguments) for name, arguments in runnable(options.only, run).items()}
    for name, numbers in measured.items():
        print(f"{name:16}", *(f"{value:8.2f} {key.replace('_', ' ')}" for key, value in numbers.items()))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def runnable(names: list[str], run: Path) -> dict[str, list[str]]:
    """The arguments of those commands that there are."""
    there = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    chosen = {name: COMMANDS[name] for name in names if COMMANDS[name][0] in there}
    return {
        name: [first, *[str(run)] * (2 if name == "compare" else 1), *rest]
        for name, (first, *rest) in chosen.items()
    }


LAUNCHER = """
import json, os, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
spent = usage.ru_utime + usage.ru_stime
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "cpu_seconds": spent, "peak_gib": usage.ru_maxrss / 2**20}))
"""
"""Starts a command. Its peak memory counts that of the process it was started from, which has to be small."""


def measure(arguments: list[str]) -> dict[str, float]:
    """A command as a process: wall-clock and processor seconds, and its peak resident memory in GiB."""
    command = [sys.executable, "-m", "riemannopt_dist", *arguments]
    launched = [sys.executable, "-S", "-c", LAUNCHER, *command]
    numbers: dict[str, float] = json.loads(
        subprocess.run(launched, check=True, stdout=subprocess.PIPE).stdout
    )
    return numbers


def run_config(output: Path, images: int, cells: int, metrics: list[str]) -> Config:
    """A configuration of so many cells, each a block of its grid."""
    paths, estimators = ("ig", "blur_ig", "guided_ig"), ("left", "right", "trapezoid")
    placements, samples = (
        ("linear", "riemannopt", "exact", "equidistribution", "roughness"),
        (16, 32, 64, 128, 256),
    )
    kinds = [*itertools.product(paths, estimators, placements, samples)]
    if cells > len(kinds):
        raise ValueError(f"cells: expected at most {len(kinds)}, got {cells}")
    grid = [
        {"paths": [path], "estimators": [estimator], "placements": [placement], "samples": [count]}
        for path, estimator, placement, count in kinds[:cells]
    ]
    fields = {
        "images": str(output.parent / "images"),
        "output": str(output),
        "model": {"name": "riemannopt_dist.testing.small_world:tiny_classifier"},
        "grid": grid,
        "metrics": metrics,
        "fit": {"images": FIT},
        "limit": images,
    }
    return make_config(fields, "benchmark")


def make_run(config: Config) -> RunDirectory:
    """A run's directory with random results."""
    directory, rng = RunDirectory(Storage(config.output)), np.random.default_rng(0)
    directory.claim(config, "0" * 64)
    images = image_rows(config.limit + FIT, rng)
    listed = [{name: row.get(name) for name in LISTING_COLUMNS.names} for row in images]
    directory.write_table(LISTING, pa.Table.from_pylist(listed, schema=LISTING_COLUMNS))
    order = drawn_images(images, config.seed)
    in_fit = set(order[:FIT])
    rows = [{**row, "in_fit": row["image_id"] in in_fit} for row in images]
    directory.write_table(IMAGES, pa.Table.from_pylist(rows, schema=IMAGE_COLUMNS))
    origin, labels = directory.origin(), {row["image_id"]: row["label"] for row in rows}
    for key, names in shards_of(order[FIT:], config.shard_size).items():
        table = result_rows(config, [*names], [labels[name] for name in names], rng)
        timings = Timings(len(names), 0.1, 1.0, 1, 1, "here", time.time())
        directory.storage.write_table(f"results/{key}.parquet", timings.in_table(origin.in_table(table)))
    return directory


def image_rows(count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of images.parquet, all of them selected."""
    synsets = [f"n{number:08}" for number in rng.integers(1_000_000, 15_000_000, 1000)]
    return [
        {
            "image_id": f"{synsets[n % 1000]}/ILSVRC2012_val_{n:08}.JPEG",
            "uri": f"/images/{synsets[n % 1000]}/ILSVRC2012_val_{n:08}.JPEG",
            "label": n % 1000,
            "prediction": n % 1000,
            "probability": 0.9,
            "selected": True,
            "digest": f"{n:032x}",
            "draw": 0,
        }
        for n in range(count)
    ]


def result_rows(config: Config, names: list[str], labels: list[int], rng: np.random.Generator) -> pa.Table:
    """Random rows of a shard: every cell of an image after another, as a worker writes them."""
    cells = config.cells()
    count = len(names) * len(cells)
    skipped = np.tile(rng.random(len(names)) < SKIPPED, len(cells))
    schema = results_schema(METRICS[name] for name in config.metrics)
    columns: dict[str, Any] = {
        "image_id": names * len(cells),
        "label": labels * len(cells),
        "target": labels * len(cells),
        **{name: repeated(cells, name, len(names)) for name in Cell.__dataclass_fields__},
        "f_input": rng.random(count, dtype=np.float32),
        "f_baseline": rng.random(count, dtype=np.float32),
        "gradient_evaluations": repeated(cells, "samples", len(names)),
        "seconds": rng.random(count),
    }
    for metric in (METRICS[name] for name in config.metrics):
        for column in metric.columns:
            empty = skipped if column.reason else np.zeros(count, dtype=bool)
            columns[column.name] = values_of(column, metric.name, empty, rng)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def repeated(cells: list[Cell], name: str, images: int) -> list[Any]:
    return [getattr(cell, name) for cell in cells for _ in range(images)]


def values_of(column: Column, metric: str, empty: np.ndarray, rng: np.random.Generator) -> Any:
    """A column's values, of which those that are `empty` are NaN."""
    count = len(empty)
    if column.kind == "text":
        return [None] * count
    if column.kind == "number":
        return np.where(empty, np.nan, rng.exponential(0.2, count))
    known = len(column.x) if isinstance(column.x, tuple) else 0
    points = known or (OFFICIAL if "official" in metric else PAIRED if "information" in metric else REPLACED)
    curves = np.sort(rng.random((count, points), dtype=np.float32), axis=1)
    curves[empty] = np.nan
    offsets = np.arange(count + 1, dtype=np.int32) * points
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(curves.ravel()))


if __name__ == "__main__":
    main()

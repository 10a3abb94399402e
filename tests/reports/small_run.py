"""A run directory made by hand: photos, results, curves, maps and failures, without a model or Ray."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.examples import evaluated_examples
from riemannopt_dist.run.failure import Failure
from riemannopt_dist.run.grid import Cell, control_cell
from riemannopt_dist.run.maps import map_file, map_output
from riemannopt_dist.run.schemas import results_schema
from riemannopt_dist.run.shards import shards_of
from riemannopt_dist.run_data.data import run_data
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import FIT, SIDE, small_config

GRID = [
    {"placements": ["linear"], "estimators": ["left"], "samples": [4, 8, 16]},
    {"placements": ["exact"], "estimators": ["left"], "samples": [4, 8]},
]
METRICS_OF_IT = ["completeness", "reference", "insertion", "deletion"]

Error = Callable[[str, Cell], float]


def halved(image_id: str, cell: Cell) -> float:
    """Errors of 1/n with n equal points, half of that with fitted ones: as with 2n equal points."""
    return (1.0 if cell.placement == "linear" else 0.5) / cell.samples


def make_run(
    folder: Path,
    images: int = 12,
    error: Error = halved,
    done: int | None = None,
    names: Mapping[int, str] | None = None,
    **changes: Any,
) -> RunDirectory:
    """A run that evaluated the first `done` of its images, all unless given, with these errors."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    ids = [(names or {}).get(n, f"p{n:02}.png") for n in range(images + FIT)]
    rng = np.random.default_rng(3)
    for name in ids:
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / name, "PNG")
    fields = {"grid": GRID, "metrics": METRICS_OF_IT, "controls": ["random"], "maps": {"converged": True}}
    config = small_config(pictures, folder / "run", **{**fields, **changes})
    directory = RunDirectory(Storage(config.output))
    directory.claim(config, "0" * 64, (SIDE, SIDE))
    listed = _listed(pictures, ids)
    directory.write_images(listed)
    chosen = evaluated_examples(listed, config)
    _write_profile(directory, config)
    shards = shards_of(chosen, config.shard_size)
    kept = {example.image.image_id for example in chosen[:done]}
    for key, shard in shards.items():
        here = [example.image.image_id for example in shard if example.image.image_id in kept]
        if here:
            directory.write_table(f"results/{key}.parquet", _results(config, here, error))
            _write_maps(directory, config, key, here, [e.image.image_id for e in chosen])
    directory.write_failures([Failure("fit", "p00.png", "OutOfMemory: <b>no</b> room", 3)])
    return directory


def data_of(directory: RunDirectory) -> RunData:
    """What a report of the run is made of."""
    return run_data(directory.storage)


def _listed(pictures: Path, ids: list[str]) -> list[dict[str, Any]]:
    row = {"label": None, "prediction": 2, "probability": 0.5, "selected": True, "error": None}
    listed = [
        {**row, "image_id": name, "uri": str(pictures / name), "in_fit": n < FIT}
        for n, name in enumerate(ids)
    ]
    broken = {**row, "image_id": "broken.png", "uri": "/nowhere", "in_fit": False, "selected": False}
    return [*listed, {**broken, "error": "UnreadableImage: empty file"}]


def _write_profile(directory: RunDirectory, config: Config) -> None:
    points = np.linspace(0.05, 0.95, 10)
    profile = Profile(tuple(points), tuple(1 + points), tuple(0 * points), images=FIT)
    directory.write_schedules("ig", profile, {})
    assert config.paths().keys() == {"ig"}


def _results(config: Config, ids: list[str], error: Error) -> pa.Table:
    schema = results_schema([METRICS[name] for name in config.metrics])
    rng = np.random.default_rng(len(ids))
    rows = []
    for image_id in ids:
        for cell in [*config.cells(), *map(control_cell, config.controls)]:
            value = error(image_id, cell) if cell.samples else float("nan")
            curve = np.sort(rng.uniform(size=21))
            row: dict[str, Any] = {name: None for name in schema.names}
            row |= {"image_id": image_id, "target": 2, **asdict(cell), "f_input": 0.75, "f_baseline": 0.25}
            row |= {"gradient_evaluations": cell.samples, "seconds": 0.125 * cell.samples}
            row |= {"reference_error": value, "relative_error": value / 2, "completeness_delta": value / 4}
            row |= {"attribution_sum": 0.5, "output_change": 0.5, "reference_cosine": 1 - value}
            row |= {"insertion": curve.mean(), "insertion_curve": curve, "deletion_curve": curve[::-1]}
            row |= {"deletion": curve.mean(), "reference_rank": 0.5, "reference_residual": 0.01}
            row |= {"insertion_normalized": curve.mean(), "deletion_normalized": curve.mean()}
            rows.append({name: row[name] for name in schema.names})
    return pa.Table.from_pylist(rows, schema=schema)


def _write_maps(
    directory: RunDirectory, config: Config, shard: str, here: list[str], all_ids: list[str]
) -> None:
    output = map_output(config, all_ids)
    if output is None:
        return
    maps = torch.randn(len(here), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for cell in sorted(output.cells | output.converged):
        directory.write_table(map_file(cell, shard), output.table(cell, here, maps * (1 + 1 / cell.samples)))

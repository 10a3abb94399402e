"""Metrics of a run computed from its stored maps, in this process and without a gradient.

Scores are kept as results are: scores/<metric>/shard-00042.parquet has a row for each image and cell of a
shard whose map is stored, with the columns of the cell and the metric's own. What is there is not done again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from riemannopt_dist.choices import CELL
from riemannopt_dist.data.errors import ReplacedImage, UnreadableImage
from riemannopt_dist.data.uri_list import source_files
from riemannopt_dist.metrics.metric import BOX_TOLERANCE, MapBatch, Metric
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.models.folding import fast_classifier
from riemannopt_dist.models.state import model_state, weights_digest
from riemannopt_dist.objective import Objective
from riemannopt_dist.reader import SCORES, RunReader, StoredMaps
from riemannopt_dist.run.classifier import checked_classifier
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.config.requirements import check_metrics
from riemannopt_dist.run.directory import RUN, RunDirectory
from riemannopt_dist.run.examples import Example, example_of, with_boxes
from riemannopt_dist.run.finiteness import check_row
from riemannopt_dist.run.grid import Cell, cell_of
from riemannopt_dist.run.maps import CONVERGED, maps_of
from riemannopt_dist.run.memory import measured_batch_size
from riemannopt_dist.run.origin import code_digest
from riemannopt_dist.run.probe import check_resumption
from riemannopt_dist.run.progress import meter
from riemannopt_dist.run.schemas import RESULT, results_schema
from riemannopt_dist.run.stages.base import Row
from riemannopt_dist.run.stages.batches import image_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.names import RESULTS
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.storage.errors import DamagedFile


@dataclass(frozen=True)
class _Task:
    """A metric of a shard: the files of maps by their cells, and the scores of others that are there."""

    metric: Metric
    shard: str
    files: Mapping[Cell, str]
    scores: pa.Table

    @property
    def name(self) -> str:
        """The file of its scores."""
        return f"{SCORES}/{self.metric.name}/{self.shard}.parquet"


@dataclass(frozen=True)
class _Scorer:
    """The run, its configuration and examples by their ids, and what scores are computed with."""

    run: RunDirectory
    config: Config
    engine: Engine
    examples: Mapping[str, Example]


def score_run(
    run: RunReader, metrics: Sequence[str], images: str | None = None, **cells: Any
) -> dict[str, pa.Table]:
    """The scores of the chosen cells' stored maps by metric, as tables of result rows; the run keeps them.

    `images` is the address of the run's images where the run does not tell all of it, such as a password.
    Shards whose results are not there yet are left out, and so are converged maps. Raises ValueError for a
    metric that takes more than the maps that are stored, for a model other than the run's, and for an image
    that is not the one that was explained.
    """
    config = _config(run, metrics, images)
    stored = [one for one in run.stored_maps(**cells) if _cell(one).estimator != CONVERGED]
    chosen = [METRICS[name] for name in metrics]
    check_scorable(chosen, stored)
    shards = _shards(run.directory, stored)
    if not any(shards.values()):
        raise ValueError(f"{run.directory.storage.root}: no results of images with maps in it yet")
    tasks = [
        task for m in chosen for key in shards if (task := _task(run.directory, m, key, shards[key])).files
    ]
    if tasks:
        scorer = _scorer(run, config)
        with meter("score", sum(len(task.files) for task in tasks)) as progress:
            for task in tasks:
                rows = _rows(scorer, task)
                table = pa.Table.from_pylist([*rows], schema=task.scores.schema)
                run.directory.write_table(task.name, pa.concat_tables([task.scores, table]))
                progress.advance(len(task.files))
    return {name: run.scores(name, **cells) for name in metrics}


def check_scorable(metrics: Sequence[Metric], stored: Sequence[StoredMaps]) -> None:
    """Raise ValueError for a metric that takes more than stored maps, the images and the model."""
    if not stored:
        raise ValueError("maps: expected those of a cell of the grid, found converged ones alone")
    summed = next((one for one in stored if len(one.about["shape"]) == 2), None)
    for metric in metrics:
        if metric.needs_references:
            raise ValueError(
                f"metrics: {metric.name} compares with converged maps, which take gradients: ask for it in "
                "the configuration of `riemannopt evaluate`"
            )
        if summed is not None and not metric.of_channel_sums:
            raise ValueError(
                f"metrics: {metric.name} needs the attributions of every channel, and the maps of "
                f"{summed.name} are summed over them: store them with maps: {{channels: all}}"
            )


def _config(run: RunReader, metrics: Sequence[str], images: str | None) -> Config:
    """The run's configuration with these metrics, all of which can be computed here."""
    for name, times in Counter(metrics).items():
        METRICS.check(name)
        if times > 1:
            raise ValueError(f"metrics: expected each at most once, got {name!r} twice")
    config = make_config(run.about["config"], run.directory.storage.uri(RUN))
    config = config.model_copy(update={"metrics": tuple(metrics), "images": images or config.images})
    check_metrics(config)
    return config


def _scorer(run: RunReader, config: Config) -> _Scorer:
    """The run's model as its workers have it. Raises ValueError where it is another one."""
    about, name = run.about, config.model.name
    model = checked_classifier(name, config.model.weights, config.explain, **config.model.settings)
    if weights_digest(model_state(model)) != about["weights_digest"]:
        raise ValueError(f"model: {name} has other weights than when the run began: put the old ones back")
    if code_digest(name) not in {maker["code_digest"] for maker in (about, *about.get("resumed", ()))}:
        raise ValueError(
            f"model: the file of {name} is not what it was: let `riemannopt evaluate` go on with the run, "
            "which compares its values"
        )
    check_resumption(run.directory, config, model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = fast_classifier(name, model_state(model)).to(device)
    size = measured_batch_size(fast, device, config.internal_batch_size)
    engine = Engine(fast, device, source_files(config.images), size, Tally())
    rows = run.images().to_pylist()
    examples = with_boxes([example_of(row, config.targets) for row in rows if row["selected"]], config)
    by_id = {example.image.image_id: example for example in examples}
    return _Scorer(run.directory, config, engine, by_id)


def _shards(directory: RunDirectory, stored: Sequence[StoredMaps]) -> dict[str, dict[Cell, str]]:
    """The files of maps by shards and cells, of shards that are done."""
    done = directory.done_shards(RESULTS)
    shards: dict[str, dict[Cell, str]] = {key: {} for key in sorted(done)}
    for one in stored:
        for file in one.files:
            key = file.rpartition("/")[2].removesuffix(".parquet")
            if key in done:
                shards[key][_cell(one)] = file
    return shards


def _task(directory: RunDirectory, metric: Metric, shard: str, files: Mapping[Cell, str]) -> _Task:
    """What is left to do of a metric and a shard: the cells of which not every map has its score."""
    schema = results_schema([metric])
    task = _Task(metric, shard, files, schema.empty_table())
    if not directory.storage.exists(task.name):
        return task
    try:
        scores = directory.table(task.name, schema).select(schema.names).cast(schema)
    except DamagedFile as error:
        directory.put_aside(task.name, error)
        return task
    cells = _cells(scores)
    counts = Counter(cells)
    left = {cell: file for cell, file in files.items() if counts[cell] != directory.storage.count_rows(file)}
    return _Task(metric, shard, left, scores.filter(pa.array([c not in left for c in cells], pa.bool_())))


def _cells(scores: pa.Table) -> list[Cell]:
    """The cell of each row."""
    return [cell_of(row) for row in scores.select([*CELL]).to_pylist()]


def _rows(scorer: _Scorer, task: _Task) -> Iterator[Row]:
    """The scores of a task, a row an image and cell."""
    results = scorer.run.table(f"{RESULTS}/{task.shard}.parquet", RESULT)
    results = results.select([field.name for field in RESULT])
    known = {(row["image_id"], cell_of(row)): row for row in results.to_pylist()}
    images = _images(scorer, [*dict.fromkeys(results["image_id"].to_pylist())])
    for cell, file in task.files.items():
        maps = [*maps_of(scorer.run.table(file))]
        for start in range(0, len(maps), scorer.config.batch_size):
            names, values = zip(*maps[start : start + scorer.config.batch_size], strict=True)
            rows = [known[name, cell] for name in names]
            batch = _batch(scorer, rows, torch.stack([images[name] for name in names]), np.stack(values))
            yield from _scored(task.metric, rows, batch)


def _images(scorer: _Scorer, image_ids: Sequence[str]) -> dict[str, Tensor]:
    """The images of a shard, (C, H, W) each, as they were explained."""
    tensors: dict[str, Tensor] = {}
    refs = [scorer.examples[name].image for name in image_ids]
    try:
        for part, outcomes in image_batches(refs, scorer.engine, scorer.config.batch_size):
            for ref, outcome in zip(part, outcomes, strict=True):
                if isinstance(outcome, UnreadableImage):
                    raise ValueError(f"{ref.image_id}: {outcome}")
                tensors[ref.image_id] = outcome
    except ReplacedImage as error:
        raise ValueError(str(error)) from None
    return tensors


def _batch(scorer: _Scorer, rows: Sequence[Row], images: Tensor, maps: NDArray[np.float32]) -> MapBatch:
    """Images (B, C, H, W) with the maps of one cell, (B, C, H, W) or summed over channels (B, H, W)."""
    device, config = scorer.engine.device, scorer.config
    values = torch.zeros_like(images)
    if maps.ndim == 3:
        values[:, 0] = torch.from_numpy(maps)  # the channels' sum is this, to the last bit
    else:
        values[:] = torch.from_numpy(maps)

    def column(name: str) -> Tensor:
        return torch.tensor([row[name] for row in rows], device=device)

    size = scorer.engine.internal_batch_size
    return MapBatch(
        Objective(scorer.engine.model, column("target"), config.explain, size),
        images.to(device),
        values[None].to(device),
        f_input=column("f_input"),
        f_baseline=column("f_baseline")[None],
        seed=config.seed,
        boxes=[scorer.examples[row["image_id"]].framed_boxes(scorer.engine.model.framing) for row in rows],
        box_tolerance=BOX_TOLERANCE if config.boxes is None else config.boxes.tolerance,
        paths=[config.paths().get(rows[0]["path"])],
    )


def _scored(metric: Metric, rows: Sequence[Row], batch: MapBatch) -> Iterator[Row]:
    """The rows with the metric's values. Raises ValueError for one that is not finite."""
    columns = metric.compute(batch)
    for place, row in enumerate(rows):
        values = {
            name: column[0][place].tolist() if isinstance(column, Tensor) else column[place]
            for name, column in columns.items()
        }
        try:
            check_row({**row, **values}, [metric])
        except FloatingPointError as error:
            raise ValueError(f"{row['image_id']}: {error}") from None
        yield {**row, **values}


def _cell(stored: StoredMaps) -> Cell:
    return cell_of(stored.about["cell"])

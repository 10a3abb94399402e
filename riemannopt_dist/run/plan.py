"""What a run would do, before it does it: images, cells, gradients, forward passes, device time and size.

Numbers are upper bounds where only the run can tell: which images are selected, where a profile puts its
points, how many of them an image takes until a tolerance is met, and which images a metric skips.
"""

import math
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.estimators.base import NONE, Estimator, Placed, cost_together, shares
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.starts import distinct_starts
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.weights import RANDOM, is_published, weights_file
from riemannopt_dist.paths.base import PathFamily, paths_an_image
from riemannopt_dist.quadrature.optimize import optimize_schedules
from riemannopt_dist.quadrature.placement.table import depends_on
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.run import schemas
from riemannopt_dist.run.classes import class_names
from riemannopt_dist.run.classifier import check_choices, check_for_run, check_suitability
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.draw import check_enough, divided, drawn_order
from riemannopt_dist.run.examples import located
from riemannopt_dist.run.extension import Extension, extension_of
from riemannopt_dist.run.grid import Cell, place_per_image
from riemannopt_dist.run.inputs import labelled_images
from riemannopt_dist.run.maps import map_output
from riemannopt_dist.run.memory import CPU_BATCH
from riemannopt_dist.run.scaling import Node, scaling_in
from riemannopt_dist.run.shards import shards_of
from riemannopt_dist.run.speed import Kind, Speed, converged_samples, own_samples, shared_samples
from riemannopt_dist.run.status import StageStatus, read_status
from riemannopt_dist.run.steps import cuts
from riemannopt_dist.run.targets import with_class_index
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.redaction import without_secrets
from riemannopt_dist.text import duration, table_lines

START_SECONDS = 20.0
"""Until the first shard is begun: the model is checked, Ray starts, and workers import and load."""
SAMPLE_ROWS = 2000
LIST_LENGTH = 21


@dataclass(frozen=True)
class Work:
    """One kind of work in a stage: on how many images, and what each of them costs.

    `kind` is that of its gradients, where they take other than plain ones' time.
    """

    stage: str
    name: str
    images: int
    gradients: int
    passes: int
    kind: Kind | None = None

    def seconds(self, speed: Speed) -> float:
        """What it takes on one device."""
        return self.images * speed.seconds_of(self.kind, self.gradients, self.passes)

    def cells(self, speed: Speed) -> tuple[str, ...]:
        """A row of the table of all work."""
        each_and_all = (self.gradients, self.images * self.gradients, self.passes, self.images * self.passes)
        numbers = (str(self.images), *map(str, each_and_all))
        return (self.stage, self.name, *numbers, duration(self.seconds(speed)))


@dataclass(frozen=True)
class Plan:
    """A run's work, and what comes of it.

    `found` files of which `unusable` cannot be images, `fit` and `evaluated` images, `cells` of the grid and
    `controls`, the result files with their rows and bytes in all, and whether the run was begun before: then
    `stages` tell how far it is. Where the plan is an `extension` of it, the work is what that adds to it, of
    whose images `there` are to be evaluated. Of `workers`, this machine has `room` for so many.
    """

    config: Config
    found: int
    unusable: int
    fit: int
    evaluated: int
    cells: int
    work: tuple[Work, ...]
    result_files: int
    result_rows: int
    result_bytes: float
    begun: bool
    map_bytes: float = 0.0
    extension: Extension | None = None
    there: int = 0
    stages: tuple[StageStatus, ...] = ()
    workers: int = 1
    room: int = 1

    @property
    def kept_rows(self) -> int:
        """Result rows that are there and stay."""
        return 0 if self.extension is None else self.there * len(self.extension.kept)

    @property
    def gradients(self) -> int:
        """Gradient evaluations in all."""
        return sum(part.images * part.gradients for part in self.work)

    @property
    def passes(self) -> int:
        """Forward passes in all, of single images, but for those that belong to a gradient."""
        return sum(part.images * part.passes for part in self.work)

    def device_seconds(self, speed: Speed) -> float:
        """What the gradients and forward passes take on one device."""
        return sum(part.seconds(speed) for part in self.work)

    def wall_seconds(self, speed: Speed) -> float:
        """What the run takes here, from its start: stage by stage, until the last worker is done."""
        return START_SECONDS + sum(self._rounds(part) * part.seconds(speed) for part in self.work)

    def _rounds(self, part: Work) -> float:
        """The share of a work's shards that the busiest worker does."""
        images = {
            work.stage: work.images for work in reversed(self.work)
        }  # a stage's first work has them all
        shards = max(1, math.ceil(images[part.stage] / self.config.shard_size))
        return math.ceil(shards / self.workers) / shards

    @property
    def kinds(self) -> frozenset[Kind]:
        """Those of its gradients that take other than plain ones' time."""
        return frozenset(part.kind for part in self.work if part.kind is not None and part.images)

    def lines(self, speed: Speed) -> Iterator[str]:
        """For a terminal or a log."""
        config, seconds = self.config, self.device_seconds(speed)
        output, images = without_secrets(config.output), without_secrets(config.images)
        state = "to be extended" if self.extension else "begun before" if self.begun else "new"
        yield f"{output} ({state}): {config.model.name}"
        yield from self._begun_lines()
        yield f"images: {self.found} in {images}, {self.unusable} of them unusable"
        yield f"  {self.fit} to fit on, up to {self.evaluated} to evaluate (if classified correctly)"
        yield f"grid: {self.cells} cells, {len(config.controls)} controls"
        each_and_all = ("gradients each", "all gradients", "passes each", "all passes")
        heads = ("stage", "work", "images", *each_and_all, "device time")
        yield from table_lines([heads, *(part.cells(speed) for part in self.work)], left=2)
        yield f"gradients: {self.gradients} in all; forward passes beside them: {self.passes}"
        yield (
            f"time: {seconds / 3600:.3g} device hours ({duration(seconds)}) with {speed.gradients:.3g} "
            f"gradients/s and {speed.passes:.3g} forward passes/s, {speed.source}"
        )
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        fits = "which this machine has room for"
        if self.workers > self.room:
            fits = f"of {fits} {self.room or 'none'}"
        yield f"  {duration(self.wall_seconds(speed))} with {workers}, {fits}"
        size = self.result_bytes / 1e6
        stay = f", {self.kept_rows} rows of them as they are" if self.extension else ""
        yield f"results: {self.result_rows} rows in {self.result_files} files, about {size:.3g} MB{stay}"
        if self.map_bytes:
            yield f"maps: {self.map_bytes / 1e6:.3g} MB before compression"

    def _begun_lines(self) -> Iterator[str]:
        """What is there, and what the work is that the plan tells of."""
        if self.extension is not None:
            yield f"  more than before: {'; '.join(self.extension.words())}"
        if self.stages:
            done = ", ".join(
                f"{s.name} {s.done} of {'?' if s.images is None else s.images}" for s in self.stages
            )
            yield f"  images done there: {done}"
            yield f"  the work below is what is {'added' if self.extension else 'left'}"


def make_plan(config: Config) -> Plan:
    """The plan of `config`; nothing is written and Ray is not needed.

    Raises ValueError for a model that the run would refuse, images that cannot be had or too few of them,
    labels that the model lacks, and a directory of another run. Published weights are not fetched.
    """
    model, classes = _checked_model(config)
    names = config.model.class_names() or class_names(model, classes)
    config = with_class_index(config, names, classes)
    directory = RunDirectory(Storage(config.output))
    begun = directory.holds(config, None)
    run = directory.read_run() if begun else {}
    extension = extension_of(run, config) if begun else None
    refs = labelled_images(config, classes, names)
    drawn = _evaluated(refs, config)
    image_ids = [ref.image_id for ref in drawn]
    stored = map_output(config, image_ids)
    there = _images_there(extension, len(drawn))
    steps = [*cuts(run), *([there] if extension else ())]
    rows = len(drawn) * len(config.row_cells())
    stages = read_status(directory.storage).stages if begun else ()
    usable = sum(ref.reason is None for ref in refs)
    work = _work(config, model.input_shape, extension, usable, len(drawn))
    scaling = scaling_in(here := _this_machine(), config.scaling)
    return Plan(
        config=config,
        found=len(refs),
        unusable=sum(ref.reason is not None for ref in refs),
        fit=config.fit.images,
        evaluated=len(drawn),
        cells=len(config.cells()),
        work=tuple(work if extension else _left(work, stages)),
        result_files=len(shards_of(drawn, config.shard_size, located, steps)),
        result_rows=rows,
        result_bytes=rows * _bytes_a_row(config),
        begun=begun,
        map_bytes=0 if stored is None else stored.bytes_of(image_ids, model.input_shape),
        extension=extension,
        there=there,
        stages=stages,
        workers=scaling.workers,
        room=scaling.room_in(here),
    )


def _this_machine() -> list[Node]:
    """What there is for workers: one node."""
    return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]


def _left(work: Iterable[Work], stages: Iterable[StageStatus]) -> Iterator[Work]:
    """What is left of each stage's work, by its images."""
    shares = {stage.name: stage.left / stage.images for stage in stages if stage.left and stage.images}
    done = {stage.name for stage in stages if stage.left == 0}
    for part in work:
        share = 0.0 if part.stage in done else shares.get(part.stage, 1.0)
        yield replace(part, images=math.ceil(share * part.images))


def _images_there(extension: Extension | None, evaluated: int) -> int:
    """Those of the images evaluated that an extended run has had before."""
    limit = 0 if extension is None else extension.earlier.limit
    return evaluated if limit is None else min(limit, evaluated)


def _work(
    config: Config, shape: Sequence[int], extension: Extension | None, usable: int, evaluated: int
) -> Iterator[Work]:
    """All work of a run, or what is added to that of one that is extended."""
    if extension is None:
        yield Work("selection", "predictions", usable, 0, 1)
    yield from _fitting(config, config.fitted_paths() if extension is None else extension.newly_fitted)
    there = _images_there(extension, evaluated)
    if extension is not None and extension.lacking:
        for work in _results(config, shape, extension.lacking, range(there)):
            yield replace(work, name=f"{work.name}, of images there")
    yield from _results(config, shape, config.row_cells(), range(there, evaluated))


def _results(config: Config, shape: Sequence[int], rows: Sequence[Cell], places: range) -> Iterator[Work]:
    """The maps and metrics of cells and controls, of the images (C, H, W) at these places of the draw."""
    if places:
        yield from _evaluation(config, [cell for cell in rows if cell.path != NONE], places)
        yield from _metrics(config, shape, rows, len(places))


def _evaluated(refs: Sequence[ImageRef], config: Config) -> list[ImageRef]:
    """The images that would be evaluated if all that are not refused were selected.

    Errors are those of `check_enough`.
    """
    by_id = {ref.image_id: ref for ref in refs if ref.reason is None}
    check_enough(by_id, config)
    _, chosen = divided(drawn_order(list(by_id), config.seed), config.fit.images, config.limit)
    return [by_id[name] for name in chosen]


def _checked_model(config: Config) -> tuple[Classifier, int]:
    """The model, or one like it with random weights for those published, and the number of its classes.

    Raises ValueError for a model that the run would refuse.
    """
    name, weights, settings = config.model.name, config.model.weights, config.model.settings
    if weights_file(name, weights, settings) is None and weights != RANDOM and is_published(name):
        # Random weights stand in for published ones: their values say nothing.
        model = load_model(name, RANDOM, **settings)
        assert model.classes is not None
        check_choices(config)
        check_suitability(model, config)
        return model, model.classes
    model = load_model(name, weights, **settings)
    return model, check_for_run(model, config)


def _fitting(config: Config, paths: Sequence[str]) -> Iterator[Work]:
    """The profiles of paths that have fitted points in the grid, with a second pass if need be."""
    if config.fit.profiles is not None:
        return
    for stage in ("fit",) if config.fit.refine == "never" else ("fit", "refine"):
        for path in paths:
            family = config.paths()[path]  # a guided walk takes others than a path that is known before
            gradients = paths_an_image(family) * family.profile_gradients(config.fit.samples)
            yield Work(stage, path, config.fit.images, gradients, 0, shared_samples(path))


def _evaluation(config: Config, cells: Sequence[Cell], places: range) -> Iterator[Work]:
    """The maps: those that share gradients path by path, the others' own, and references."""
    images = len(places)
    at_once = CPU_BATCH if config.internal_batch_size == "auto" else config.internal_batch_size
    likely = {cell: _likely_place(cell, path) for cell, path in _with_path(config, cells)}
    for label, path in config.paths().items():
        members = {cell: ESTIMATORS[cell.estimator] for cell in cells if cell.path == label}
        groups: dict[str, list[tuple[Estimator, Placed]]] = defaultdict(list)
        kinds = {label: shared_samples(label), **{str(cell): own_samples(cell) for cell in members}}
        for cell, estimator in members.items():
            place = likely[cell]
            groups[label if shares(estimator, place) else str(cell)].append((estimator, place))
        for name, group in groups.items():
            cost = cost_together(path, group, config.explain, at_once)
            shown = f"{name}, {len(group)} cells" if name == label else name
            yield Work("results", shown, images, cost.gradients, cost.passes, kinds[name])
    if "reference" in config.metrics:
        compared = len(places[: max(0, (config.reference.images or places.stop) - places.start)])
        for label, path in config.paths().items():
            schedules = [
                likely[cell].schedule
                for cell in cells
                if cell.path == label and ESTIMATORS[cell.estimator].tends_to_integral
            ]
            if gradients := path.reference_gradients(schedules, config.reference.intervals):
                each, kind = paths_an_image(path) * gradients, converged_samples(label)
                yield Work("results", f"reference {label}", compared, each, 0, kind)


def _with_path(config: Config, cells: Iterable[Cell]) -> Iterator[tuple[Cell, PathFamily]]:
    paths = config.paths()
    return ((cell, paths[cell.path]) for cell in cells)


def _metrics(config: Config, shape: Sequence[int], rows: Sequence[Cell], images: int) -> Iterator[Work]:
    """The forward passes of the metrics, and of f at black, which serves all that ask for it."""
    metrics = [METRICS[name] for name in config.metrics]
    if any(metric.needs_f_black for metric in metrics):
        yield Work("results", "f at black", images, 0, 1)
    starts = 0
    if any(metric.passes_a_start for metric in metrics):
        paths = config.paths()
        noise = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
        starts = len(distinct_starts([paths.get(cell.path) for cell in rows], noise))
    for metric in metrics:
        passes = metric.passes_a_map * len(rows) + metric.passes_a_start * starts + metric.passes_an_image
        if passes:
            yield Work("results", metric.name, images, 0, passes)


def _likely_place(cell: Cell, path: PathFamily) -> Placed:
    """A place that shares its points with others as the cell's own will, wherever the profile puts them.

    Partitions of one placement into as many intervals may be the same under every rule or not, and those of
    other counts nested or not: a stand-in profile for those that are alike.
    """
    rule = ESTIMATORS[cell.estimator].rule(path)
    if cell.per_image:
        return place_per_image(cell, rule)
    if not cell.fitted:
        return Placed(cell.samples, linear_schedule(cell.samples, rule))
    key = (cell.path, cell.placement, *depends_on(cell.placement, rule, cell.samples))
    magnitudes = np.random.default_rng(zlib.crc32(repr(key).encode())).random(32)
    points = np.linspace(0.0, 1.0, len(magnitudes))
    stand_in = Profile(tuple(points), tuple(magnitudes), (0.0,) * len(points), images=1)
    solved = optimize_schedules(stand_in, [cell.samples], [rule], "equidistribution")
    return Placed(cell.samples, solved[rule, cell.samples])


def _bytes_a_row(config: Config) -> float:
    """What a row takes in a result file: of a file of random numbers, which hardly compress."""
    rng = np.random.default_rng(0)
    schema = schemas.results_schema(METRICS[name] for name in config.metrics)
    columns = [pa.array(_sample(field.type, rng), field.type) for field in schema]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink, compression="zstd")
    return float(sink.getvalue().size) / SAMPLE_ROWS


def _sample(kind: pa.DataType, rng: np.random.Generator) -> Any:
    if pa.types.is_list(kind):
        return list(rng.random((SAMPLE_ROWS, LIST_LENGTH), dtype=np.float32))
    if pa.types.is_string(kind):
        return ["n00000000/image_00000000.JPEG"] * SAMPLE_ROWS
    return rng.integers(0, 1000, SAMPLE_ROWS) if pa.types.is_integer(kind) else rng.random(SAMPLE_ROWS)

"""The driver: select the images, fit the schedules, evaluate, each stage's shards over Ray actors."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import ray
from ray.actor import ActorHandle

from riemannopt_dist.choices import Framing
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.uri_list import source_files
from riemannopt_dist.estimators.base import Placed
from riemannopt_dist.metrics.metric import BOX_TOLERANCE
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.state import model_state, weights_digest
from riemannopt_dist.quadrature.placement.equidistribution import density_partitions
from riemannopt_dist.quadrature.profile import Profile, Variations, equispaced
from riemannopt_dist.quadrature.refinement import merged, needs_refinement, refining_positions
from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.quadrature.schedule import Array, Schedule
from riemannopt_dist.run.allocator import KEEP_MEMORY
from riemannopt_dist.run.classes import class_names
from riemannopt_dist.run.classifier import check_for_run
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.scaling import ScalingConfig
from riemannopt_dist.run.directory import FAILURES, IMAGES, Probe, RunDirectory
from riemannopt_dist.run.draw import draw
from riemannopt_dist.run.errors import Interrupted, Stopped
from riemannopt_dist.run.examples import KNOWN, Example, evaluated_examples, example_of, with_boxes
from riemannopt_dist.run.extension import extend, kept_cells
from riemannopt_dist.run.grid import Cell, cell_of, place
from riemannopt_dist.run.inputs import labelled_images
from riemannopt_dist.run.lock import Lock, hold
from riemannopt_dist.run.maps import compared_images, map_output
from riemannopt_dist.run.origin import Origin
from riemannopt_dist.run.probe import check_resumption, probes_of
from riemannopt_dist.run.profiles import read_profiles
from riemannopt_dist.run.ray.cluster import alive_nodes, check_cluster, one_line_of, start_alone
from riemannopt_dist.run.ray.pool import Pool
from riemannopt_dist.run.ray.stage_run import Run, run_stage
from riemannopt_dist.run.ray.telemetry import DriverTelemetry
from riemannopt_dist.run.ray.worker import AT_A_TIME, Payload, ShardWorker
from riemannopt_dist.run.scaling import Scaling, scaling_in
from riemannopt_dist.run.stages.evaluate import Evaluation
from riemannopt_dist.run.stages.fit import Fitting
from riemannopt_dist.run.stages.names import FIT, REFINE, RESULTS, SELECTION
from riemannopt_dist.run.stages.select import Selection
from riemannopt_dist.run.steps import cuts
from riemannopt_dist.run.targets import with_class_index
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DamagedFile, StorageError

logger = logging.getLogger(__name__)
T = TypeVar("T")
LATER_STAGES = (FIT, REFINE, RESULTS)
"""What rests on the images selected."""


def evaluate(config: Config, finish: Callable[[RunDirectory], None] = lambda directory: None) -> RunDirectory:
    """Run `config` to its end, or go on with the run that its output directory holds.

    `finish` is called at the end, as long as this driver still holds the run's lock: what it writes through
    the directory that it is given is written under that.

    Ray is started if it is not up. Raises ValueError, before that and before anything is written, for a model
    or images that cannot be had, a model that cannot be explained (`check_for_run`), labels that it lacks,
    and a directory that holds another run, or this one begun with other values of the model; later, for too
    few images, and where none goes through the model. InUse where another driver is at work on this run, or
    took it over; Stopped where a storage does not answer, its Interrupted if SIGTERM or SIGINT came.
    """
    model = load_model(config.model.name, config.model.weights, **config.model.settings)
    classes = check_for_run(model, config)
    names = config.model.class_names() or class_names(model, classes)
    config = with_class_index(config, names, classes)
    state = model_state(model)
    digest = weights_digest(state)
    if config.fit.profiles is not None:
        read_profiles(config.fit.profiles, config.fitted_paths())
    directory = RunDirectory(Storage(config.output))
    refs = _new_listing(directory, config, digest, classes, names)
    probes = probes_of(model, source_files(config.images), refs)
    if not refs:
        check_resumption(directory, config, model)
    with ray_session():
        scaling = find_scaling(config.scaling)
        with hold(directory.storage) as lock, _stops(lock), _stop_signal() as stop:
            patience = config.scaling.patience
            storage = directory.storage.guarded(lambda: lock.check(patience)).patient(patience)
            guarded = RunDirectory(storage, lock.holder.term)
            _or_aside(guarded, FAILURES, guarded.read_failures)
            _claim(guarded, config, digest, refs, probes, model.framing)
            if names is not None and guarded.read_class_names() is None:
                guarded.write_class_names(names)
            spawn = _spawner(config, directory.storage, guarded.origin(), state, scaling)
            with Pool(spawn, scaling.workers) as pool:
                run = Run(
                    config,
                    guarded,
                    pool,
                    DriverTelemetry(directory.storage.root),
                    lambda: stop() or lock.lost(),
                    lambda: scaling_now(scaling, config.scaling).workers,
                    scaling,
                )
                _run_stages(run)
            lock.check()
            finish(guarded)
    return directory


def _run_stages(run: Run) -> None:
    """Selection, fit and evaluation, as far as they are not done."""
    config, about = run.config, run.directory.read_run()
    images = _selected_images(run)
    profiles = _profiles(run, images)
    placed = _placed(run, profiles)
    for path, profile in profiles.items():
        run.directory.write_schedules(path, profile, _fitted_schedules(placed, path))
    examples = evaluated_examples(images, config)
    image_ids = [example.image.image_id for example in examples]
    stage = Evaluation(
        placed=placed,
        paths=config.paths(),
        controls=config.controls,
        metrics=config.metrics,
        reference_edges=_reference_edges(config, profiles),
        reference_images=compared_images(config, image_ids),
        explain=config.explain,
        batch_size=config.batch_size,
        seed=config.seed,
        precision=config.precision.maps,
        score_precision=config.precision.scores,
        box_tolerance=BOX_TOLERANCE if config.boxes is None else config.boxes.tolerance,
        maps=map_output(config, image_ids),
        kept_cells=kept_cells(about, config),
    )
    run_stage(run, stage, with_boxes(examples, config), cuts=cuts(about), last=True)


def _placed(run: Run, profiles: Mapping[str, Profile]) -> dict[Cell, Placed]:
    """Where the samples of every cell are. Schedules that are stored stay: rows may rest on them."""
    cells = run.config.cells()
    fields = [run.directory.read_schedules(path) or {} for path in profiles]
    stored = {
        cell_of({"tolerance": None, **one}): Schedule(
            tuple(one["points"]), tuple(one["weights"]), one.get("reach", 1.0)
        )
        for path in fields
        for one in path.get("schedules", ())
    }
    placed = place((cell for cell in cells if cell not in stored), run.config.paths(), profiles)
    return placed | {c: Placed(c.samples, stored[c]) for c in cells if c in stored}


def _fitted_schedules(placed: Mapping[Cell, Placed], path: str) -> dict[Cell, Schedule]:
    """The schedules of a path's cells that were placed by its profile."""
    return {
        cell: where.schedule
        for cell, where in sorted(placed.items(), key=lambda item: item[0])
        if cell.fitted and cell.path == path and where.schedule is not None
    }


def _spawner(
    config: Config, storage: Storage, origin: Origin, state: Mapping[str, Array], scaling: Scaling
) -> Callable[[], ActorHandle[Any]]:
    """What starts a worker: the model's weights go into Ray's store once, and stay there for its lifetime."""
    files, name, batch = source_files(config.images), config.model.name, config.internal_batch_size
    payload = ray.put(Payload(name, state, storage, files, scaling.cpus, scaling.gpus, batch, origin))
    actor: Any = ray.remote(ShardWorker).options(
        num_cpus=scaling.cpus,
        num_gpus=scaling.gpus,
        max_concurrency=AT_A_TIME,
        runtime_env={"env_vars": KEEP_MEMORY},
    )
    return lambda: actor.remote([payload])


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray, for the time of a run: the cluster that RAY_ADDRESS names, or this machine alone.

    Raises ValueError where RAY_ADDRESS is no address, ConnectionError where no Ray answers there, or one that
    refuses this process: for its token, or its versions.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if (address := os.environ.get("RAY_ADDRESS", "")) not in ("", "local"):
        check_cluster(address)
        with one_line_of(f"RAY_ADDRESS {address}"):
            ray.init(logging_level=logging.WARNING, log_to_driver=False, configure_logging=False)
    else:
        with one_line_of("Ray on this machine"):
            start_alone()
    try:
        yield
    finally:
        ray.shutdown()


def find_scaling(config: ScalingConfig) -> Scaling:
    """One worker a GPU where the cluster has any, else one for every `cpus_per_worker` CPUs of a node."""
    return scaling_in(alive_nodes(), config)


def scaling_now(scaling: Scaling, config: ScalingConfig) -> Scaling:
    """The scaling for what is there now, as nodes come and go; what a worker takes stays as it was."""
    return find_scaling(config.model_copy(update={"gpus_per_worker": scaling.gpus}))


def _new_listing(
    directory: RunDirectory, config: Config, weights_digest: str, classes: int, names: Sequence[str] | None
) -> list[ImageRef]:
    """What the image source holds; nothing where the run has listed it already.

    Raises ValueError for a directory of another run, and for a label that is none of the model's classes.
    """
    if directory.holds(config, weights_digest) and directory.is_listed:
        return []
    return labelled_images(config, classes, names)


def _claim(
    directory: RunDirectory,
    config: Config,
    weights_digest: str,
    refs: list[ImageRef],
    probes: Sequence[Probe],
    framing: Framing,
) -> None:
    """Make the locked directory that of `config` and the images `refs`, where it is not yet."""
    if not directory.holds(config, weights_digest):
        directory.claim(config, weights_digest, framing)
    elif (extension := extend(directory, config)) is not None:
        logger.info("%s: goes on with more: %s", directory.storage.root, "; ".join(extension.words()))
    directory.admit(config.baseline_digests())
    # Whoever held the lock before may have listed them: one listing is the run's.
    if not directory.is_listed:
        directory.write_probes(probes)
        directory.write_listing(refs)


def _selected_images(run: Run) -> list[dict[str, Any]]:
    """images.parquet: read where it is there, else made by the selection stage.

    Images that it gave up on for a reason that is not their own are tried again. Where a later stage rests on
    the others, those that can be used now are drawn after them: nothing that was done changes.
    """
    images = _or_aside(run.directory, IMAGES, run.directory.read_images)
    again = _again(run, SELECTION)
    if images is None or (again and not any(map(run.directory.done_shards, LATER_STAGES))):
        images = _select(run)
        run.directory.write_images(images)
    elif again:
        draw_before = max(row["draw"] or 0 for row in images)
        later = {
            row["image_id"]: {**row, "in_fit": False, "draw": draw_before + 1}
            for row in _selection(run)
            if row["image_id"] in again
        }
        images = [later.get(row["image_id"], row) for row in images]
        run.directory.write_images(images)
    draw(images, run.config)
    return images


def _select(run: Run) -> list[dict[str, Any]]:
    """The rows of images.parquet, by the selection stage."""
    rows = [{**row, "in_fit": False, "draw": 0} for row in _selection(run)]
    enough = sum(row["selected"] for row in rows) > run.config.fit.images
    in_fit = set(draw(rows, run.config)[0]) if enough else set()
    return [{**row, "in_fit": row["image_id"] in in_fit} for row in rows]


def _selection(run: Run) -> list[dict[str, Any]]:
    """What the selection stage tells of every image."""
    refs = [ImageRef(**row) for row in run.directory.read_listing() or []]
    config = run.config
    stage = Selection(config.batch_size, config.select, config.min_probability, config.targets)
    run_stage(run, stage, refs)
    selected = {row["image_id"]: row for row in run.directory.shard_rows(SELECTION)}
    reasons = {f.image_id: f.reason for f in run.directory.read_failures() if f.stage == SELECTION}
    return [selected.get(ref.image_id) or _unusable(ref, reasons[ref.image_id]) for ref in refs]


def _again(run: Run, stage: str) -> frozenset[str]:
    """The images that a stage gave up on for a reason that is not their own, to be tried again."""
    return frozenset(f.image_id for f in run.directory.read_failures() if f.stage == stage and not f.own)


def _profiles(run: Run, images: Sequence[dict[str, Any]]) -> dict[str, Profile]:
    """The profile of every path that some cell of the grid takes fitted points on.

    Those that are stored stay: results may have been computed with them, and an image that could not be
    sampled then may be sampled now.
    """
    fit = run.config.fit
    paths = run.config.fitted_paths()
    stored = {path: _stored_profile(run.directory, path) for path in paths}
    known = {path: Profile.from_fields(fields) for path, fields in stored.items() if fields is not None}
    if len(known) == len(paths):
        return known
    if fit.profiles is not None:
        return read_profiles(fit.profiles, paths) | known
    examples = [example_of(row, run.config.targets) for row in images if row["in_fit"]]
    first = _variations(run, FIT, examples, dict.fromkeys(paths, equispaced(fit.samples)))
    profiles = {path: sampled.profile(fit.average) for path, sampled in first.items()}
    # A second pass that has begun keeps its positions, whatever the first one has gained since.
    begun = _sampled_positions(run, REFINE)
    refining = begun | {
        path: refining_positions(profile, fit.samples)
        for path, profile in profiles.items()
        if path not in begun and path not in known and needs_refinement(profile, fit.refine)
    }
    second = _variations(run, REFINE, examples, refining)
    refined = {path: merged(first[path], sampled, fit.average) for path, sampled in second.items()}
    return profiles | refined | known


def _stored_profile(directory: RunDirectory, path: str) -> dict[str, Any] | None:
    return _or_aside(directory, f"schedules/{path}.json", lambda: directory.read_profile(path))


def _or_aside(directory: RunDirectory, name: str, read: Callable[[], T]) -> T | None:
    """What `read` makes of a file; None where it is damaged: then it is put aside, and made anew."""
    try:
        return read()
    except DamagedFile as error:
        directory.put_aside(name, error)
        return None


def _sampled_positions(run: Run, stage: str) -> dict[str, Array]:
    """At which positions a pass over the fit subset has sampled each path, as far as it has come."""
    return {row["path"]: np.array(row["alphas"]) for row in run.directory.shard_rows(stage)}


def _variations(
    run: Run, name: str, examples: Sequence[Example], positions: Mapping[str, Array]
) -> dict[str, Variations]:
    """One pass over the fit subset, at each path's positions."""
    if not positions:
        return {}
    config = run.config
    points = {path: tuple(alphas.tolist()) for path, alphas in positions.items()}
    stage = Fitting(name, points, config.paths(), config.explain, config.batch_size, config.precision.maps)
    run_stage(run, stage, examples)
    sampled: dict[str, list[list[float]]] = {path: [] for path in positions}
    for row in run.directory.shard_rows(name):
        sampled[row["path"]].append(row["variation"])
    if not all(sampled.values()):
        raise ValueError(
            f"{name}: none of the {len(examples)} images to fit on could be sampled "
            f"({run.directory.storage.uri(FAILURES)} says why)"
        )
    return {path: Variations(alphas, np.array(sampled[path])) for path, alphas in positions.items()}


def _reference_edges(config: Config, profiles: Mapping[str, Profile]) -> dict[str, Array]:
    """The partition of each path's converged maps, where they are asked for."""
    if "reference" not in config.metrics:
        return {}
    count = config.reference.intervals
    edges = {}
    for path in config.paths():
        profile = profiles.get(path)
        edges[path] = (
            linear_partition(count)
            if profile is None
            else density_partitions(profile, "trapezoid", [count])[0]
        )
    return edges


def _unusable(ref: ImageRef, reason: str) -> dict[str, Any]:
    blank = dict.fromkeys(("prediction", "probability"))
    known = {key: getattr(ref, key) for key in KNOWN}
    return {**known, **blank, "selected": False, "error": reason}


@contextmanager
def _stops(lock: Lock) -> Iterator[None]:
    """How a run that holds its lock ends before its end.

    Raises Stopped for what a storage refuses the driver, but for a damaged file, which stays so; TakenOver
    where it was not a signal that interrupted the run but the loss of the lock.
    """
    try:
        yield
    except Interrupted:
        if lock.lost():
            lock.check()
        raise
    except DamagedFile:
        raise
    except StorageError as error:
        raise Stopped(f"a storage does not answer: {error}") from None


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM (a spot notice, say) or SIGINT came; a second one interrupts at once."""
    event = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        logger.warning("%s: finishing the shards in flight", signal.Signals(number).name)
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

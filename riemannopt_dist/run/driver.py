"""The driver: select the images, fit the schedules, evaluate, each stage's shards over Ray actors."""

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle

from riemannopt_dist.images import ImageRef, files_of, list_images
from riemannopt_dist.methods import METHODS
from riemannopt_dist.models import load_model, model_state, weights_digest
from riemannopt_dist.optimize import density_partitions
from riemannopt_dist.profile import Profile, Variations, equispaced
from riemannopt_dist.refinement import merged, needs_refinement, refining_positions
from riemannopt_dist.run.batches import Subject, image_of, located
from riemannopt_dist.run.classifier import check_for_run, check_labels
from riemannopt_dist.run.cluster import check_cluster
from riemannopt_dist.run.config import Config, Means
from riemannopt_dist.run.directory import FAILURES, Failure, Probe, RunDirectory
from riemannopt_dist.run.dispatcher import Lost, PoolState, dispatch
from riemannopt_dist.run.evaluation import Evaluation
from riemannopt_dist.run.fitting import Fitting
from riemannopt_dist.run.grid import cell_schedules
from riemannopt_dist.run.ledger import PATIENCE, Done, Failed, Probed, Task
from riemannopt_dist.run.lock import hold
from riemannopt_dist.run.pool import Pool
from riemannopt_dist.run.probe import check_resumption, probes_of
from riemannopt_dist.run.profiles import read_profiles
from riemannopt_dist.run.progress import meter
from riemannopt_dist.run.selection import Selection
from riemannopt_dist.run.shards import Piece, drawn_order, runs_of, shards_of
from riemannopt_dist.run.stage import Stage
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.run.telemetry import DriverTelemetry
from riemannopt_dist.run.trial import Trial
from riemannopt_dist.run.worker import Payload, ShardWorker
from riemannopt_dist.schedule import Array, linear_partition
from riemannopt_dist.stores import without_secrets

logger = logging.getLogger(__name__)

LATER_STAGES = ("fit", "refine", Evaluation.name)
"""What rests on the images selected."""

# What images.parquet keeps of an ImageRef.
KNOWN = ("image_id", "uri", "offset", "size", "group", "label")

# A process that frees and takes the same large blocks for every gradient spends a third of its time on page
# faults unless the C library keeps them (glibc; ignored elsewhere).
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


class Stopped(RuntimeError):
    """The run was asked to stop, or a storage does not answer. What is finished is stored, and the same
    command goes on from there."""


@dataclass(frozen=True)
class Crew:
    """How many workers there may be, and what each one takes."""

    workers: int
    cpus: int
    gpus: float


def evaluate(config: Config) -> RunDirectory:
    """Run `config` to its end, or go on with the run that its output directory holds.

    Ray is started if it is not up. Raises ValueError, before that and before anything is written, for a model
    or images that cannot be had, a model that cannot be explained (`check_for_run`), labels that it lacks,
    and a directory that holds another run, or this one begun with other values of the model; later, for too
    few images, and where none goes through the model. InUse where another driver is at work on this run;
    Stopped if SIGTERM or SIGINT came, another driver took over, or a storage does not answer.
    """
    model = load_model(config.model.name, config.model.weights)
    classes = check_for_run(model, config)
    state = model_state(model)
    digest = weights_digest(state)
    if config.fit.profiles is not None:
        read_profiles(config.fit.profiles, fitted_families(config))
    directory = RunDirectory(Storage(config.output))
    refs = _new_listing(directory, config, digest, classes)
    probes = probes_of(model, files_of(config.images), refs)
    if not refs:
        check_resumption(directory, config, model)
    with ray_session():
        crew = find_crew(config.means)
        with (
            _claimed(directory, config, digest, refs, probes) as (listed, lost),
            _stop_signal() as stop,
            Pool(_spawner(config, directory, state, crew), crew.workers) as pool,
        ):
            telemetry = DriverTelemetry(directory.storage.root)
            _run_stages(_Run(config, directory, pool, crew, telemetry, lambda: stop() or lost()), listed)
    return directory


def _run_stages(run: "_Run", refs: list[ImageRef]) -> None:
    """Selection, fit and evaluation, as far as they are not done."""
    config = run.config
    images = _selected_images(run, refs)
    profiles = _profiles(run, images)
    schedules = cell_schedules(config.cells(), profiles)
    for family, profile in profiles.items():
        fitted = {c: s for c, s in schedules.items() if c.fitted and METHODS[c.method].family == family}
        run.directory.write_schedules(family, profile, fitted)
    subjects = evaluated_subjects(images, config)
    stage = Evaluation(
        schedules=schedules,
        per_image=tuple(cell for cell in config.cells() if cell.per_image),
        profiles=profiles,
        controls=config.controls,
        metrics=config.metrics,
        reference_edges=_reference_edges(config, profiles),
        reference_images=frozenset(s.image.image_id for s in subjects[: config.reference.images]),
        explain=config.explain,
        walk=config.guided.walk(),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    _run_stage(run, stage, subjects, last=True)


def _spawner(
    config: Config, directory: RunDirectory, state: Mapping[str, Array], crew: Crew
) -> Callable[[], ActorHandle[Any]]:
    """What starts a worker: the model's weights go into Ray's store once, and stay there for its lifetime."""
    files, name, batch = files_of(config.images), config.model.name, config.internal_batch_size
    storage, origin = directory.storage, directory.origin()
    payload = ray.put(Payload(name, state, storage, files, crew.cpus, crew.gpus, batch, origin))
    actor: Any = ray.remote(ShardWorker).options(
        num_cpus=crew.cpus, num_gpus=crew.gpus, runtime_env={"env_vars": KEEP_MEMORY}
    )
    return lambda: actor.remote([payload])


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray, for the time of a run: the cluster that RAY_ADDRESS names, or this machine alone.

    Raises ValueError where RAY_ADDRESS is no address, ConnectionError where no Ray answers there.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if (address := os.environ.get("RAY_ADDRESS", "")) not in ("", "local"):
        check_cluster(address)
        try:
            ray.init(logging_level=logging.WARNING, log_to_driver=False, configure_logging=False)
        except (OSError, RuntimeError) as error:
            *_, reason = str(error).splitlines()  # of a long one the last line says it
            raise ConnectionError(f"RAY_ADDRESS {address}: {reason}") from None
    else:
        # Without a choice of its own a local start would write a token file that later head nodes insist on.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        # "local": some other Ray of this machine, which may end at any time, is not joined by accident.
        ray.init(
            "local",
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            configure_logging=False,
        )
    try:
        yield
    finally:
        ray.shutdown()


def find_crew(means: Means) -> Crew:
    """One worker a GPU where the cluster has any, else one for every `cpus_per_worker` CPUs."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = means.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    room = math.floor(
        resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / means.cpus_per_worker
    )
    workers = max(means.min_workers, min(room, means.max_workers or room))
    return Crew(workers, means.cpus_per_worker, gpus)


def crew_now(crew: Crew, means: Means) -> Crew:
    """The crew for what is there now, as nodes come and go; what a worker takes stays as it was."""
    return find_crew(means.model_copy(update={"gpus_per_worker": crew.gpus}))


def draw(ids: Sequence[str], config: Config) -> tuple[list[str], list[str]]:
    """The fit subset and the images to evaluate, drawn without replacement with the run's seed.

    Raises ValueError if there are not enough for the fit subset and one more.
    """
    order = drawn_order(ids, config.seed)
    if len(order) <= config.fit.images:
        raise ValueError(
            f"fit.images: {config.fit.images} images to fit on and at least one to evaluate were asked for, "
            f"only {len(order)} of {without_secrets(config.images)} can be used (images.parquet says why)"
        )
    rest = order[config.fit.images :]
    return order[: config.fit.images], rest[: config.limit]


def evaluated_subjects(images: Sequence[dict[str, Any]], config: Config) -> list[Subject]:
    """The subjects to evaluate, in the order in which they were drawn."""
    by_id = {row["image_id"]: row for row in images if row["selected"]}
    _, chosen = draw(list(by_id), config)
    return [_subject(by_id[image_id]) for image_id in chosen]


@dataclass(frozen=True)
class _Run:
    config: Config
    directory: RunDirectory
    pool: Pool
    crew: Crew
    telemetry: DriverTelemetry
    stop: Callable[[], bool]


def _new_listing(
    directory: RunDirectory, config: Config, weights_digest: str, classes: int
) -> list[ImageRef]:
    """What the image source holds; nothing where the run has listed it already.

    Raises ValueError for a directory of another run, and for a label that is none of the model's classes.
    """
    if directory.holds(config, weights_digest) and directory.read_listing() is not None:
        return []
    refs = list_images(config.images, config.labels, config.image_extensions)
    check_labels(refs, classes)
    return refs


@contextmanager
def _claimed(
    directory: RunDirectory,
    config: Config,
    weights_digest: str,
    refs: list[ImageRef],
    probes: Sequence[Probe],
) -> Iterator[tuple[list[ImageRef], Callable[[], bool]]]:
    """The directory, locked and of `config`: its images (`refs` if new), and whether the lock is lost."""
    with hold(directory.storage) as lost:
        if not directory.holds(config, weights_digest):
            directory.claim(config, weights_digest)
        directory.admit()
        # Whoever held the lock before may have listed them: one listing is the run's.
        if (found := directory.read_listing()) is not None:
            refs = [ImageRef(**row) for row in found]
        else:
            directory.write_probes(probes)
            directory.write_listing(refs)
        yield refs, lost


def _selected_images(run: _Run, refs: list[ImageRef]) -> list[dict[str, Any]]:
    """images.parquet: read where it is there, else made by the selection stage.

    It is made anew where the model failed on images of it, as long as no later stage rests on it.
    """
    images = run.directory.read_images()
    failed = any(_again(run, Selection.name)) and not any(map(run.directory.done_shards, LATER_STAGES))
    if images is None or failed:
        images = _select(run, refs)
        run.directory.write_images(images)
    draw([row["image_id"] for row in images if row["selected"]], run.config)
    return images


def _select(run: _Run, refs: list[ImageRef]) -> list[dict[str, Any]]:
    """The rows of images.parquet, by the selection stage."""
    config = run.config
    _run_stage(run, Selection(config.batch_size), refs)
    found = {row["image_id"]: row for row in run.directory.shard_rows(Selection.name)}
    reasons = {f.image_id: f.reason for f in run.directory.read_failures() if f.stage == Selection.name}
    rows = [found.get(ref.image_id) or _unusable(ref, reasons[ref.image_id]) for ref in refs]
    selected = [row["image_id"] for row in rows if row["selected"]]
    in_fit = set(draw(selected, config)[0]) if len(selected) > config.fit.images else set()
    return [{**row, "in_fit": row["image_id"] in in_fit} for row in rows]


def _again(run: _Run, stage: str) -> frozenset[str]:
    """The images that a stage gave up on for a reason that is not their own, to be tried again."""
    return frozenset(f.image_id for f in run.directory.read_failures() if f.stage == stage and not f.own)


def _profiles(run: _Run, images: Sequence[dict[str, Any]]) -> dict[str, Profile]:
    """The profile of every family that has a fitted schedule in the grid.

    Those stored, where all are: results may have been computed with them, and an image that could not be
    sampled then may be sampled now.
    """
    fit = run.config.fit
    families = fitted_families(run.config)
    stored = {family: run.directory.read_profile(family) for family in families}
    known = {family: Profile.from_fields(fields) for family, fields in stored.items() if fields is not None}
    if len(known) == len(families):
        return known
    if fit.profiles is not None:
        return read_profiles(fit.profiles, families)
    subjects = [_subject(row) for row in images if row["in_fit"]]
    first = _variations(run, "fit", subjects, dict.fromkeys(families, equispaced(fit.samples)))
    profiles = {family: sampled.profile(fit.average) for family, sampled in first.items()}
    # A second pass that has begun keeps its positions, whatever the first one has gained since.
    refining = _sampled_positions(run, "refine") or {
        family: refining_positions(profile, fit.samples)
        for family, profile in profiles.items()
        if needs_refinement(profile, fit.refine)
    }
    second = _variations(run, "refine", subjects, refining)
    return profiles | {
        family: merged(first[family], sampled, fit.average) for family, sampled in second.items()
    }


def fitted_families(config: Config) -> list[str]:
    """The paths that some cell of the grid takes fitted points on."""
    return sorted({METHODS[cell.method].family for cell in config.cells() if cell.fitted})


def _sampled_positions(run: _Run, stage: str) -> dict[str, Array]:
    """At which positions a pass over the fit subset has sampled each family, as far as it has come."""
    return {row["method"]: np.array(row["alphas"]) for row in run.directory.shard_rows(stage)}


def _variations(
    run: _Run, name: str, subjects: Sequence[Subject], positions: Mapping[str, Array]
) -> dict[str, Variations]:
    """One pass over the fit subset, at each family's positions."""
    if not positions:
        return {}
    config = run.config
    points = {family: tuple(alphas.tolist()) for family, alphas in positions.items()}
    stage = Fitting(name, points, config.explain, config.guided.walk(), config.batch_size)
    _run_stage(run, stage, subjects)
    sampled: dict[str, list[list[float]]] = {family: [] for family in positions}
    for row in run.directory.shard_rows(name):
        sampled[row["method"]].append(row["variation"])
    if not all(sampled.values()):
        raise ValueError(
            f"{name}: none of the {len(subjects)} images to fit on could be sampled "
            f"({run.directory.storage.uri(FAILURES)} says why)"
        )
    return {family: Variations(alphas, np.array(sampled[family])) for family, alphas in positions.items()}


def _reference_edges(config: Config, profiles: Mapping[str, Profile]) -> dict[str, Array]:
    """The partition of each family's converged maps, where they are asked for."""
    if "reference" not in config.metrics:
        return {}
    count = config.reference.intervals
    edges = {}
    for family in {METHODS[cell.method].family for cell in config.cells()}:
        profile = profiles.get(family)
        edges[family] = (
            linear_partition(count)
            if profile is None
            else density_partitions(profile, "trapezoid", [count])[0]
        )
    return edges


def _run_stage(run: _Run, stage: Stage, items: Sequence[Any], *, last: bool = False) -> None:
    """Do what is left of a stage's shards; images given up on are added to failures.parquet.

    A shard is done again if it lacks images that fail for a reason that is not their own: the model may have
    been mended. Raises ValueError where none goes through it.
    """
    done = run.directory.done_shards(stage.name)
    again = _again(run, stage.name)
    shards = shards_of(items, run.config.shard_size, located)
    left = {key: part for key, part in shards.items() if key not in done or again & set(map(_image_id, part))}
    if not left:
        return
    if again:
        logger.info("%s: %d images that were given up on are tried again", stage.name, len(again))
    trial = Trial(stage.name, sum(map(len, left.values())), again if done else None)
    means = run.config.means
    unanswered: list[str] = []
    events = dispatch(
        _tasks(left, max(run.config.shard_size, math.ceil(trial.left / run.pool.workers))),
        run.pool,
        arguments=(ray.put(stage),),
        attempts=means.attempts,
        time_limit=means.time_limit,
        release=last,
        patience=PATIENCE,
        stop=lambda: run.stop() or bool(unanswered),
    )
    run.telemetry.workers(len(run.pool.alive), len(run.pool.starting))
    settled = len(items) - sum(map(len, left.values()))
    failures = run.directory.read_failures()
    with meter(stage.name, len(items)) as progress:
        progress.advance(settled)
        for event in events:
            match event:
                case Probed():
                    trial.passed()
                case Done(items=kept):
                    trial.passed()
                    failures = _without(failures, stage, kept, run.directory)
                    run.telemetry.done(stage.name, len(kept))
                    progress.advance(len(kept))
                    settled += len(kept)
                case Failed(loss="unanswered", reason=reason):
                    unanswered.append(reason)  # no fault of the images': the run can only stop
                case Failed(items=failed, reason=reason, attempts=attempts):
                    failures = _without(failures, stage, failed, run.directory)
                    given_up = [Failure(stage.name, _image_id(item), reason, attempts) for item in failed]
                    for failure in given_up:
                        logger.warning("%s: given up on in %s: %s", failure.image_id, stage.name, reason)
                    failures += given_up
                    run.directory.write_failures(failures)
                    for failure in given_up:
                        trial.failed(failure)
                    run.telemetry.failed(stage.name, len(failed))
                    progress.advance(len(failed))
                    settled += len(failed)
                case Lost(reason=reason):
                    run.telemetry.lost(stage.name)
                    logger.warning("a worker was lost and is replaced: %s", reason)
                case PoolState(alive=alive, starting=starting, in_flight=in_flight):
                    run.telemetry.workers(alive, starting)
                    run.pool.workers = crew_now(run.crew, means).workers
                    progress.note(
                        f"{alive} workers on {in_flight} shards" if alive else "waiting for resources"
                    )
    if settled < len(items):
        cause = f": no answer for {PATIENCE:g} s ({unanswered[0]})" if unanswered else ""
        raise Stopped(f"stopped with {settled} of {len(items)} images done in stage {stage.name}{cause}")


def _tasks(shards: Mapping[str, Sequence[Any]], most: int) -> Iterator[Task]:
    """A shard each, or several of one row group, of `most` images at most: so that all workers have some."""
    for pieces in runs_of(shards, most, located):
        keys = list(dict.fromkeys(piece.shard for piece in pieces))
        yield Task(keys[0], pieces, len(keys))


def _without(
    failures: list[Failure], stage: Stage, items: Sequence[Any], directory: RunDirectory
) -> list[Failure]:
    """The failures without those of images that are settled anew, in a later attempt at a run; stored."""
    settled = {_image_id(item) for item in items} if failures else set()
    left = [f for f in failures if f.stage != stage.name or f.image_id not in settled]
    if len(left) < len(failures):
        directory.write_failures(left)
    return left


def _image_id(item: ImageRef | Subject | Piece[Any]) -> str:
    return image_of(item.item if isinstance(item, Piece) else item).image_id


def _unusable(ref: ImageRef, reason: str) -> dict[str, Any]:
    blank = dict.fromkeys(("prediction", "probability"))
    known = {key: getattr(ref, key) for key in KNOWN}
    return {**known, **blank, "selected": False, "error": reason}


def _subject(row: dict[str, Any]) -> Subject:
    """The subject of a row of images.parquet: its label where it has one, else its prediction."""
    target = row["prediction"] if row["label"] is None else row["label"]
    return Subject(ImageRef(**{key: row[key] for key in KNOWN}), target)


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM (a spot notice, say) or SIGINT came; a second one interrupts at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        logger.warning("%s: finishing the shards in flight", signal.Signals(number).name)
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

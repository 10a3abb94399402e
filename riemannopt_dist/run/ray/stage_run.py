"""One stage of a run: which of its shards are left, who does them, and what is given up on."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import ray

from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.errors import Interrupted, Stopped
from riemannopt_dist.run.examples import Example, image_of, located
from riemannopt_dist.run.failure import Failure
from riemannopt_dist.run.inspection import Inspection, inspected
from riemannopt_dist.run.maps import FOLDER as MAPS
from riemannopt_dist.run.progress import Meter, meter
from riemannopt_dist.run.ray.cluster import alive_nodes
from riemannopt_dist.run.ray.dispatcher import Event, Limits, Lost, PoolState, Slow, Waiting, dispatch
from riemannopt_dist.run.ray.pool import Pool
from riemannopt_dist.run.ray.task_tracker import RESTS, Done, Failed, PassedAlone, Task
from riemannopt_dist.run.ray.telemetry import DriverTelemetry
from riemannopt_dist.run.ray.trial import Trial
from riemannopt_dist.run.scaling import Scaling
from riemannopt_dist.run.shards import Piece, runs_of, shards_of
from riemannopt_dist.run.stages.base import Stage, files_beside
from riemannopt_dist.run.steps import steps_of

logger = logging.getLogger(__name__)
SAID = 60.0
"""Seconds between two warnings that a storage does not answer, or that there are no workers."""
SCARCE = 30.0
"""Seconds without a worker after which it is told."""
ROUNDS = 3
"""How often shards are done whose files are deleted meanwhile."""
Shards = Mapping[str, Sequence[Any]]
"""The items of shards, by their keys."""


@dataclass(frozen=True)
class Run:
    """What the stages of a run share: `workers` tells how many there may be now, `scaling` what one takes."""

    config: Config
    directory: RunDirectory
    pool: Pool
    telemetry: DriverTelemetry
    stop: Callable[[], bool]
    workers: Callable[[], int]
    scaling: Scaling


def run_stage(
    run: Run, stage: Stage, items: Sequence[Any], *, cuts: Sequence[int] = (), last: bool = False
) -> None:
    """Do what is left of a stage's shards; images given up on are added to failures.parquet.

    A shard is done again if its file is damaged, not its own or lacks rows; and if it lacks images given up
    on for a reason that is not their own: the model may have been mended, the images may be back. `cuts` are
    those of `shards_of`. Raises ValueError where none goes through the model; Interrupted if the run is to
    stop, Stopped where a storage does not answer, or not for more than `max_given_up` of the images.
    """
    shards = shards_of(items, run.config.shard_size, located, cuts)
    damaged = _do_absent(run, stage, shards, last)
    for _ in range(ROUNDS):
        left = sorted({*damaged, *_deleted(run, stage, shards)})
        if not left:
            return
        logger.warning("%s: %d shards without a sound file are done again", stage.name, len(left))
        _do(run, stage, shards, left, last)
        damaged = []
    if left := _deleted(run, stage, shards):
        raise Stopped(
            f"stage {stage.name}: the files of {len(left)} shards are not there once workers have written "
            f"them: somebody deletes them, or {run.directory.storage.root} is not one folder that all nodes "
            "mount"
        )


def _do_absent(run: Run, stage: Stage, shards: Shards, last: bool) -> list[str]:
    """Do the shards that have no file, or are to be tried again: those whose files are not as they should be.

    The others are read meanwhile; before, where the run was extended, so that what they lack is done as well.
    Files that are damaged or no shard's are put aside.
    """
    directory = run.directory
    failures = [failure for failure in directory.read_failures() if failure.stage == stage.name]
    own = {failure.image_id for failure in failures if failure.own}
    again = {failure.image_id for failure in failures} - own
    if again:
        logger.info("%s: %d images that were given up on are tried again", stage.name, len(again))
    ids = {key: frozenset(map(image_id, part)) for key, part in shards.items()}
    files = shard_files(directory.storage, stage.name)
    for key in files.keys() - ids.keys():
        directory.put_aside(files.pop(key), f"{stage.name}/{key}.parquet: not a shard of this run")
    known = {failure.image_id for failure in failures}
    beside = {key: files_beside(stage, key, part - known) for key, part in ids.items()}
    others = set(directory.storage.list(MAPS)) if any(beside.values()) else set()
    absent = [
        key
        for key in shards
        if (key not in files and ids[key] - own) or ids[key] & again or not beside[key].keys() <= others
    ]
    there = {key: file for key, file in files.items() if key not in set(absent)}
    with inspected(directory, stage, there, ids) as found:
        left = (key for key, inspection in found if _is_left(directory, there[key], inspection, own))
        if steps_of(directory.read_run()):
            absent += left
        if absent:
            _do(run, stage, shards, sorted(absent), last)
        return list(left)


def _is_left(directory: RunDirectory, file: str, inspection: Inspection, own: Set[str]) -> bool:
    """Whether a shard with such a file is to be done again; a damaged file is put aside."""
    if inspection.damage is not None:
        directory.put_aside(file, inspection.damage)
    return bool(inspection.missing - own)


def _deleted(run: Run, stage: Stage, shards: Shards) -> list[str]:
    """The shards that are to have a file and have none."""
    files = shard_files(run.directory.storage, stage.name)
    absent = [key for key in shards if key not in files]
    failures = run.directory.read_failures() if absent else []
    given_up = {failure.image_id for failure in failures if failure.stage == stage.name}
    return [key for key in absent if not {*map(image_id, shards[key])} <= given_up]


def _do(run: Run, stage: Stage, shards: Shards, left: Sequence[str], last: bool) -> None:
    """Do the shards `left`."""
    scaling, total = run.config.scaling, sum(map(len, shards.values()))
    chosen = {key: shards[key] for key in left}
    images = sum(map(len, chosen.values()))
    run.telemetry.workers(len(run.pool.alive), len(run.pool.starting))
    with meter(stage.name, total) as progress:
        outcomes = _Outcomes(run, stage, images, total, progress)
        events = dispatch(
            _tasks(chosen, max(run.config.shard_size, math.ceil(images / run.pool.workers))),
            run.pool,
            arguments=(ray.put(stage),),
            limits=Limits(scaling.attempts, scaling.time_limit, patience=scaling.patience),
            release=last,
            stop=lambda: run.stop() or outcomes.cause != "",
        )
        for event in events:
            outcomes.take(event)
    if outcomes.cause or outcomes.settled < total:
        done = f"stopped with {outcomes.settled} of {total} images done in stage {stage.name}"
        raise Stopped(f"{done}: {outcomes.cause}") if outcomes.cause else Interrupted(done)


def _tasks(shards: Shards, most: int) -> Iterator[Task]:
    """A shard each, or several of one row group, of `most` images at most: so that all workers have some."""
    for pieces in runs_of(shards, most, located):
        keys = list(dict.fromkeys(piece.shard for piece in pieces))
        yield Task(keys[0], pieces, len(keys))


class _Outcomes:
    """What the events of a stage come to: `settled` images, failures stored, and a `cause` to stop."""

    def __init__(self, run: Run, stage: Stage, images: int, total: int, progress: Meter) -> None:
        self.cause = ""
        self._run, self._stage, self._total, self._progress = run, stage, total, progress
        self._failures = run.directory.read_failures()
        again = frozenset(f.image_id for f in self._failures if f.stage == stage.name and not f.own)
        begun = images < total or bool(run.directory.done_shards(stage.name))
        self._trial = Trial(stage.name, images, again if begun else None)
        self._told = self._manned = time.monotonic()
        self._told -= SAID
        self.settled = self._absent = 0
        self._settle(total - images)

    def take(self, event: Event) -> None:
        """Store and tell what an event means."""
        match event:
            case PassedAlone():
                self._trial.passed()
            case Done(items=kept):
                self._trial.passed()
                self._store(kept)
                self._run.telemetry.done(self._stage.name, len(kept))
                self._settle(len(kept))
            case Failed(loss="unanswered", reason=reason):  # no fault of the images': the run can only stop
                self.cause = f"no answer for {self._run.config.scaling.patience:g} s ({reason})"
            case Failed():
                self._given_up(event)
            case Lost(task=task, reason=reason, node=node):
                self._run.telemetry.lost(self._stage.name)
                doing = "" if task is None else f" (it had {self._stage.name}/{task.key})"
                where = f"{reason} on {node}" if node else reason
                logger.warning("a worker was lost and is replaced: %s%s", where, doing)
            case Slow(task=task, seconds=seconds, median=median):
                shard = f"{self._stage.name}/{task.key}"
                logger.warning("%s: begun %.0f s ago, others take %.1f s", shard, seconds, median)
            case Waiting(reason=reason):
                self._wait(reason)
            case PoolState():
                self._state(event)

    def _given_up(self, event: Failed) -> None:
        stage = self._stage.name
        given_up = [Failure(stage, image_id(item), event.reason, event.attempts) for item in event.items]
        for failure in given_up:
            logger.warning("%s: given up on in %s: %s", failure.image_id, stage, event.reason)
        self._store(event.items, given_up)
        for failure in given_up:
            self._trial.failed(failure)
        self._run.telemetry.failed(stage, len(given_up))
        self._settle(len(given_up))
        self._absent += sum(failure.out_of_reach for failure in given_up)
        share = self._run.config.scaling.max_given_up
        if self._absent > share * self._total:
            self.cause = f"{self._absent} images are out of reach, more than {share:.1%} ({event.reason})"

    def _store(self, items: Sequence[Any], failures: Sequence[Failure] = ()) -> None:
        """Put `failures` in the place of those of `items`, which a later attempt at a run settles anew."""
        settled = {image_id(item) for item in items}
        if failures or any(f.stage == self._stage.name and f.image_id in settled for f in self._failures):
            self._failures = self._run.directory.settle(self._stage.name, settled, failures)

    def _settle(self, images: int) -> None:
        self.settled += images
        self._progress.advance(images)

    def _wait(self, reason: str) -> None:
        """Tell what does not answer, at once and then now and then."""
        if time.monotonic() - self._told >= SAID:
            self._told = time.monotonic()
            patience = self._run.config.scaling.patience
            logger.warning(
                "%s waits for a storage, which is asked again every %.3g s, for %g s at most: %s",
                self._stage.name,
                patience / RESTS,
                patience,
                reason,
            )

    def _state(self, state: PoolState) -> None:
        self._run.telemetry.workers(state.alive, state.starting)
        self._run.pool.workers = self._run.workers()
        told = (
            f"{state.alive} workers on {state.in_flight} shards" if state.alive else "waiting for resources"
        )
        self._progress.note(told)
        now = time.monotonic()
        if state.alive:
            self._manned = now
        elif now - self._manned >= SCARCE and now - self._told >= SAID:
            self._told = now
            logger.warning("no worker for %.0f s: %s", now - self._manned, scarcity(self._run.scaling))


def scarcity(scaling: Scaling) -> str:
    """Why there is no worker: what they take is not there, not on one node, or another's."""
    kind, nodes = scaling.kind, alive_nodes()
    there = sum(node.get(kind, 0.0) for node in nodes)
    if not there:
        return f"there are no {kind}s yet, of which each takes some; nodes that come are used at once"
    if not scaling.room_in(nodes):
        return (
            f"no node has {scaling.needs()}, which each takes: unless such a node is to come, lower "
            "scaling.cpus_per_worker or scaling.gpus_per_worker"
        )
    free = ray.available_resources().get(kind, 0.0)  # type: ignore[no-untyped-call]
    return (
        f"{free:g} of {there:g} {kind}s are free. Another run on this cluster may hold the others until it "
        "ends; scaling.max_workers in its configuration leaves room for this one"
    )


def image_id(item: ImageRef | Example | Piece[Any]) -> str:
    """The id of an image to be selected or explained."""
    return image_of(item.item if isinstance(item, Piece) else item).image_id

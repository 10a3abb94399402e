"""Tasks over a pool of replaceable Ray actors: every item done once or given up on with a reason.

An actor class that takes part has two methods, whose calls are settled in the order they were sent, whether
they run one after the other or several at a time:

- `process(*arguments, key, items) -> result` does the items of a task and commits them, whole, under `key`;
  doing it twice must be harmless. `result` is small, a dict for instance: data go to storage, not here.
- `probe(*arguments, key, items) -> anything` does the same work and commits nothing.

An actor that exceeds the time limit, dies or becomes unreachable is replaced, and its calls go to others. The
call that it was running loses one of its attempts. After a death that call is known only if the actor held no
other: the answer to an earlier one may have died with it. So calls that die together are not charged; from
then on each goes alone to an actor. An error of the device counts as a death: it outlives the call that met
it. Any other exception raised by the method counts as a property of the items, not as a loss, and costs the
actor its place too; but not where it is an image that cannot be read, which says nothing of the actor. A
StorageError is no property of the items or of the actor, which goes on: its call is made again, every
fortieth part of `patience`, until it is answered. Where an UnreachableImage outlasts that, its items are
given up on.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from riemannopt_dist.choices import check_positive
from riemannopt_dist.data.errors import ReplacedImage, UnreachableImage, UnreadableImage
from riemannopt_dist.run.ray.pace import Pace
from riemannopt_dist.run.ray.pool import Pool, node_of, one_line
from riemannopt_dist.run.ray.task_tracker import (
    HARMLESS,
    Call,
    Done,
    Failed,
    Loss,
    PassedAlone,
    Task,
    TaskTracker,
)
from riemannopt_dist.storage.errors import PATIENCE, StorageError

DEVICE_ERRORS = ("CUDA error", "cuDNN error", "HIP error")
"""How a RuntimeError begins that is the device's; a torch that has AcceleratorError names most of them so."""


@dataclass(frozen=True)
class Lost:
    """An actor was replaced. `task`: the first that it had not answered, None if starting or idle.

    `node` is the address of the machine that it was on, "" where that cannot be told.
    """

    task: Task | None
    reason: str
    node: str = ""


@dataclass(frozen=True)
class PoolState:
    """Counts at one moment. `alive` 0 with `starting` > 0: waiting for resources, or for constructors."""

    alive: int
    starting: int
    in_flight: int
    queued: int
    lost: int


@dataclass(frozen=True)
class Waiting:
    """A storage did not answer: the task rests, and is tried again."""

    task: Task
    reason: str


@dataclass(frozen=True)
class Slow:
    """A task runs for so many `seconds`, where one like it takes `median`."""

    task: Task
    seconds: float
    median: float


Event = Done | PassedAlone | Failed | Lost | Waiting | Slow | PoolState


@dataclass(frozen=True)
class Limits:
    """How often a task is tried, how long, and how many calls an actor holds.

    `time_limit` is in seconds a call, and follows the median of those that ended where that makes it shorter
    (`Pace`). `patience` is in seconds since a call's storage first did not answer. Raises ValueError for
    counts below 1 and times that are not above 0.
    """

    attempts: int = 3
    time_limit: float = math.inf
    in_flight: int = 2
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        check_positive(self.attempts, "attempts")
        check_positive(self.in_flight, "in_flight")
        check_seconds(self.time_limit, "time_limit")
        check_seconds(self.patience, "patience")


def check_seconds(seconds: float, name: str) -> None:
    """Raise ValueError unless `seconds` is above 0."""
    if not seconds > 0:
        raise ValueError(f"{name}: expected seconds above 0, got {seconds!r}")


def dispatch(
    tasks: Iterable[Task],
    pool: Pool,
    *,
    arguments: tuple[Any, ...] = (),
    limits: Limits = Limits(),
    heartbeat: float = 5.0,
    release: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Run every task on the pool's actors; yield events as they come.

    Every item of every task ends in exactly one `Done` or `Failed`. `Lost` tells of each replaced actor,
    `Waiting` of each call that a storage did not answer, `PassedAlone` of an isolated item that did not fail,
    and a `PoolState` comes every `heartbeat` seconds. Tasks are drawn lazily, one ahead a worker at most.
    An actor gets work once its constructor has returned, so actors that wait for resources hold nothing back.
    `arguments` go to every call, before its key and items. `Slow` tells of a call that takes far longer than
    those that ended did. With `release`, actors for which no work is left go at once. Once `stop()` is true
    no call is sent, those running finish, and tasks without an outcome by then have none. Closing the
    generator early, or an exception in it, kills the actors that hold calls, and all others with them.

    Raises ValueError for a bad argument; StartError, while iterating, where no actor can be started.
    """
    check_seconds(heartbeat, "heartbeat")
    tracker = TaskTracker(
        tasks,
        lookahead=pool.workers,
        attempts=limits.attempts,
        in_flight=limits.in_flight,
        patience=limits.patience,
    )
    return _Dispatch(tracker, pool, arguments, Pace(limits.time_limit), stop).events(heartbeat, release)


class _Dispatch:
    """Calls on their way: which reference belongs to which, and what the tracker makes of their ends."""

    def __init__(
        self,
        tracker: TaskTracker,
        pool: Pool,
        arguments: tuple[Any, ...],
        pace: Pace,
        stop: Callable[[], bool],
    ) -> None:
        self._tracker, self._pool, self._arguments = tracker, pool, arguments
        self._pace, self._stop = pace, stop
        self._refs: dict[Call, ObjectRef[Any]] = {}
        # Calls are settled in order, so heads alone are watched.
        self._heads: dict[ObjectRef[Any], int] = {}
        self._told: set[Call] = set()

    def events(self, heartbeat: float, release: bool) -> Generator[Event, None, None]:
        """Everything that happens, until nothing is left to do."""
        tick = min(0.25, heartbeat, self._pace.limit)
        next_beat = next_check = time.monotonic() + heartbeat
        for worker in self._pool.alive:
            self._tracker.add_worker(worker)
        try:
            while not self._tracker.finished:
                now = time.monotonic()
                self._hand_out(now, release)
                for ref in _wait([*self._pool.starting, *self._heads], tick):
                    if ref in self._pool.starting:
                        yield from self._settle_start(ref)
                    elif ref in self._heads:
                        yield from self._settle_head(ref)
                # `now` is from before the wait: what is overdue then and not settled since is still running,
                # however long the caller took over the events above.
                if now >= next_check:
                    next_check = now + tick
                    yield from self._late(now)
                if now >= next_beat:
                    next_beat = now + heartbeat
                    yield self._state()
        finally:
            if self._refs:
                # Left before its end: actors that still hold calls of these tasks are of no use to others.
                self._pool.close()

    def _hand_out(self, now: float, release: bool) -> None:
        """Fit the pool to what is left, and give its workers what waits."""
        tracker, pool = self._tracker, self._pool
        if self._stop():
            tracker.drain()
        size = tracker.useful_workers(pool.workers)
        for worker in pool.shrink(size, tracker.idle_workers() if release else ()):
            tracker.remove_worker(worker)
        pool.grow(size, now)
        for worker, call in tracker.hand_out(now):
            method = getattr(pool.alive[worker], call.method)
            self._refs[call] = method.remote(*self._arguments, call.task.key, call.items)
            self._watch(worker)

    def _settle_start(self, ref: ObjectRef[Any]) -> list[Event]:
        try:
            self._tracker.add_worker(self._pool.started(ref))
        except RayError as error:
            return [Lost(None, one_line(error), node_of(error))]
        return []

    def _settle_head(self, ref: ObjectRef[Any]) -> list[Event]:
        worker = self._heads[ref]
        try:
            result = ray.get(ref)
        except RayError as error:
            loss = _loss(error)
            if loss in HARMLESS:
                return self._take_back(worker, one_line(error), loss)
            return self._lose(worker, one_line(error), loss, node_of(error))
        call = self._tracker.held(worker)[0]
        del self._heads[ref], self._refs[call]
        outcomes = self._tracker.succeeded(worker, result, time.monotonic())
        for outcome in outcomes:
            if isinstance(outcome, Done):
                self._pace.took(outcome.seconds, call.time_limits)
        self._watch(worker)
        return [*outcomes]

    def _late(self, now: float) -> Generator[Event, None, None]:
        """Workers that hang are lost, and slow calls told of once each."""
        limit, median = self._pace.limit, self._pace.median
        for worker in self._tracker.overdue(now, limit):
            yield from self._lose(worker, f"time limit of {limit:g} s exceeded", "overdue")
        for call, seconds in self._tracker.running(now):
            if median is not None and call not in self._told and seconds > self._pace.slow * call.time_limits:
                self._told.add(call)
                yield Slow(call.task, seconds, median * call.time_limits)

    def _lose(self, worker: int, reason: str, loss: Loss, node: str = "") -> list[Event]:
        calls = self._tracker.held(worker)
        for call in calls:
            self._heads.pop(self._refs.pop(call), None)
        self._pool.lose(worker)
        outcomes = self._tracker.lost(worker, reason, loss, time.monotonic())
        return [Lost(calls[0].task if calls else None, reason, node), *outcomes]

    def _take_back(self, worker: int, reason: str, loss: Loss) -> list[Event]:
        call = self._tracker.held(worker)[0]
        del self._heads[self._refs.pop(call)]
        outcomes = self._tracker.returned(worker, reason, loss, time.monotonic())
        self._watch(worker)
        return [*outcomes] if loss == "unreadable" else [Waiting(call.task, reason), *outcomes]

    def _watch(self, worker: int) -> None:
        if (call := self._tracker.head(worker)) is not None:
            self._heads[self._refs[call]] = worker

    def _state(self) -> PoolState:
        tracker, pool = self._tracker, self._pool
        return PoolState(len(pool.alive), len(pool.starting), tracker.in_flight, tracker.queued, pool.lost)


def _loss(error: RayError) -> Loss:
    if not isinstance(error, RayTaskError) or _is_of_device(error.cause):
        return "died"
    if isinstance(error.cause, UnreadableImage | ReplacedImage):
        return "unreadable"
    if isinstance(error.cause, UnreachableImage):
        return "unreachable"
    return "unanswered" if isinstance(error.cause, StorageError) else "raised"


def _is_of_device(cause: object) -> bool:
    """Whether an exception is a GPU's, after which its process computes nothing more."""
    is_named = type(cause).__name__ == "AcceleratorError" or str(cause).startswith(DEVICE_ERRORS)
    return isinstance(cause, RuntimeError) and is_named


def _wait(refs: list[ObjectRef[Any]], seconds: float) -> list[ObjectRef[Any]]:
    """All that is ready as soon as something is, or nothing after `seconds`."""
    if not refs:
        time.sleep(seconds)
        return []
    ready, _ = ray.wait(refs, num_returns=1, timeout=seconds)
    return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if ready else []

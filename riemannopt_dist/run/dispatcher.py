"""Tasks over a pool of replaceable Ray actors: every item done once or given up on with a reason.

An actor class that takes part has two methods, called one at a time in the order they were sent:

- `process(*arguments, key, items) -> result` does the items of a task and commits them, whole, under `key`;
  doing it twice must be harmless. `result` is small, a dict for instance: data go to storage, not here.
- `probe(*arguments, key, items) -> anything` does the same work and commits nothing.

An actor that exceeds the time limit, dies or becomes unreachable is replaced, and its calls go to others. The
call that it was running loses one of its attempts. After a death that call is known only if the actor held no
other: the answer to an earlier one may have died with it. So calls that die together are not charged; from
then on each goes alone to an actor. An exception raised by the method counts as a property of the items, not
as a loss, and costs the actor its place too: a device error outlives the call that met it; but not where it
is an image that cannot be read, which says nothing of the actor. A StorageError is
no property of the items or of the actor, which goes on: its call is made again, every fortieth part of
`patience`, until it is answered. Where an UnreachableImage outlasts that, its items are given up on.
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
from riemannopt_dist.images.image_ref import ReplacedImage, UnreachableImage, UnreadableImage
from riemannopt_dist.run.ledger import HARMLESS, PATIENCE, Call, Done, Failed, Ledger, Loss, Probed, Task
from riemannopt_dist.run.pool import Pool, one_line
from riemannopt_dist.stores import StorageError


@dataclass(frozen=True)
class Lost:
    """An actor was replaced. `task`: the first that it had not answered, None if starting or idle."""

    task: Task | None
    reason: str


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


Event = Done | Probed | Failed | Lost | Waiting | PoolState


def dispatch(
    tasks: Iterable[Task],
    pool: Pool,
    *,
    arguments: tuple[Any, ...] = (),
    attempts: int = 3,
    time_limit: float = math.inf,
    in_flight: int = 2,
    patience: float = PATIENCE,
    heartbeat: float = 5.0,
    release: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Run every task on the pool's actors; yield events as they come.

    Every item of every task ends in exactly one `Done` or `Failed`. `Lost` tells of each replaced actor,
    `Waiting` of each call that a storage did not answer, `Probed` of an isolated item that went through, and
    a `PoolState` comes every `heartbeat` seconds. Tasks are drawn lazily, at most a worker's number ahead. An
    actor gets work (at most `in_flight` calls) once its constructor has returned, so actors that wait for
    resources hold nothing back. `arguments` go to every call, before its key and items. `time_limit` is in
    seconds a call, `patience` in seconds since a call's storage first did not answer. With `release`, actors
    for which no work is left go at once. Once `stop()` is true no call is sent, those running finish, and
    tasks without an outcome by then have none. Closing the generator early, or an exception in it, kills the
    actors that hold calls, and all others with them.

    Raises ValueError for a bad argument; StartError, while iterating, where no actor can be started.
    """
    check_positive(attempts, "attempts")
    check_positive(in_flight, "in_flight")
    for name, seconds in (("time_limit", time_limit), ("patience", patience), ("heartbeat", heartbeat)):
        if not seconds > 0:
            raise ValueError(f"{name}: expected seconds above 0, got {seconds!r}")
    ledger = Ledger(tasks, lookahead=pool.workers, attempts=attempts, in_flight=in_flight, patience=patience)
    return _run(ledger, pool, arguments, time_limit, heartbeat, release, stop)


def _run(
    ledger: Ledger,
    pool: Pool,
    arguments: tuple[Any, ...],
    time_limit: float,
    heartbeat: float,
    release: bool,
    stop: Callable[[], bool],
) -> Generator[Event, None, None]:
    refs: dict[Call, ObjectRef[Any]] = {}
    heads: dict[
        ObjectRef[Any], int
    ] = {}  # a later call ends after its worker's head, so heads alone are watched
    tick = min(0.25, heartbeat, time_limit)
    next_beat = next_check = time.monotonic() + heartbeat

    def watch(worker: int) -> None:
        if (call := ledger.head(worker)) is not None:
            heads[refs[call]] = worker

    def lose(worker: int, reason: str, loss: Loss) -> list[Event]:
        calls = ledger.held(worker)
        for call in calls:
            heads.pop(refs.pop(call), None)
        pool.lose(worker)
        outcomes = ledger.lost(worker, reason, loss, time.monotonic())
        return [Lost(calls[0].task if calls else None, reason), *outcomes]

    def take_back(worker: int, reason: str, loss: Loss) -> list[Event]:
        call = ledger.held(worker)[0]
        del heads[refs.pop(call)]
        outcomes = ledger.returned(worker, reason, loss, time.monotonic())
        watch(worker)
        return [*outcomes] if loss == "unreadable" else [Waiting(call.task, reason), *outcomes]

    def settle_start(ref: ObjectRef[Any]) -> list[Event]:
        try:
            ledger.add_worker(pool.started(ref))
        except RayError as error:
            return [Lost(None, one_line(error))]
        return []

    def settle_head(ref: ObjectRef[Any]) -> list[Event]:
        worker = heads[ref]
        try:
            result = ray.get(ref)
        except RayError as error:
            loss = _loss(error)
            settle = take_back if loss in HARMLESS else lose
            return settle(worker, one_line(error), loss)
        del heads[ref], refs[ledger.held(worker)[0]]
        outcomes = ledger.succeeded(worker, result, time.monotonic())
        watch(worker)
        return [*outcomes]

    for worker in pool.alive:
        ledger.add_worker(worker)
    try:
        while not ledger.finished:
            if stop():
                ledger.drain()
            now = time.monotonic()
            size = ledger.useful_workers(pool.workers)
            for worker in pool.shrink(size, ledger.idle_workers() if release else ()):
                ledger.remove_worker(worker)
            pool.grow(size, now)
            for worker, call in ledger.hand_out(now):
                method = getattr(pool.alive[worker], call.method)
                refs[call] = method.remote(*arguments, call.task.key, call.items)
                watch(worker)
            for ref in _wait([*pool.starting, *heads], tick):
                if ref in pool.starting:
                    yield from settle_start(ref)
                elif ref in heads:
                    yield from settle_head(ref)
            # `now` is from before the wait: what is overdue then and not settled since is still running,
            # however long the caller took over the events above.
            if now >= next_check:
                next_check = now + tick
                for worker in ledger.overdue(now, time_limit):
                    yield from lose(worker, f"time limit of {time_limit:g} s exceeded", "overdue")
            if now >= next_beat:
                next_beat = now + heartbeat
                yield PoolState(
                    len(pool.alive), len(pool.starting), ledger.in_flight, ledger.queued, pool.lost
                )
    finally:
        if refs:
            # Left before its end: actors that still hold calls of these tasks are of no use to others.
            pool.close()


def _loss(error: RayError) -> Loss:
    if not isinstance(error, RayTaskError):
        return "died"
    if isinstance(error.cause, UnreadableImage | ReplacedImage):
        return "unreadable"
    if isinstance(error.cause, UnreachableImage):
        return "unreachable"
    return "unanswered" if isinstance(error.cause, StorageError) else "raised"


def _wait(refs: list[ObjectRef[Any]], seconds: float) -> list[ObjectRef[Any]]:
    """All that is ready as soon as something is, or nothing after `seconds`."""
    if not refs:
        time.sleep(seconds)
        return []
    ready, _ = ray.wait(refs, num_returns=1, timeout=seconds)
    return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if ready else []

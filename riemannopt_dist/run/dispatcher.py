"""Tasks over a pool of replaceable Ray actors: every item done once or given up on with a reason.

An actor class that takes part has two methods, called one at a time in the order they were sent:

- `process(key, items) -> result` does the items of a task and commits them, whole, under `key`; doing it
  twice must be harmless. `result` is small, a dict for instance: data go to storage, not to the driver.
- `probe(key, items) -> anything` does the same work and commits nothing.

A lost actor (death, unreachable node, time limit) costs the call that it was running one attempt; the calls
queued behind go back uncharged. An exception raised by the method counts as a property of the items, not as
a loss, and costs the actor its place too: a device error outlives the call that met it. A task that used up
its attempts, or raised, is isolated: each item is probed alone, those that fail again end as `Failed`, and
one last `process` commits the others together. The outcomes of one task come together: its `Failed` ones,
then `Done` for the items kept.
"""

import itertools
import math
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from riemannopt_dist.arguments import check_positive

REASON_LENGTH = 500
"""Characters kept of a reason."""


@dataclass(frozen=True)
class Task:
    """Work under one name: `items` (at least one, picklable) go to one actor and are committed together."""

    key: str
    items: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.items, tuple) or not self.items:
            raise ValueError(
                f"items of task {self.key!r}: expected a tuple of at least one, got {self.items!r}"
            )


@dataclass(frozen=True)
class Done:
    """`items` of the task (all but those that failed, in order) are committed; `seconds` of the last call."""

    task: Task
    items: tuple[Any, ...]
    result: Any
    seconds: float


@dataclass(frozen=True)
class Failed:
    """`items` of the task are given up on after `attempts` calls; `reason` is one line."""

    task: Task
    items: tuple[Any, ...]
    reason: str
    attempts: int


@dataclass(frozen=True)
class Lost:
    """An actor was replaced. `task` is what it was running, None if it was starting or idle."""

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


Event = Done | Failed | Lost | PoolState


class StartError(RuntimeError):
    """Actors cannot be started: their constructors fail again and again, and none is alive."""


def dispatch(
    tasks: Iterable[Task],
    spawn: Callable[[], ActorHandle[Any]],
    *,
    workers: int,
    attempts: int = 3,
    time_limit: float = math.inf,
    in_flight: int = 2,
    start_attempts: int = 3,
    heartbeat: float = 5.0,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Run every task on at most `workers` actors made by `spawn()`; yield events as they come.

    Every item of every task ends in exactly one `Done` or `Failed`. `Lost` tells of each replaced actor, and
    a `PoolState` comes every `heartbeat` seconds. Tasks are drawn lazily, at most `workers` ahead. An actor
    gets work (at most `in_flight` calls) once its constructor has returned, so actors that wait for resources
    hold nothing back. `spawn` leaves Ray's own restarts and retries at their default, none. `time_limit` is
    in seconds a call. Once `stop()` is true no call is sent, those running finish, and tasks without an
    outcome by then have none. Closing the generator, or an exception in it, kills the actors.

    Raises ValueError for a bad argument; StartError, while iterating, after `start_attempts` consecutive
    rounds of failed starts with no actor alive. Actors spawned before the last counted failure belong to its
    round, so that one lost node counts once.
    """
    for name, value in (("workers", workers), ("attempts", attempts), ("in_flight", in_flight)):
        check_positive(value, name)
    check_positive(start_attempts, "start_attempts")
    for name, seconds in (("time_limit", time_limit), ("heartbeat", heartbeat)):
        if not seconds > 0:
            raise ValueError(f"{name}: expected seconds above 0, got {seconds!r}")
    ledger = Ledger(tasks, lookahead=workers, attempts=attempts, in_flight=in_flight)
    return _run(ledger, _Pool(spawn, start_attempts), workers, time_limit, heartbeat, stop)


@dataclass(eq=False)
class Call:
    """One method call on an actor: the items of `task` at `positions`. `attempts` ended badly so far."""

    task: Task
    positions: tuple[int, ...]
    method: Literal["process", "probe"]
    attempts: int
    budget: int
    isolation: "_Isolation | None" = None

    @property
    def items(self) -> tuple[Any, ...]:
        """The items themselves."""
        return tuple(self.task.items[position] for position in self.positions)


@dataclass(eq=False)
class _Isolation:
    """What is known of the items of a task that are probed one by one."""

    unknown: set[int]
    kept: list[int] = field(default_factory=list)
    failures: dict[int, Failed] = field(default_factory=dict)


class Ledger:
    """Which calls wait, which worker holds which, and what becomes of them. No Ray and no clock in here.

    A worker (any integer) runs the calls it holds in order; the first, its head, is the one running.
    `now` is in seconds of any monotonic clock.
    """

    def __init__(self, tasks: Iterable[Task], *, lookahead: int, attempts: int, in_flight: int) -> None:
        self._tasks = iter(tasks)
        self._exhausted = False
        self._draining = False
        self._lookahead = lookahead
        self._attempts = attempts
        self._queue: deque[Call] = deque()
        self._held: dict[int, deque[Call]] = {}
        self._since: dict[int, float] = {}  # when a worker's head began to run
        self._by_load: list[dict[int, None]] = [{} for _ in range(in_flight + 1)]
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """Calls drawn and held by no worker."""
        return len(self._queue)

    @property
    def finished(self) -> bool:
        """Whether nothing waits, runs or is still to be drawn."""
        self._refill()
        return self._exhausted and not self._queue and not self.in_flight

    def useful_workers(self, maximum: int) -> int:
        """How many workers, at most `maximum`, the remaining calls can occupy."""
        self._refill()
        return min(maximum, self.in_flight + len(self._queue)) if self._exhausted else maximum

    def add_worker(self, worker: int) -> None:
        """From now on `worker` can be handed calls."""
        self._held[worker] = deque()
        self._by_load[0][worker] = None

    def idle_workers(self) -> list[int]:
        """Workers that hold nothing, longest idle first."""
        return list(self._by_load[0])

    def remove_worker(self, worker: int) -> None:
        """Take `worker` out; what it holds goes back to the front of the queue, in order and uncharged."""
        calls = self._held.pop(worker)
        del self._by_load[len(calls)][worker]
        self._since.pop(worker, None)
        self.in_flight -= len(calls)
        self._put_back(calls)

    def held(self, worker: int) -> tuple[Call, ...]:
        """The calls of `worker`, its head first."""
        return tuple(self._held[worker])

    def head(self, worker: int) -> Call | None:
        """The call that `worker` is running."""
        return self._held[worker][0] if self._held[worker] else None

    def hand_out(self, now: float) -> Generator[tuple[int, Call], None, None]:
        """Give waiting calls to the workers with the fewest, until either runs out; yield each pair."""
        self._refill()
        while self._queue and (worker := self._least_loaded()) is not None:
            call = self._queue.popleft()
            self._move(worker, 1)
            if not self._held[worker]:
                self._since[worker] = now
            self._held[worker].append(call)
            yield worker, call
            self._refill()

    def overdue(self, now: float, time_limit: float) -> list[int]:
        """Workers whose head has been running for more than `time_limit` seconds."""
        return [worker for worker, since in self._since.items() if now - since > time_limit]

    def succeeded(self, worker: int, result: Any, now: float) -> list[Done | Failed]:
        """The head of `worker` returned `result`: the outcomes that this settles."""
        call, seconds = self._pop_head(worker, now)
        if call.method == "probe":
            assert call.isolation is not None
            call.isolation.kept += call.positions
            return self._probed(call, call.isolation)
        failures = call.isolation.failures if call.isolation else {}
        return [*_in_order(failures), Done(call.task, call.items, result, seconds)]

    def lost(self, worker: int, reason: str, *, raised: bool) -> list[Done | Failed]:
        """Take out `worker`, whose head died with it (or `raised`): the outcomes that this settles."""
        if self.head(worker) is None:
            self.remove_worker(worker)
            return []
        call, _ = self._pop_head(worker, math.nan)
        self.remove_worker(worker)
        call.attempts += 1
        if not raised and call.attempts < call.budget:
            self._put_back([call])
            return []
        if call.isolation is None and len(call.positions) > 1:
            self._isolate(call)
            return []
        failed = Failed(call.task, call.items, reason, call.attempts)
        if call.isolation is None:
            return [failed]
        if call.method == "probe":
            call.isolation.failures[call.positions[0]] = failed
            return self._probed(call, call.isolation)
        return [*_in_order(call.isolation.failures), failed]

    def drain(self) -> None:
        """Hand out nothing more: what waits is dropped, what runs may finish."""
        self._exhausted = self._draining = True
        self._queue.clear()

    def _isolate(self, call: Call) -> None:
        isolation = _Isolation(unknown=set(call.positions))
        budget = call.attempts + self._attempts
        self._put_back(
            Call(call.task, (position,), "probe", call.attempts, budget, isolation)
            for position in call.positions
        )

    def _probed(self, call: Call, isolation: _Isolation) -> list[Done | Failed]:
        """Close the isolation if this was its last item: commit what is kept, or tell that nothing is."""
        isolation.unknown.difference_update(call.positions)
        if isolation.unknown:
            return []
        if not isolation.kept:
            return _in_order(isolation.failures)
        kept = tuple(sorted(isolation.kept))
        self._put_back([Call(call.task, kept, "process", 0, self._attempts, isolation)])
        return []

    def _refill(self) -> None:
        while not self._exhausted and len(self._queue) < self._lookahead:
            task = next(self._tasks, None)
            if task is None:
                self._exhausted = True
            else:
                positions = tuple(range(len(task.items)))
                self._queue.append(Call(task, positions, "process", 0, self._attempts))

    def _put_back(self, calls: Iterable[Call]) -> None:
        if not self._draining:
            self._queue.extendleft(reversed(tuple(calls)))

    def _least_loaded(self) -> int | None:
        # Nobody hoards the last calls: a second one in advance pays while more are to come.
        loads = self._by_load[: 1 if self._exhausted else -1]
        return next((next(iter(workers)) for workers in loads if workers), None)

    def _pop_head(self, worker: int, now: float) -> tuple[Call, float]:
        seconds = now - self._since.pop(worker)
        self._move(worker, -1)
        call = self._held[worker].popleft()
        if self._held[worker]:
            self._since[worker] = now
        return call, seconds

    def _move(self, worker: int, change: int) -> None:
        load = len(self._held[worker])
        del self._by_load[load][worker]
        self._by_load[load + change][worker] = None
        self.in_flight += change


def _in_order(failures: dict[int, Failed]) -> list[Done | Failed]:
    return [failures[position] for position in sorted(failures)]


@dataclass(frozen=True)
class _Start:
    worker: int
    actor: ActorHandle[Any]
    spawned: float


class _Pool:
    """The actors themselves: alive, starting, and how the last starts went."""

    def __init__(self, spawn: Callable[[], ActorHandle[Any]], start_attempts: int) -> None:
        self._spawn = spawn
        self._start_attempts = start_attempts
        self._ids = itertools.count()
        self._failed_rounds = 0
        self._last_failure = -math.inf
        self.alive: dict[int, ActorHandle[Any]] = {}
        self.starting: dict[ObjectRef[Any], _Start] = {}
        self.lost = 0

    def grow(self, size: int, now: float) -> None:
        """Spawn up to `size` actors, later and later after failed starts (1, 2, 4, … 60 s)."""
        wait = min(2.0 ** (self._failed_rounds - 1), 60.0) if self._failed_rounds else 0.0
        if now < self._last_failure + wait:
            return
        while len(self.alive) + len(self.starting) < size:
            actor = self._spawn()
            self.starting[actor.__ray_ready__.remote()] = _Start(next(self._ids), actor, time.monotonic())

    def shrink(self, size: int, idle: Iterable[int]) -> list[int]:
        """Kill surplus actors above `size`: those starting, then idle ones, whose numbers are returned."""
        surplus = len(self.alive) + len(self.starting) - size
        for ref in list(reversed(self.starting))[: max(surplus, 0)]:
            _kill(self.starting.pop(ref).actor)
        removed = list(idle)[: max(len(self.alive) + len(self.starting) - size, 0)]
        for worker in removed:
            _kill(self.alive.pop(worker))
        return removed

    def started(self, ref: ObjectRef[Any]) -> int:
        """The number of the actor whose constructor ended; RayError if it failed."""
        start = self.starting.pop(ref)
        try:
            ray.get(ref)
        except RayError as error:
            _kill(start.actor)
            self.lost += 1
            if start.spawned > self._last_failure:
                self._failed_rounds += 1
                self._last_failure = time.monotonic()
            if not self.alive and self._failed_rounds >= self._start_attempts:
                raise StartError(
                    f"no worker could be started in {self._failed_rounds} rounds: {_reason(error)}"
                ) from None
            raise
        self._failed_rounds = 0
        self.alive[start.worker] = start.actor
        return start.worker

    def lose(self, worker: int) -> None:
        """Kill an actor that failed."""
        self.lost += 1
        _kill(self.alive.pop(worker))

    def close(self) -> None:
        """Kill all actors."""
        for actor in (*self.alive.values(), *(start.actor for start in self.starting.values())):
            _kill(actor)


def _kill(actor: ActorHandle[Any]) -> None:
    if ray.is_initialized():
        ray.kill(actor)


def _run(
    ledger: Ledger,
    pool: _Pool,
    workers: int,
    time_limit: float,
    heartbeat: float,
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

    def lose(worker: int, reason: str, *, raised: bool) -> list[Event]:
        calls = ledger.held(worker)
        for call in calls:
            heads.pop(refs.pop(call), None)
        pool.lose(worker)
        return [Lost(calls[0].task if calls else None, reason), *ledger.lost(worker, reason, raised=raised)]

    def settle_start(ref: ObjectRef[Any]) -> list[Event]:
        try:
            ledger.add_worker(pool.started(ref))
        except RayError as error:
            return [Lost(None, _reason(error))]
        return []

    def settle_head(ref: ObjectRef[Any]) -> list[Event]:
        worker = heads[ref]
        try:
            result = ray.get(ref)
        except RayError as error:
            return lose(worker, _reason(error), raised=isinstance(error, RayTaskError))
        del heads[ref], refs[ledger.held(worker)[0]]
        outcomes = ledger.succeeded(worker, result, time.monotonic())
        watch(worker)
        return [*outcomes]

    try:
        while not ledger.finished:
            if stop():
                ledger.drain()
            now = time.monotonic()
            size = ledger.useful_workers(workers)
            for worker in pool.shrink(size, ledger.idle_workers()):
                ledger.remove_worker(worker)
            pool.grow(size, now)
            for worker, call in ledger.hand_out(now):
                method = getattr(pool.alive[worker], call.method)
                refs[call] = method.remote(call.task.key, call.items)
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
                    yield from lose(worker, f"time limit of {time_limit:g} s exceeded", raised=False)
            if now >= next_beat:
                next_beat = now + heartbeat
                yield PoolState(
                    len(pool.alive), len(pool.starting), ledger.in_flight, ledger.queued, pool.lost
                )
    finally:
        pool.close()


def _wait(refs: list[ObjectRef[Any]], seconds: float) -> list[ObjectRef[Any]]:
    """All that is ready as soon as something is, or nothing after `seconds`."""
    if not refs:
        time.sleep(seconds)
        return []
    ready, _ = ray.wait(refs, num_returns=1, timeout=seconds)
    return ray.wait(refs, num_returns=len(refs), timeout=0)[0] if ready else []


def _reason(error: BaseException) -> str:
    """An error as one line: the exception's type and message, or what became of the actor."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        text = f"{type(error.cause).__name__}: {error.cause}"
    elif isinstance(error, RayTaskError) or (isinstance(error, RayActorError) and error.actor_init_failed):
        # The text is a traceback: what follows its indented lines is the exception.
        lines = str(error).rstrip().splitlines()
        last = max((index for index, line in enumerate(lines) if line.startswith("  ")), default=-1)
        text = "\n".join(lines[last + 1 :])
    elif isinstance(error, RayActorError):
        dead = re.search(r"^The actor is dead because.*", str(error), re.MULTILINE)
        text = dead.group().split(" Some common causes include")[0] if dead else str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(re.sub(r"\x1b\[\d*m", "", text).split())[:REASON_LENGTH]

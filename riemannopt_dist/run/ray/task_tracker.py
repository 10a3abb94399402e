"""The bookkeeping of a dispatcher: which calls wait, which worker holds which, and what becomes of them.

A task that used up its attempts, or raised, is isolated: each item is probed alone, those that fail again end
as `Failed` at once, and one last `process` commits the others together. Whoever stores each `Failed` before
asking for the next event has stored all of a task's failures before its other items are committed.

A call whose storage did not answer says nothing about its items, nor about its worker: it rests, and is made
again until the tracker's patience is at an end. Then its items are probed alone, if it is images that could
not be reached. While no call at all is answered, no others are made.
"""

import math
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from riemannopt_dist.storage.errors import PATIENCE

Loss = Literal["died", "overdue", "raised", "unreadable", "unanswered", "unreachable"]
"""How a call ended without a result: with its actor, at the time limit, by an exception, at an image that is
damaged or another's, or because a storage did not answer: that of the run, or that of its images."""

HARMLESS: tuple[Loss, ...] = ("unreadable", "unanswered", "unreachable")
"""Losses that say nothing of the worker."""

RESTS = 40
"""Into how many rests the patience is divided."""


@dataclass(frozen=True)
class Task:
    """Work under one name: `items` (at least one, picklable) go to one actor and are committed together.

    It may take as many time limits as it has `parts`.
    """

    key: str
    items: tuple[Any, ...]
    parts: int = 1

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
class PassedAlone:
    """`items` of a task that failed as a whole went through alone; their `Done` comes once all are probed."""

    task: Task
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Failed:
    """`items` of the task are given up on after `attempts` calls; `reason`, of the last loss, is one line."""

    task: Task
    items: tuple[Any, ...]
    reason: str
    attempts: int
    loss: Loss


@dataclass(eq=False)
class Call:
    """One method call on an actor: the items of `task` at `positions`; `alone` on its actor or in a queue."""

    task: Task
    positions: tuple[int, ...]
    method: Literal["process", "probe"]
    attempts: int
    budget: int
    isolation: "_Isolation | None" = None
    alone: bool = False
    unanswered: int = 0
    unanswered_since: float = math.inf

    @property
    def items(self) -> tuple[Any, ...]:
        """The items themselves."""
        return tuple(self.task.items[position] for position in self.positions)

    @property
    def time_limits(self) -> int:
        """How many time limits it may take: one a part, or as many as items that were each within one."""
        return len(self.positions) if self.isolation is not None else self.task.parts


@dataclass(eq=False)
class _Isolation:
    """What is known of the items of a task that are probed one by one."""

    unknown: set[int]
    kept: list[int] = field(default_factory=list)


class TaskTracker:
    """Which calls wait, which worker holds which, and what becomes of them. No Ray and no clock in here.

    A worker (any integer) runs the calls it holds in order; the first, its head, is the one running.
    `now` is in seconds of any monotonic clock, and so is `patience`.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        *,
        lookahead: int,
        attempts: int,
        in_flight: int,
        patience: float = PATIENCE,
    ) -> None:
        self._tasks = iter(tasks)
        self._exhausted = False
        self._draining = False
        self._lookahead = lookahead
        self._attempts = attempts
        self._patience = patience
        self._resting: list[tuple[float, Call]] = []  # and until when
        self._refused = 0  # calls without an answer since the last one that had one
        self._closed = -math.inf  # until then no call is made
        self._queue: deque[Call] = deque()
        self._held: dict[int, deque[Call]] = {}
        self._since: dict[int, float] = {}  # when a worker's head began to run
        self._by_load: list[dict[int, None]] = [{} for _ in range(in_flight + 1)]  # the last: no room
        self._load: dict[int, int] = {}
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """Calls drawn and held by no worker."""
        return len(self._queue) + len(self._resting)

    @property
    def finished(self) -> bool:
        """Whether nothing waits, runs or is still to be drawn."""
        self._refill()
        return self._exhausted and not self.queued and not self.in_flight

    def useful_workers(self, maximum: int) -> int:
        """How many workers, at most `maximum`, the remaining calls can occupy."""
        self._refill()
        return min(maximum, self.in_flight + self.queued) if self._exhausted else maximum

    def add_worker(self, worker: int) -> None:
        """From now on `worker` can be handed calls."""
        self._held[worker] = deque()
        self._place(worker)

    def idle_workers(self) -> list[int]:
        """Workers that hold nothing, longest idle first."""
        return list(self._by_load[0])

    def remove_worker(self, worker: int) -> None:
        """Take `worker` out; what it holds goes back to the front of the queue, in order and uncharged."""
        calls = self._held.pop(worker)
        del self._by_load[self._load.pop(worker)][worker]
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
        self._wake(now)
        self._refill()
        while now >= self._closed and self._queue and (worker := self._least_loaded()) is not None:
            call = self._queue.popleft()
            if not self._held[worker]:
                self._since[worker] = now
            self._held[worker].append(call)
            self.in_flight += 1
            self._place(worker)
            yield worker, call
            self._refill()

    def overdue(self, now: float, time_limit: float) -> list[int]:
        """Workers whose head has been running for more than its limits of `time_limit` seconds."""
        return [
            worker
            for worker, since in self._since.items()
            if now - since > time_limit * self._held[worker][0].time_limits
        ]

    def running(self, now: float) -> list[tuple[Call, float]]:
        """The calls that run, and for how many seconds."""
        return [(self._held[worker][0], now - since) for worker, since in self._since.items()]

    def succeeded(self, worker: int, result: Any, now: float) -> list[Done | PassedAlone]:
        """The head of `worker` returned `result`: what that tells of its items."""
        call, seconds = self._pop_head(worker, now)
        self._refused = 0
        if call.method == "probe":
            assert call.isolation is not None
            call.isolation.kept += call.positions
            self._probed(call, call.isolation)
            return [PassedAlone(call.task, call.items)]
        return [Done(call.task, call.items, result, seconds)]

    def lost(self, worker: int, reason: str, loss: Loss, now: float) -> list[Done | Failed]:
        """Take out `worker`, which lost its head: the outcomes that this settles."""
        calls = self.held(worker)
        if loss == "died" and len(calls) != 1:
            for call in calls:
                call.alone = True
            self.remove_worker(worker)
            return []
        call, _ = self._pop_head(worker, math.nan)
        self.remove_worker(worker)
        call.attempts += 1
        call.alone = True
        if loss != "raised" and call.attempts < _budget(call, loss):
            self._put_back([call])
            return []
        return [*self._given_up(call, reason, loss)]

    def returned(self, worker: int, reason: str, loss: Loss, now: float) -> list[Failed]:
        """The head of `worker`, which stays, came back undone, with one of `HARMLESS`: what this settles."""
        call, _ = self._pop_head(worker, now)
        if loss == "unreadable":
            call.attempts += 1
            return self._given_up(call, reason, loss)
        call.unanswered += 1
        call.unanswered_since = min(call.unanswered_since, now)
        if now - call.unanswered_since < self._patience:
            self._refused += 1
            if self._refused > self._lookahead:
                self._closed = now + self._patience / RESTS
            self._rest(call, now)
            return []
        if loss == "unanswered":
            return [self._failed(call, reason, loss)]
        return self._given_up(call, reason, loss)

    def _given_up(self, call: Call, reason: str, loss: Loss) -> list[Failed]:
        """Isolate a call's items, or settle them where that was done."""
        if call.isolation is None and len(call.positions) > 1:
            self._isolate(call)
            return []
        if call.isolation is not None and call.method == "probe":
            self._probed(call, call.isolation)
        return [self._failed(call, reason, loss)]

    def _failed(self, call: Call, reason: str, loss: Loss) -> Failed:
        return Failed(call.task, call.items, reason, call.attempts + call.unanswered, loss)

    def drain(self) -> None:
        """Hand out nothing more: what waits is dropped, what runs may finish."""
        self._exhausted = self._draining = True
        self._queue.clear()
        self._resting.clear()

    def _isolate(self, call: Call) -> None:
        isolation = _Isolation(unknown=set(call.positions))
        budget, since = call.attempts + self._attempts, call.unanswered_since
        self._put_back(
            Call(call.task, (position,), "probe", call.attempts, budget, isolation, True, 0, since)
            for position in call.positions
        )

    def _probed(self, call: Call, isolation: _Isolation) -> None:
        """Close the isolation if this was its last item, and let what is kept be committed."""
        isolation.unknown.difference_update(call.positions)
        if not isolation.unknown and isolation.kept:
            positions = tuple(sorted(isolation.kept))
            self._put_back([Call(call.task, positions, "process", 0, self._attempts, isolation)])

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

    def _rest(self, call: Call, now: float) -> None:
        if not self._draining:
            self._resting.append((now + self._patience / RESTS, call))

    def _wake(self, now: float) -> None:
        """Put the calls that have rested in front of the others."""
        self._put_back([call for until, call in self._resting if until <= now])
        self._resting = [(until, call) for until, call in self._resting if until > now]

    def _least_loaded(self) -> int | None:
        # A second call in advance pays while more are to come: at the end nobody hoards, and an actor that is
        # to run one alone has to become idle first.
        only_idle = self._exhausted or self._queue[0].alone
        loads = self._by_load[: 1 if only_idle else -1]
        return next((next(iter(workers)) for workers in loads if workers), None)

    def _pop_head(self, worker: int, now: float) -> tuple[Call, float]:
        seconds = now - self._since.pop(worker)
        call = self._held[worker].popleft()
        if self._held[worker]:
            self._since[worker] = now
        self.in_flight -= 1
        self._place(worker)
        return call, seconds

    def _place(self, worker: int) -> None:
        """Put `worker` among those that hold as much: nothing more goes to one that runs a call alone."""
        if worker in self._load:
            del self._by_load[self._load[worker]][worker]
        calls = self._held[worker]
        self._load[worker] = len(self._by_load) - 1 if calls and calls[0].alone else len(calls)
        self._by_load[self._load[worker]][worker] = None


def _budget(call: Call, loss: Loss) -> int:
    """After how many attempts a call is given up on. What hangs costs two time limits, not one an attempt."""
    is_whole_again = call.isolation is not None and call.method == "process"
    if loss != "overdue" or is_whole_again:
        return call.budget
    return min(call.budget, 1 if len(call.positions) > 1 else 2)

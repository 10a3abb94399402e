"""The actors of a run: spawned, replaced and killed."""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from riemannopt_dist.choices import check_positive
from riemannopt_dist.run.errors import StartError
from riemannopt_dist.run.failure import reason_of

REASON_LENGTH = 500
"""Characters kept of a reason."""


@dataclass(frozen=True)
class _Start:
    worker: int
    actor: ActorHandle[Any]
    spawned: float


class Pool:
    """At most `workers` actors made by `spawn()`: alive, starting, and how the last starts went.

    A context, at whose end all actors are killed. `spawn` leaves Ray's own restarts and retries at their
    default, none. `StartError` is raised after `start_attempts` consecutive rounds of failed starts with no
    actor alive. Actors spawned before the last counted failure belong to its round, so that one lost node
    counts once.
    """

    def __init__(
        self, spawn: Callable[[], ActorHandle[Any]], workers: int, *, start_attempts: int = 3
    ) -> None:
        check_positive(workers, "workers")
        check_positive(start_attempts, "start_attempts")
        self.workers = workers
        self._spawn = spawn
        self._start_attempts = start_attempts
        self._ids = itertools.count()
        self._failed_rounds = 0
        self._last_failure = -math.inf
        self.alive: dict[int, ActorHandle[Any]] = {}
        self.starting: dict[ObjectRef[Any], _Start] = {}
        self.lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
                    f"no worker could be started in {self._failed_rounds} rounds: {one_line(error)}"
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
        self.alive.clear()
        self.starting.clear()


def _kill(actor: ActorHandle[Any]) -> None:
    if ray.is_initialized():
        ray.kill(actor)


def one_line(error: BaseException) -> str:
    """An error as one line: the exception's type and message, or what became of the actor."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        text = reason_of(error.cause)
    elif isinstance(error, RayTaskError) or (isinstance(error, RayActorError) and error.actor_init_failed):
        # The text is a traceback: what follows its indented lines is the exception.
        lines = str(error).rstrip().splitlines()
        last = max((index for index, line in enumerate(lines) if line.startswith("  ")), default=-1)
        text = "\n".join(lines[last + 1 :])
    elif isinstance(error, RayActorError):
        dead = re.search(r"^The actor is dead because.*", str(error), re.MULTILINE)
        text = dead.group().split(" Some common causes include")[0] if dead else str(error)
    else:
        text = reason_of(error)
    return " ".join(re.sub(r"\x1b\[\d*m", "", text).split())[:REASON_LENGTH]


def node_of(error: BaseException) -> str:
    """The address of the machine that an error of Ray's came from, "" where it does not tell."""
    place = re.search(r"(?:\(pid=\d+, |^\s*)ip[=:] ?([\w.:]+)", str(error), re.MULTILINE)
    return "" if place is None else place[1]

"""The journal of a run's workers: which shard each began and ended, when and where; not which failed.

What a stage gave up on is in failures.parquet: `run.failure`.
A worker writes `workers/<worker>/<n>.jsonl`, a line an event, SEGMENT events a file: object stores have whole
files only, and a short one is soon written again. `riemannopt status` reads them.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError

logger = logging.getLogger(__name__)

FOLDER = "workers"
SEGMENT = 200
"""Events in a file."""


@dataclass(frozen=True)
class ShardEvent:
    """A shard that a worker began or ended at `time` (seconds since 1970), after so many `seconds`."""

    event: Literal["start", "end"]
    time: float
    stage: str
    shard: str
    images: int
    seconds: float
    worker: str
    node: str
    host: str


class WorkerJournal:
    """One worker's, for all of its threads; `node` is Ray's name of the node that it is on."""

    def __init__(self, storage: Storage, node: str) -> None:
        self._storage = storage
        self._node = node
        self._host = socket.gethostname()
        self.worker = f"{self._host}-{os.getpid()}-{secrets.token_hex(2)}"
        self._lines: list[str] = []
        self._segment = 0
        self._began: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def began(self, stage: str, shard: str, images: int) -> None:
        """Note that the worker begins a shard."""
        began = self._began[stage, shard] = time.time()
        self._note(ShardEvent("start", began, stage, shard, images, 0.0, *self._place))

    def ended(self, stage: str, shard: str, images: int) -> None:
        """Note that a shard is committed."""
        now = time.time()
        seconds = now - self._began.pop((stage, shard))
        self._note(ShardEvent("end", now, stage, shard, images, seconds, *self._place))

    @property
    def _place(self) -> tuple[str, str, str]:
        return self.worker, self._node, self._host

    def _note(self, event: ShardEvent) -> None:
        """Write it; a journal that cannot be written costs no work."""
        logger.info("%s %s/%s (%d images)", event.event, event.stage, event.shard, event.images)
        with self._lock:
            if len(self._lines) == SEGMENT:
                self._lines, self._segment = [], self._segment + 1
            self._lines.append(json.dumps(asdict(event)))
            name = f"{FOLDER}/{self.worker}/{self._segment:05}.jsonl"
            try:
                self._storage.write_bytes(name, ("\n".join(self._lines) + "\n").encode())
            except (StorageError, ValueError) as error:
                logger.warning("the journal is not written: %s", error)


def read_journals(storage: Storage) -> Iterator[ShardEvent]:
    """The events of all workers; lines that are none are left out."""
    for name in storage.list(FOLDER):
        for line in storage.read_bytes(name).decode(errors="replace").splitlines():
            try:
                yield ShardEvent(**json.loads(line))
            except (ValueError, TypeError):
                continue


def in_flight(storage: Storage) -> list[ShardEvent]:
    """The shards that were begun and not ended since, each where it was begun last; the oldest first."""
    last: dict[tuple[str, str], ShardEvent] = {}
    for event in read_journals(storage):
        key = event.stage, event.shard
        if key not in last or event.time >= last[key].time:
            last[key] = event
    return sorted((e for e in last.values() if e.event == "start"), key=lambda event: event.time)

"""What a run tells Ray's metrics while it goes on, for Prometheus to collect from every node.

Ray adds its prefix `ray_` and labels for the node and the worker process. jobs/grafana.json shows all of it.
"""

import string
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ray.util.metrics import Counter, Gauge

from riemannopt_dist.run.stages.tally import Timings


@dataclass(frozen=True)
class Series:
    """A number over time: its name, what it means, and the labels that tell its lines apart."""

    kind: type[Counter] | type[Gauge]
    name: str
    meaning: str
    labels: tuple[str, ...]

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_{self.name}"

    def make(self) -> Any:
        """Ray's object for it; Ray must be up."""
        return self.kind(self.name, description=self.meaning, tag_keys=self.labels)


# Counters end in _total, as Prometheus has it: Ray would else export each twice.
IMAGES_DONE = Series(Counter, "riemannopt_images_done_total", "images done", ("run", "stage"))
FAILURES = Series(Counter, "riemannopt_failures_total", "images given up on", ("run", "stage"))
RETRIES = Series(Counter, "riemannopt_retries_total", "workers lost and replaced", ("run", "stage"))
WORKERS = Series(Gauge, "riemannopt_workers", "workers that are alive or starting", ("run", "state"))
GRADIENTS = Series(
    Counter, "riemannopt_gradient_evaluations_total", "gradients of single images", ("run", "stage")
)
SECONDS = Series(
    Counter, "riemannopt_seconds_total", "time that goes into a part of the work", ("run", "stage", "part")
)
BUSY = Series(
    Gauge,
    "riemannopt_device_busy_fraction",
    "share of time that the device spends in the model, from shard to shard",
    ("run",),
)
SERIES = (IMAGES_DONE, FAILURES, RETRIES, WORKERS, GRADIENTS, SECONDS, BUSY)


class DriverTelemetry:
    """What the driver of `run` knows: images done and given up on, workers and their losses."""

    def __init__(self, run: str) -> None:
        self._run = _label(run)
        self._done, self._failures = IMAGES_DONE.make(), FAILURES.make()
        self._retries, self._workers = RETRIES.make(), WORKERS.make()

    def done(self, stage: str, images: int) -> None:
        """So many more are done."""
        self._done.inc(images, self._tags(stage=stage))

    def failed(self, stage: str, images: int) -> None:
        """So many more are given up on."""
        self._failures.inc(images, self._tags(stage=stage))

    def lost(self, stage: str) -> None:
        """A worker was lost, and its work goes to others."""
        self._retries.inc(1, self._tags(stage=stage))

    def workers(self, alive: int, starting: int) -> None:
        """How many there are."""
        self._workers.set(alive, self._tags(state="alive"))
        self._workers.set(starting, self._tags(state="starting"))

    def _tags(self, **labels: str) -> Mapping[str, str]:
        return {"run": self._run, **labels}


class WorkerTelemetry:
    """What a worker knows: gradients and where its time goes."""

    def __init__(self, run: str) -> None:
        self._run = _label(run)
        self._gradients, self._seconds, self._busy = GRADIENTS.make(), SECONDS.make(), BUSY.make()
        self._since = time.perf_counter()

    def shard(self, stage: str, timings: Timings, write_seconds: float, device_seconds: float) -> None:
        """A shard was just written, for which it took so many seconds, and its model's passes so many."""
        tags = {"run": self._run, "stage": stage}
        if timings.gradient_evaluations:
            self._gradients.inc(timings.gradient_evaluations, tags)
        parts = {
            "decode": timings.decode_seconds,
            "compute": timings.compute_seconds,
            "write": write_seconds,
        }
        for part, seconds in parts.items():
            self._seconds.inc(seconds, {**tags, "part": part})
        now = time.perf_counter()
        self._busy.set(min(1.0, device_seconds / (now - self._since)), {"run": self._run})
        self._since = now


def _label(run: str) -> str:
    """`run` in ASCII, all that Ray takes, with the rest percent-encoded."""
    return quote(run, safe=string.punctuation + " ", errors="surrogateescape")

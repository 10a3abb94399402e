"""The actor of a run: one model on one device, turning shards of items into files of rows."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import torch

from riemannopt_dist.images import Files
from riemannopt_dist.precision import use_ieee_float32
from riemannopt_dist.run.classifier import worker_classifier
from riemannopt_dist.run.engine import Engine
from riemannopt_dist.run.memory import measured_batch_size
from riemannopt_dist.run.stage import Stage, as_table
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.run.tally import Tally
from riemannopt_dist.run.telemetry import WorkerTelemetry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Payload:
    """What every worker of a run needs, sent once to each node."""

    model_name: str
    state: Mapping[str, np.ndarray]
    storage: Storage
    files: Files
    threads: int
    gpus: float
    internal_batch_size: int | str


class ShardWorker:
    """Does shards one at a time. `payload` holds one object reference, so that Ray does not copy it in."""

    def __init__(self, payload: Sequence["ray.ObjectRef[Payload]"]) -> None:
        given: Payload = ray.get(payload[0])
        torch.set_num_threads(given.threads)
        use_ieee_float32()
        device = torch.device("cuda" if given.gpus and torch.cuda.is_available() else "cpu")
        # Kept for as long as the model lives: its parameters may be views of the store's memory.
        self._payload = given
        model = worker_classifier(given.model_name, given.state).to(device)
        size = measured_batch_size(model, device, given.internal_batch_size)
        self._engine = Engine(model, device, given.files, size, Tally())
        self._telemetry = WorkerTelemetry(given.storage.root)
        model.register_forward_pre_hook(self._count)

    def process(self, stage: Stage, key: str, items: Sequence[Any]) -> dict[str, float]:
        """Do `items` and commit their rows as one file; the number of rows and the seconds it took."""
        self._engine = replace(self._engine, tally=Tally())
        table = as_table(stage, self.probe(stage, key, items))
        timings = self._engine.tally.timings(items)
        start = time.perf_counter()
        self._payload.storage.write_table(shard_name(stage, key), timings.in_table(table))
        write_seconds = time.perf_counter() - start
        self._telemetry.shard(stage.name, timings, write_seconds)
        return {"rows": table.num_rows, "seconds": timings.seconds + write_seconds}

    def probe(self, stage: Stage, key: str, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Do `items` without committing anything; with half the micro-batch where memory runs out."""
        while True:
            try:
                return list(stage.rows(self._engine, items))
            except torch.OutOfMemoryError:
                size = self._engine.internal_batch_size
                if size == 1:
                    raise
                logger.warning("out of memory with %d gradients at once: going on with %d", size, size // 2)
                self._engine = replace(self._engine, internal_batch_size=size // 2)
            # Outside of the handler, whose exception holds on to the tensors that filled the memory.
            torch.cuda.empty_cache()

    def _count(self, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._engine.tally.saw(len(inputs[0]), gradient=torch.is_grad_enabled())


def shard_name(stage: Stage, key: str) -> str:
    """The file of a shard, relative to the run directory."""
    return f"{stage.name}/{key}.parquet"

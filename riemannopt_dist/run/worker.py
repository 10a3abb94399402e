"""The actor of a run: one model on one device, turning shards of items into files of rows."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from riemannopt_dist.folding import folded
from riemannopt_dist.images import Files
from riemannopt_dist.models import assemble_model
from riemannopt_dist.run.stages import Stage, as_table
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.run.tally import Tally
from riemannopt_dist.run.telemetry import WorkerTelemetry


@dataclass(frozen=True)
class Payload:
    """What every worker of a run needs, sent once to each node."""

    model_name: str
    state: Mapping[str, np.ndarray]
    storage: Storage
    files: Files
    threads: int


class ShardWorker:
    """Does shards one at a time. `payload` holds one object reference, so that Ray does not copy it in."""

    def __init__(self, payload: Sequence["ray.ObjectRef[Payload]"]) -> None:
        given: Payload = ray.get(payload[0])
        torch.set_num_threads(given.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Kept for as long as the model lives: its parameters may be views of the store's memory.
        self._payload = given
        model = folded(assemble_model(given.model_name, given.state)).to(self._device)
        self._model = model.to(memory_format=torch.channels_last)
        self._tally = Tally()
        self._telemetry = WorkerTelemetry(given.storage.root)
        self._model.register_forward_pre_hook(self._count)

    def process(self, stage: Stage, key: str, items: Sequence[Any]) -> dict[str, float]:
        """Do `items` and commit their rows as one file; the number of rows and the seconds it took."""
        self._tally = Tally()
        table = as_table(stage, self.probe(stage, key, items))
        timings = self._tally.timings(items)
        start = time.perf_counter()
        self._payload.storage.write_table(shard_name(stage, key), timings.in_table(table))
        write_seconds = time.perf_counter() - start
        self._telemetry.shard(stage.name, timings, write_seconds)
        return {"rows": table.num_rows, "seconds": timings.seconds + write_seconds}

    def probe(self, stage: Stage, key: str, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Do `items` without committing anything."""
        return list(stage.rows(self._model, self._device, self._payload.files, items, self._tally))

    def _count(self, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._tally.saw(len(inputs[0]), gradient=torch.is_grad_enabled())


def shard_name(stage: Stage, key: str) -> str:
    """The file of a shard, relative to the run directory."""
    return f"{stage.name}/{key}.parquet"

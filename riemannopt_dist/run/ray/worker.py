"""The actor of a run: one model on one device, turning shards of items into files of rows."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from riemannopt_dist.data.files import Files
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.models.folding import fast_classifier
from riemannopt_dist.precision import use_ieee_float32
from riemannopt_dist.run.examples import image_of
from riemannopt_dist.run.journal import WorkerJournal
from riemannopt_dist.run.memory import measured_batch_size
from riemannopt_dist.run.origin import Origin
from riemannopt_dist.run.outputs.maps import joined
from riemannopt_dist.run.ray.telemetry import WorkerTelemetry
from riemannopt_dist.run.shards import Piece
from riemannopt_dist.run.stages.arithmetic import Arithmetic, arithmetic_of
from riemannopt_dist.run.stages.base import SHARD, Part, Stage, as_table, files_beside
from riemannopt_dist.run.stages.completion import completed, key_fields, lacking_parts, row_keys, staying_rows
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.evaluate import Evaluation
from riemannopt_dist.run.stages.tally import Tally, Timings
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DamagedFile

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
    origin: Origin | None = None


class ShardWorker:
    """Does shards one at a time. `payload` holds one object reference, so that Ray does not copy it in."""

    def __init__(self, payload: Sequence["ray.ObjectRef[Payload]"]) -> None:
        content: Payload = ray.get(payload[0])
        torch.set_num_threads(content.threads)
        use_ieee_float32()
        device = torch.device("cuda" if content.gpus and torch.cuda.is_available() else "cpu")
        # Kept for as long as the model lives: its parameters may be views of the store's memory.
        self._payload = content
        model = fast_classifier(content.model_name, content.state).to(device)
        size = measured_batch_size(model, device, content.internal_batch_size)
        self._engine = Engine(model, device, content.files, size, Tally())
        self._telemetry = WorkerTelemetry(content.storage.root)
        self._journal = WorkerJournal(content.storage, ray.get_runtime_context().get_node_id())
        self._arithmetic: Arithmetic | None = None
        model.register_forward_pre_hook(self._count)

    def process(self, stage: Stage, key: str, items: Sequence[Piece[Any]]) -> dict[str, float]:
        """Do what is lacking of `items` and commit each shard's rows as one file.

        Rows that are there stay: a shard may be done in part. Gives the number of rows made, and the seconds.
        """
        rows, seconds = 0, 0.0
        for shard, pieces in self._shards(items):
            self._journal.began(stage.name, shard, len(pieces))
            made, spent = self._complete(stage, shard, pieces)
            self._journal.ended(stage.name, shard, len(pieces))
            rows, seconds = rows + made, seconds + spent
        return {"rows": rows, "seconds": seconds}

    def probe(self, stage: Stage, key: str, items: Sequence[Piece[Any]]) -> None:
        """Do `items` without committing anything."""
        for shard, pieces in self._shards(items):
            self._journal.began(stage.name, shard, len(pieces))
            self._rows(stage, pieces)

    def _shards(self, items: Sequence[Piece[Any]]) -> Iterator[tuple[str, list[Any]]]:
        """The items of each shard; meanwhile their containers stay open, where the last shard left off."""
        with ImageReader(self._payload.files, map(image_of, (piece.item for piece in items))) as reader:
            self._engine = replace(self._engine, reader=reader)
            for shard, pieces in groupby(items, attrgetter("shard")):
                yield shard, [piece.item for piece in pieces]

    def _complete(self, stage: Stage, shard: str, items: Sequence[Any]) -> tuple[int, float]:
        """Make what a shard lacks and commit it with what is there: the number of rows, and the seconds."""
        image_ids = [image_of(item).image_id for item in items]
        there, earlier = self._there(stage, shard)
        parts = self._lacking(stage, shard, there, image_ids)
        if not parts:
            return 0, 0.0
        if isinstance(stage, Evaluation) and self._arithmetic is None:
            self._arithmetic = arithmetic_of(stage, self._engine, items)
        self._engine = replace(self._engine, tally=Tally())
        made = as_table(stage, self._rows(stage.only(parts), items))
        timings = self._engine.tally.timings(items)
        # The rows last: their file says that the shard is done.
        files = {name.replace(SHARD, shard): joined(part) for name, part in self._engine.tables.items()}
        whole = completed(stage, there, made, image_ids)
        files[shard_name(stage, shard)] = timings.after(earlier).in_table(whole)
        write_seconds = sum(self._commit(name, part) for name, part in files.items())
        self._telemetry.shard(stage.name, timings, write_seconds)
        return made.num_rows, timings.seconds + write_seconds

    def _there(self, stage: Stage, shard: str) -> tuple[pa.Table, Timings | None]:
        """The rows of a shard that are there and stay, none mostly; and what they took."""
        storage, origin, none = self._payload.storage, self._payload.origin, stage.schema.empty_table()
        try:
            table = storage.read_table(shard_name(stage, shard), key_fields(stage))
        except (FileNotFoundError, DamagedFile):
            return none, None
        if origin is None or not origin.same_run(table.schema):
            return none, None
        rows = staying_rows(stage, table)
        return rows, Timings.of(table.schema) if len(rows) else None

    def _lacking(self, stage: Stage, shard: str, there: pa.Table, image_ids: Sequence[str]) -> list[Part]:
        """The parts of a shard that lack rows, or a file beside them."""
        lacking = lacking_parts(stage, {*row_keys(stage, there)}, image_ids)
        rest = [part for part in stage.parts if part not in lacking]
        exists = self._payload.storage.exists
        return lacking + [
            part for part in rest if not all(map(exists, files_beside(stage.only([part]), shard, image_ids)))
        ]

    def _commit(self, name: str, table: pa.Table) -> float:
        """Write a shard's file; the seconds it took."""
        start = time.perf_counter()
        for note in (self._payload.origin, self._arithmetic):
            table = table if note is None else note.in_table(table)
        self._payload.storage.write_table(name, table)
        return time.perf_counter() - start

    def _rows(self, stage: Stage, items: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of `items`; with half the micro-batch where memory runs out."""
        while True:
            self._engine = replace(self._engine, tables={})
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

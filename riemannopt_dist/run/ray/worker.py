"""The actor of a run: one model on one device, turning shards of items into files of rows."""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from riemannopt_dist.data.files import Files
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.models.folding import fast_classifier
from riemannopt_dist.objective import Objective
from riemannopt_dist.precision import use_ieee_float32
from riemannopt_dist.run.device_clock import DeviceClock
from riemannopt_dist.run.examples import image_of
from riemannopt_dist.run.journal import WorkerJournal
from riemannopt_dist.run.maps import joined
from riemannopt_dist.run.memory import measured_batch_size
from riemannopt_dist.run.origin import Origin
from riemannopt_dist.run.ray.host import check_output, promised_device
from riemannopt_dist.run.ray.telemetry import WorkerTelemetry
from riemannopt_dist.run.shards import Piece
from riemannopt_dist.run.stages.arithmetic import Arithmetic, arithmetic_of
from riemannopt_dist.run.stages.base import SHARD, Part, Row, Stage, as_table, files_beside
from riemannopt_dist.run.stages.completion import completed, key_fields, lacking_parts, row_keys, staying_rows
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.evaluate import Evaluation
from riemannopt_dist.run.stages.tally import Tally, Timings
from riemannopt_dist.run.stages.turn import Turn
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DamagedFile

logger = logging.getLogger(__name__)

AT_A_TIME = 2
"""Shards of a worker that are begun and not written."""


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


@dataclass(frozen=True)
class _Computed:
    """What a stage made of a shard's items, and the time that it took, and its model's passes."""

    rows: Sequence[Row]
    tables: Mapping[str, Sequence[pa.Table]]
    timings: Timings
    device_seconds: float


class ShardWorker:
    """Turns shards into files: one has the device while another's images are read, or its files are written.

    Calls may come from as many threads as shards are done AT_A_TIME. `payload` holds one object reference, so
    that Ray does not copy it in. Raises RuntimeError where its host's GPU cannot be used, ValueError
    where the output there is not the driver's.
    """

    def __init__(self, payload: Sequence["ray.ObjectRef[Payload]"]) -> None:
        content: Payload = ray.get(payload[0])
        torch.set_num_threads(content.threads)
        use_ieee_float32()
        if content.origin is not None:
            check_output(content.storage, content.origin)
        self._device = promised_device(content.gpus)
        # Kept for as long as the model lives: its parameters may be views of the store's memory.
        self._payload = content
        self._model = fast_classifier(content.model_name, content.state).to(self._device)
        self._batch = measured_batch_size(
            self._model, self._device, content.internal_batch_size, content.gpus
        )
        self._turn: Turn[Tally] = Turn()
        self._clock = DeviceClock(self._model, self._device)
        self._shards = ThreadPoolExecutor(AT_A_TIME, "shards")
        self._telemetry = WorkerTelemetry(content.storage.root)
        self._journal = WorkerJournal(content.storage, ray.get_runtime_context().get_node_id())
        self._arithmetic: Arithmetic | None = None
        self._counts = True
        self._model.register_forward_pre_hook(self._count)

    def process(self, stage: Stage, key: str, items: Sequence[Piece[Any]]) -> dict[str, float]:
        """Do what is lacking of `items` and commit each shard's rows as one file.

        Rows that are there stay: a shard may be done in part. Gives the number of rows made, and the seconds.
        What one shard raises is raised once no other is being written.
        """
        with self._reader(items) as reader:
            shards = [
                self._shards.submit(self._done, stage, shard, [piece.item for piece in pieces], reader)
                for shard, pieces in groupby(items, attrgetter("shard"))
            ]
            try:
                rows, seconds = zip(*(shard.result() for shard in shards), strict=True)
            finally:
                for shard in shards:
                    shard.cancel()
                wait(shards)
        return {"rows": sum(rows), "seconds": sum(seconds)}

    def probe(self, stage: Stage, key: str, items: Sequence[Piece[Any]]) -> None:
        """Do `items` without committing anything."""
        with self._reader(items) as reader:
            for shard, pieces in groupby(items, attrgetter("shard")):
                part = [piece.item for piece in pieces]
                self._journal.began(stage.name, shard, len(part))
                self._computed(stage, part, reader)

    def _reader(self, items: Sequence[Piece[Any]]) -> ImageReader:
        """What keeps the containers of all shards' images open, where the last shard left off."""
        return ImageReader(self._payload.files, map(image_of, (piece.item for piece in items)))

    def _done(self, stage: Stage, shard: str, items: Sequence[Any], reader: ImageReader) -> tuple[int, float]:
        """Complete a shard, and note it."""
        self._journal.began(stage.name, shard, len(items))
        done = self._complete(stage, shard, items, reader)
        self._journal.ended(stage.name, shard, len(items))
        return done

    def _complete(
        self, stage: Stage, shard: str, items: Sequence[Any], reader: ImageReader
    ) -> tuple[int, float]:
        """Make what a shard lacks and commit it with what is there: the number of rows, and the seconds."""
        image_ids = [image_of(item).image_id for item in items]
        there, earlier = self._there(stage, shard)
        parts = self._lacking(stage, shard, there, image_ids)
        if not parts:
            return 0, 0.0
        computed = self._computed(stage.only(parts), items, reader)
        made, timings = as_table(stage, computed.rows), computed.timings
        # The rows last: their file says that the shard is done.
        files = {name.replace(SHARD, shard): joined(part) for name, part in computed.tables.items()}
        whole = completed(stage, there, made, image_ids)
        files[shard_name(stage, shard)] = timings.after(earlier).in_table(whole)
        write_seconds = sum(self._commit(name, part) for name, part in files.items())
        self._telemetry.shard(stage.name, timings, write_seconds, computed.device_seconds)
        return made.num_rows, timings.seconds + write_seconds

    def _try_out(self, stage: Stage, objective: Objective, images: torch.Tensor) -> None:
        """Find out once how exact this device's gradients are, and how the estimators take the model.

        That is no work of a shard, and is not counted.
        """
        if self._arithmetic is not None or not isinstance(stage, Evaluation):
            return
        self._counts = False
        try:
            self._arithmetic = arithmetic_of(objective, images, stage.score_precision)
            for name in sorted({cell.estimator for cell in stage.placed}):
                ESTIMATORS[name].check(self._model)
        finally:
            self._counts = True

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

    def _computed(self, stage: Stage, items: Sequence[Any], reader: ImageReader) -> _Computed:
        """What a stage makes of `items`; with half the micro-batch where memory runs out."""
        while True:
            size = self._batch
            engine = Engine(
                self._model,
                self._device,
                self._payload.files,
                size,
                Tally(self._turn),
                reader,
                observe=partial(self._try_out, stage),
            )
            try:
                with engine.tally as tally:
                    rows = list(stage.rows(engine, items))
                    device_seconds = self._clock.taken()
                return _Computed(rows, engine.tables, tally.timings(items), device_seconds)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                logger.warning("out of memory with %d gradients at once: going on with %d", size, size // 2)
                self._batch = size // 2
            # Outside of the handler, whose exception holds on to the tensors that filled the memory.
            torch.cuda.empty_cache()

    def _count(self, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if self._counts and (tally := self._turn.holder) is not None:
            tally.saw(len(inputs[0]), gradient=torch.is_grad_enabled())


def shard_name(stage: Stage, key: str) -> str:
    """The file of a shard, relative to the run directory."""
    return f"{stage.name}/{key}.parquet"

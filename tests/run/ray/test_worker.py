"""A worker's shards: one is computed while another's files are written, and every error is its call's."""

import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
import ray
import torch

from riemannopt_dist.data.files import LocalFiles
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.state import model_state
from riemannopt_dist.run.allocator import KEEP_MEMORY
from riemannopt_dist.run.ray.worker import Payload, ShardWorker
from riemannopt_dist.run.shards import Piece
from riemannopt_dist.run.stages.select import Selection
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError
from riemannopt_dist.testing.small_world import make_pictures

MODEL = "riemannopt_dist.testing.small_world:tiny_classifier"
FIRST, SECOND, THIRD = (f"selection/shard-{n:05}.parquet" for n in range(3))


class Meeting(Storage):
    """The first shard's file is written once the second one's rows are there; the disk fails at FAILING."""

    second_is_there: ClassVar[threading.Event] = threading.Event()
    failing: ClassVar[str] = ""

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write it, or wait, or fail."""
        if name == SECOND:
            self.second_is_there.set()
        if name == FIRST:
            assert self.second_is_there.wait(60)
        if name == self.failing:
            raise StorageError("the disk is full")
        super().write_table(name, table)


@pytest.fixture
def worker(tmp_path: Path, ray_here: None) -> ShardWorker:
    Meeting.second_is_there.clear()
    Meeting.failing = ""
    state, storage = model_state(load_model(MODEL)), Meeting(tmp_path / "run")
    payload = Payload(MODEL, state, storage, LocalFiles(), torch.get_num_threads(), 0.0, 8)
    return ShardWorker([ray.put(payload)])


@pytest.fixture
def pieces(tmp_path: Path) -> tuple[Piece[ImageRef], ...]:
    """Three shards of two images."""
    refs = list_images(str(make_pictures(tmp_path / "pictures", 6)))
    return tuple(Piece(f"shard-{n // 2:05}", ref) for n, ref in enumerate(refs))


def rows(storage: Storage, name: str) -> list[str]:
    ids: list[str] = storage.read_table(name)["image_id"].to_pylist()
    return ids


def test_a_shard_is_computed_while_the_last_ones_files_are_written(
    worker: ShardWorker, pieces: tuple[Piece[ImageRef], ...], tmp_path: Path
) -> None:
    assert worker.process(Selection(2), "shard-00000", pieces)["rows"] == 6
    storage = Storage(tmp_path / "run")
    written = [rows(storage, name) for name in (FIRST, SECOND, THIRD)]
    assert written == [[piece.item.image_id for piece in pieces[n : n + 2]] for n in (0, 2, 4)]


def test_so_is_that_of_the_next_call(
    worker: ShardWorker, pieces: tuple[Piece[ImageRef], ...], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as calls:
        one, two = (
            calls.submit(worker.process, Selection(2), part[0].shard, part)
            for part in (pieces[:2], pieces[2:4])
        )
        assert (one.result()["rows"], two.result()["rows"]) == (2, 2)


def test_what_a_write_raises_is_raised_and_what_is_written_stays(
    worker: ShardWorker, pieces: tuple[Piece[ImageRef], ...], tmp_path: Path
) -> None:
    Meeting.failing = SECOND
    with pytest.raises(StorageError, match="the disk is full"):
        worker.process(Selection(2), "shard-00000", pieces)
    assert rows(Storage(tmp_path / "run"), FIRST) == [piece.item.image_id for piece in pieces[:2]]
    Meeting.failing = ""
    assert worker.process(Selection(2), "shard-00000", pieces)["rows"] == 6


FAULTS = """
import resource, threading
import numpy as np

def work():
    for n in range(2):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for _ in range(5):
            np.ones(100_000_000, dtype=np.uint8)
        print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")
def test_a_thread_has_the_memory_that_it_gave_back() -> None:
    """Large blocks cost page faults, of 4 kB mostly, the first time alone."""
    command = [sys.executable, "-c", FAULTS]
    plain, kept = (
        subprocess.run(
            command, env={**os.environ, **more}, capture_output=True, text=True, check=True
        ).stdout.split()
        for more in ({}, KEEP_MEMORY)
    )
    assert int(kept[1]) < 0.1 * int(plain[1])

"""Which images share a shard and a task: those of a row group, so that each byte of a file is read once."""

import io
import math
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from riemannopt_dist.data.files import LocalFiles
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.run.draw import drawn_order
from riemannopt_dist.run.examples import located
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.shards import Location, runs_of, shards_of
from riemannopt_dist.run.status import read_status
from riemannopt_dist.run.verification import problems
from riemannopt_dist.testing.image_files import encoded
from riemannopt_dist.testing.small_world import FIT, small_config
from tests.web import Web

GROUP = 100


class Counted(io.FileIO):
    """A file that counts the bytes that are read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        Counted.total += len(data)
        return data


class CountedFiles(LocalFiles):
    """Local files whose bytes read are counted."""

    def open(self, name: str) -> pa.NativeFile:
        return pa.PythonFile(Counted(name), mode="r")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Parquet files of four row groups of 100 rows of 3 to 9 kB."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for name in "ab":
        images = [rng.bytes(int(size)) for size in rng.integers(3000, 9000, 4 * GROUP)]
        pq.write_table(pa.table({"image": images}), folder / f"{name}.parquet", row_group_size=GROUP)
    return folder


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def bytes_read(refs: Sequence[ImageRef], size: int, workers: int) -> int:
    """What a stage reads of the files, task by task as workers do."""
    Counted.total = 0
    shards = shards_of(refs, size, located)
    for pieces in runs_of(shards, max(size, math.ceil(len(refs) / workers)), located):
        with ImageReader(CountedFiles(), [piece.item for piece in pieces]) as reader:
            for piece in pieces:
                reader.read(piece.item)
    return Counted.total


@pytest.mark.parametrize("size", [1, 8, 32, 100, 250])
def test_a_stage_over_all_images_reads_each_byte_about_once(source: Path, size: int) -> None:
    refs = list_images(str(source))
    by_id = {ref.image_id: ref for ref in refs}
    drawn = [by_id[name] for name in drawn_order(list(by_id), 0)]
    for order in (refs, drawn):  # as the selection has them, and the results
        assert size_of(source) <= bytes_read(order, size, workers=8) <= 1.2 * size_of(source)


def test_a_stage_over_a_drawn_subset_reads_no_byte_twice(source: Path) -> None:
    refs = list_images(str(source))
    drawn = [refs[n] for n in np.random.default_rng(1).permutation(len(refs))[:60]]
    assert bytes_read(drawn, 8, workers=2) <= 1.2 * size_of(source)


def test_a_file_of_one_row_group_is_read_once_a_worker(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.bytes(5000) for _ in range(500)]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    refs = list_images(str(tmp_path))
    for workers in (1, 4):
        assert bytes_read(refs, 32, workers) <= 1.2 * workers * size_of(tmp_path)


def parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return list(shards_of(items, size, located_row).values())


def located_row(item: tuple[str, int, int] | str) -> Location | None:
    return None if isinstance(item, str) else Location(*item)


def test_what_lies_in_files_of_its_own_keeps_its_order_and_fills_its_shards() -> None:
    names = [f"{n}" for n in range(10)]
    assert shards_of(names, 4) == {
        "shard-00000": names[:4],
        "shard-00001": names[4:8],
        "shard-00002": names[8:],
    }
    assert shards_of([], 4) == {}


def test_a_row_group_is_in_one_shard_or_has_shards_of_its_own() -> None:
    a, b, c = ([("x", group, row) for row in range(count)] for group, count in enumerate((2, 5, 2)))
    # In the order of the first of each, by rows.
    assert parts([a[1], b[3], c[0], *b[4:], a[0], *b[:3], c[1]], 4) == [[*a], b[:2], b[2:], c]
    assert parts([*c, *a], 4) == [[*c, *a]]
    assert parts([*a, *c, ("y", 0, 0)], 3) == [[*a], [*c, ("y", 0, 0)]]


def test_every_image_is_in_one_shard_and_one_task_whatever_is_drawn() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        items = [("x", int(group), row) for row, group in enumerate(np.sort(rng.integers(0, 9, 60)))]
        items = [items[n] for n in rng.permutation(60)[: rng.integers(1, 60)]]
        size, most = (int(number) for number in rng.integers(1, 20, 2))
        shards = shards_of(items, size, located_row)
        assert sorted(item for shard in shards.values() for item in shard) == sorted(items)
        assert list(shards) == [f"shard-{n:05}" for n in range(len(shards))]
        assert all(0 < len(shard) <= size for shard in shards.values())
        tasks = list(runs_of(shards, max(size, most), located_row))
        assert [(piece.shard, piece.item) for task in tasks for piece in task] == [
            (key, item) for key, shard in shards.items() for item in shard
        ]
        for task in tasks:
            keys = {piece.shard for piece in task}
            assert len(keys) == 1 or len({piece.item[:2] for piece in task}) == 1
            assert len(keys) == 1 or len(task) <= max(size, most)


class CountedWeb(Web):
    """A web server that counts the bytes that it sends."""

    sent = 0

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        data = b"".join(super().answer(environ, start_response))
        self.sent += len(data)
        return [data]


def test_a_run_reads_each_byte_about_once_a_stage(tmp_path: Path, ray_here: None) -> None:
    rng = np.random.default_rng(0)
    images = [
        encoded(Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8)), "PNG") for _ in range(40)
    ]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet", row_group_size=10)
    web = CountedWeb(tmp_path)
    thread = threading.Thread(target=web.server.serve_forever)
    thread.start()
    config = small_config(
        web.address("x.parquet"), tmp_path / "run", shard_size=4, scaling={"max_workers": 1}
    )
    directory = evaluate(config)
    web.server.shutdown()
    thread.join()
    web.server.server_close()
    assert list(problems(directory)) == []
    assert (directory.done_shards("selection"), directory.read_failures()) == (
        {f"shard-{n:05}" for n in range(4 * 3)},  # each row group in three
        [],
    )
    assert read_status(directory.storage).finished
    # Selection and results read all, the fit the row groups of its images.
    assert web.sent <= 1.2 * (2 + FIT * 10 / 40) * (tmp_path / "x.parquet").stat().st_size


def test_images_left_over_of_a_run_are_in_the_shards_that_they_were_in(source: Path) -> None:
    refs = list_images(str(source))
    shards = shards_of(refs, 32, located)
    left = {key: shard for n, (key, shard) in enumerate(shards.items()) if n % 3}
    found = {piece.shard: piece for task in runs_of(left, 100, located) for piece in task}
    assert list(found) == list(left)

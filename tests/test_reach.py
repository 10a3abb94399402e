"""Whole runs whose images go away and come back, and whose files are damaged: nothing is lost in silence."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riemannopt_dist.analysis.summary import read_results
from riemannopt_dist.run.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.driver import evaluate, given_up_share
from riemannopt_dist.run.stage_run import Stopped
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.run.verification import problems
from tests.small_world import SIDE, make_pictures, small_config

pytestmark = pytest.mark.usefixtures("ray_here")


def short_config(pictures: Path, output: Path, **means: Any) -> Config:
    return small_config(
        pictures,
        output,
        grid=[{"schedules": ["linear"], "rules": ["left"], "samples": [4]}],
        fit={"images": 2, "samples": 4},
        metrics=["completeness"],
        means={"max_workers": 1, **means},
    )


def rows_of(directory: RunDirectory) -> list[dict[str, Any]]:
    rows = directory.shard_rows("results")
    return sorted(({k: v for k, v in row.items() if k != "seconds"} for row in rows), key=str)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of a run that nobody disturbs."""
    world = tmp_path_factory.mktemp("plain")
    return rows_of(evaluate(short_config(make_pictures(world / "pictures"), world / "run")))


def test_images_that_go_away_and_files_that_are_damaged_cost_nothing(
    expected: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, away = make_pictures(tmp_path / "pictures"), tmp_path / "away"
    output = tmp_path / "run"
    directory = RunDirectory(Storage(output))

    # Away from the beginning of the selection, for a while.
    pictures_go = threading.Thread(target=_move_when_there, args=(pictures, away, output / "listing.parquet"))
    pictures_go.start()
    # Then for good, from the first result on: the run stops, and tells why.
    patient = short_config(pictures, output, patience=8.0)
    threading.Timer(3.0, lambda: away.rename(pictures)).start()
    evaluate(patient)
    pictures_go.join()
    assert directory.read_failures() == []
    assert rows_of(directory) == expected
    assert "selection waits for a storage" in caplog.text
    assert "p00.png: no such file" in caplog.text
    lost = [record for record in caplog.records if "a worker was lost" in record.message]
    assert lost == []

    # For good while results are made: a stop that tells why, and costs no image for good.
    shutil.rmtree(output / "results")
    pictures.rename(away)
    with pytest.raises(
        Stopped, match=r"results: \d images are out of reach, more than 1.0% \(UnreachableImage"
    ):
        evaluate(short_config(pictures, output, patience=0.2))
    assert all(failure.out_of_reach for failure in directory.read_failures())
    assert given_up_share(directory, patient) > 0.01

    # Back again, with files damaged of every kind.
    away.rename(pictures)
    evaluate(patient)
    assert rows_of(directory) == expected
    for damage in (_truncate, _empty, _swap, _add_copies):
        damage(output)
    (output / "images.parquet").write_bytes(b"")
    evaluate(patient)
    assert directory.read_failures() == []
    assert rows_of(directory) == expected
    assert read_results(directory.storage).num_rows == len(expected)
    assert list(problems(directory)) == []
    assert len(directory.storage.list("damaged")) == 6


def _move_when_there(pictures: Path, away: Path, file: Path) -> None:
    while not file.exists():
        time.sleep(0.001)
    pictures.rename(away)


def _truncate(output: Path) -> None:
    path = output / "results/shard-00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def _empty(output: Path) -> None:
    (output / "selection/shard-00000.parquet").write_bytes(b"")


def _swap(output: Path) -> None:
    one, other = (output / f"results/shard-0000{n}.parquet" for n in (1, 2))
    shutil.copy(one, other)
    shutil.copy(output / "selection/shard-00002.parquet", output / "selection/shard-00001.parquet")


def _add_copies(output: Path) -> None:
    shutil.copy(output / "results/shard-00003.parquet", output / "results/shard-00044.parquet")
    for folder in ("old", "bad"):
        (output / "results" / folder).mkdir()
        shutil.copy(output / "results/shard-00003.parquet", output / "results" / folder)


def test_an_image_out_of_reach_at_first_is_drawn_later_and_one_replaced_is_told(tmp_path: Path) -> None:
    pictures, output = make_pictures(tmp_path / "pictures", 10), tmp_path / "run"
    config = short_config(pictures, output, patience=0.2, max_given_up=0.2)
    gone = pictures / "p04.png"
    content = gone.read_bytes()
    gone.unlink()
    gone.symlink_to(tmp_path / "later.png")
    directory = evaluate(config)
    assert [(f.stage, f.image_id) for f in directory.read_failures()] == [("selection", "p04.png")]
    before = rows_of(directory)
    assert len(before) == 7

    (tmp_path / "later.png").write_bytes(content)
    evaluate(config)
    assert directory.read_failures() == []
    assert [row for row in rows_of(directory) if row["image_id"] != "p04.png"] == before
    assert len(rows_of(directory)) == 8

    # Another picture of the same name: no row of it, and no silence.
    (output / "results/shard-00001.parquet").unlink()
    name = directory.shard_rows("results")[0]["image_id"]
    shutil.rmtree(output / "results")
    size = (pictures / name).stat().st_size
    pixels = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(pictures / name)
    (pictures / name).write_bytes((pictures / name).read_bytes().ljust(size, b"\0"))
    evaluate(config)
    (failure,) = directory.read_failures()
    assert failure.image_id == name
    assert failure.reason.startswith("ReplacedImage: ")
    assert name not in {row["image_id"] for row in directory.shard_rows("results")}


def test_a_shard_deleted_in_mid_run_is_done_again(expected: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "run"
    first, second = (output / f"results/shard-0000{n}.parquet" for n in (0, 1))

    def delete() -> None:
        while not second.exists():
            time.sleep(0.001)
        first.unlink()

    thread = threading.Thread(target=delete)
    thread.start()
    directory = evaluate(short_config(make_pictures(tmp_path / "pictures"), output))
    thread.join()
    assert rows_of(directory) == expected

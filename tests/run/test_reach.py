"""Whole runs whose images go away and come back, and whose files are damaged: nothing is lost in silence."""

import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.errors import Stopped
from riemannopt_dist.run.failure import given_up_share
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.ray.stage_run import scarcity
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.scaling import Scaling
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import PICTURES, SIDE, make_pictures, small_config

pytestmark = pytest.mark.usefixtures("ray_here")

FIT = 2


def short_config(pictures: Path, output: Path, **means: Any) -> Config:
    return small_config(
        pictures,
        output,
        grid=[{"placements": ["linear"], "estimators": ["left"], "samples": [4]}],
        fit={"images": FIT, "samples": 4},
        metrics=["completeness"],
        scaling={"max_workers": 1, **means},
    )


def rows_of(directory: RunDirectory) -> dict[str, dict[str, Any]]:
    """The result rows by image, one each, but for their times."""
    rows = directory.shard_rows("results")
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_images_that_go_away_and_files_that_are_damaged_cost_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, away = make_pictures(tmp_path / "pictures"), tmp_path / "away"
    output = tmp_path / "run"
    directory = RunDirectory(Storage(output))
    first, second = (output / f"results/shard-0000{n}.parquet" for n in (0, 1))

    # Away from the beginning of the selection, until it is told; later a file that was written is deleted.
    def disturb() -> None:
        wait_for((output / "listing.parquet").exists)
        pictures.rename(away)
        wait_for(lambda: "selection waits for a storage" in caplog.text)
        away.rename(pictures)
        wait_for(lambda: first.exists() and second.exists())
        first.unlink()

    assert re.match(
        r"\d of 2 CPUs are free\. Another run on this cluster may hold the others",
        scarcity(Scaling(2, 1, 0.0)),
    )
    thread = threading.Thread(target=disturb)
    thread.start()
    patient = short_config(pictures, output, patience=20.0)
    evaluate(patient)
    thread.join()
    assert directory.read_failures() == []
    assert list(problems(directory)) == []
    expected = rows_of(directory)
    assert len(expected) == PICTURES - FIT
    assert re.search(r"p\d\d.png: no such file", caplog.text)
    assert "a worker was lost" not in caplog.text
    assert "results: 1 shards without a sound file are done again" in caplog.text

    # For good while results are made: a stop that tells why, and costs no image for good.
    shutil.copytree(output / "results", tmp_path / "results")
    shutil.rmtree(output / "results")
    pictures.rename(away)
    with pytest.raises(Stopped, match=r"results: \d images are out of reach, more than 1.0% \(Unreach"):
        evaluate(short_config(pictures, output, patience=0.2))
    assert all(failure.out_of_reach for failure in directory.read_failures())
    assert given_up_share(directory, patient) > 0.01

    # Back again, with files damaged in every way.
    away.rename(pictures)
    shutil.copytree(tmp_path / "results", output / "results", dirs_exist_ok=True)
    damage(output)
    caplog.clear()
    evaluate(patient)
    assert directory.read_failures() == []
    assert rows_of(directory) == expected
    assert read_results(directory.storage).num_rows == len(expected)
    assert list(problems(directory)) == []
    aside = [name.removeprefix("damaged/") for name in directory.storage.list("damaged")]
    assert {*aside, "results/shard-00000.parquet.1"} == {
        "images.parquet.1",
        "results/shard-00000.parquet.1",  # but where images of it were given up: then it is done again unseen
        "results/shard-00002.parquet.1",
        "results/shard-00044.parquet.1",
        "selection/shard-00000.parquet.1",
        "selection/shard-00001.parquet.1",
    }
    assert all(f"put aside as {output}/damaged/{name}" in caplog.text for name in aside)


def damage(output: Path) -> None:
    """Truncate, empty and swap files of the run, and add copies."""
    results, selection = output / "results", output / "selection"
    whole = (results / "shard-00000.parquet").read_bytes()
    (results / "shard-00000.parquet").write_bytes(whole[:-100])
    (selection / "shard-00000.parquet").write_bytes(b"")
    (output / "images.parquet").write_bytes(b"")
    shutil.copy(results / "shard-00001.parquet", results / "shard-00002.parquet")
    shutil.copy(selection / "shard-00002.parquet", selection / "shard-00001.parquet")
    shutil.copy(results / "shard-00003.parquet", results / "shard-00044.parquet")
    for folder in ("old", "bad"):
        (results / folder).mkdir()
        shutil.copy(results / "shard-00003.parquet", results / folder)


@pytest.mark.long
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

    # It is back; and another picture, of the same size in bytes, has the name of one that was selected.
    (tmp_path / "later.png").write_bytes(content)
    name = directory.shard_rows("results")[0]["image_id"]
    (output / "results/shard-00000.parquet").unlink()
    size = (pictures / name).stat().st_size
    Image.fromarray(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)).save(pictures / name)
    (pictures / name).write_bytes((pictures / name).read_bytes().ljust(size, b"\0"))
    evaluate(config)
    (failure,) = directory.read_failures()
    assert (failure.stage, failure.image_id) == ("results", name)
    assert failure.reason.startswith("ReplacedImage: ")
    after = rows_of(directory)
    assert after.keys() == (before.keys() | {"p04.png"}) - {name}
    assert all(after[image] == row for image, row in before.items() if image != name)
    assert list(problems(directory)) == []

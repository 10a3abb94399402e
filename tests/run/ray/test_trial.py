"""A model that fails stops its run and costs no image: mended, it goes on from there. On a real Ray."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.failure import Failure, reason_of
from riemannopt_dist.run.ray import trial
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.ray.trial import PATIENT, Trial
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import SIDE, make_pictures, small_config
from tests.faulty import DRIVER, FAULT


def failure(number: int, reason: str = "RuntimeError: no") -> Failure:
    return Failure("results", f"{number:02}", reason, 1)


# --- The rule ---


def test_a_stage_stops_when_all_its_images_fail_or_the_first_ones_do() -> None:
    for left, patience in ((1, 1), (5, 5), (1000, PATIENT)):
        outcomes = Trial("results", left, None)
        for number in range(patience - 1):
            outcomes.failed(failure(number))
        message = (
            rf"^results: none of the first {patience} images goes through the model \(RuntimeError: no\); "
        )
        with pytest.raises(ValueError, match=message):
            outcomes.failed(failure(patience))


def test_one_image_that_goes_through_clears_the_model() -> None:
    outcomes = Trial("results", 1000, None)
    for number in range(PATIENT - 1):
        outcomes.failed(failure(number))
    outcomes.passed()
    for number in range(100):
        outcomes.failed(failure(number))


def test_images_that_cannot_be_read_say_nothing_of_the_model() -> None:
    reason = reason_of(UnreadableImage("empty file"))
    outcomes = Trial("results", 4, None)
    outcomes.failed(failure(0, reason))
    outcomes.failed(failure(1))
    outcomes.failed(failure(2))
    with pytest.raises(ValueError, match=r"none of the first 2 images .*RuntimeError"):
        outcomes.failed(failure(3, reason))  # now all are given up on, two of them by the model
    only_unreadable = Trial("results", 3, None)
    for number in range(3):
        only_unreadable.failed(failure(number, reason))


def test_images_known_to_fail_where_others_went_through_do_not_stop_a_run_again() -> None:
    known = frozenset(f"{number:02}" for number in range(20))
    outcomes = Trial("results", 20, known)
    for number in range(20):
        outcomes.failed(failure(number))
    broken_since = Trial("results", 1000, known)
    for number in range(20 + PATIENT - 1):
        broken_since.failed(failure(number))
    with pytest.raises(ValueError, match=rf"none of the first {PATIENT} images"):
        broken_since.failed(failure(99))


# --- Whole runs ---


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file in which a model's faults are, for the driver and all workers of the Ray that it starts."""
    file = tmp_path_factory.mktemp("faults") / "faults"
    file.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FAULT, str(file))
        patch.setenv(DRIVER, str(os.getpid()))
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield file
        ray.shutdown()


@pytest.fixture
def config(tmp_path: Path, faults: Path) -> Config:
    """Of pictures of noise and one of a single colour, which is not among the two fitted on."""
    pictures = make_pictures(tmp_path / "pictures", 6)
    Image.fromarray(np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)).save(pictures / "plain.png")
    return small_config(
        pictures,
        tmp_path / "run",
        model={"name": "tests.faulty:classifier"},
        grid=[{"placements": ["linear"], "estimators": ["trapezoid"], "samples": [4]}],
        fit={"images": 2, "samples": 4},
        metrics=["completeness"],
        scaling={"max_workers": 1, "attempts": 1},
        shard_size=2,
        seed=1,
    )


@pytest.mark.long
def test_a_mended_model_goes_on(config: Config, faults: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENT", 1)
    directory = RunDirectory(Storage(config.output))
    faults.write_text("pictures")
    with pytest.raises(ValueError, match=r"^selection: none of the first 1 .*the device is not what it was"):
        evaluate(config)
    assert [f.reason for f in directory.read_failures()] == ["RuntimeError: the device is not what it was"]
    assert directory.read_images() is None

    faults.write_text("colours")
    evaluate(config)
    (failed,) = directory.read_failures()
    assert (failed.stage, failed.image_id) == ("results", "plain.png")
    assert failed.reason == "FloatingPointError: the map of ig/trapezoid/linear/4 is not finite"
    rows = directory.shard_rows("results")
    assert len(rows) == 4
    assert all(math.isfinite(row["relative_error"]) for row in rows)
    assert list(problems(directory)) == []
    before = (Path(config.output) / "images.parquet").read_bytes()

    evaluate(config)  # as it was: the image fails again, and that is all
    assert directory.read_failures() == [failed]

    faults.write_text("")
    evaluate(config)
    assert directory.read_failures() == []
    assert "plain.png" in {row["image_id"] for row in directory.shard_rows("results")}
    assert len(directory.shard_rows("results")) == 5
    assert list(problems(directory)) == []
    assert (Path(config.output) / "images.parquet").read_bytes() == before


def test_rows_that_are_not_finite_are_told_of(config: Config, faults: Path) -> None:
    """Those of a version that took them for results."""
    faults.write_text("")
    directory = evaluate(config)
    table = directory.storage.read_table("results/shard-00001.parquet")
    place = table.schema.get_field_index("attribution_sum")
    spoilt = table.set_column(place, table.schema.field(place), [[math.nan] * len(table)])
    directory.storage.write_table("results/shard-00001.parquet", spoilt)
    found = list(problems(directory))
    assert len(found) == len(table)
    assert all(line.endswith("ig/trapezoid/linear/4: attribution_sum is not finite") for line in found)

"""What is refused as a run's files, and how it is told: no Ray is needed, nothing is computed."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from riemannopt_dist.run import rows
from riemannopt_dist.run.directory import Failure, RunDirectory
from riemannopt_dist.run.status import STAGES, read_status
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.run.verification import problems
from riemannopt_dist.stores import StorageError
from tests.small_world import FIT, PICTURES, small_config


def image(number: int) -> dict[str, Any]:
    """A row of images.parquet."""
    return {
        "image_id": f"{number:02}",
        "uri": f"/{number:02}",
        "label": None,
        "prediction": 0,
        "probability": 1.0,
        "selected": True,
        "error": None,
        "in_fit": number < FIT,
    }


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run whose images are selected."""
    directory = RunDirectory(Storage(tmp_path / "run"))
    directory.claim(small_config(tmp_path, tmp_path / "run"), "digest")
    directory.write_images(map(image, range(PICTURES)))
    return directory


@pytest.mark.parametrize(
    "path", ["config", "config.grid", "config.model", "config.model.name", "fingerprint", "versions"]
)
def test_a_run_without_what_is_read_of_it_is_one_line(directory: RunDirectory, path: str) -> None:
    found = directory.read_run()
    *outer, last = path.split(".")
    fields = found
    for key in outer:
        fields = fields[key]
    del fields[last]
    directory.storage.write_json("run.json", found)
    config = small_config(Path(), Path())
    for read in (
        lambda: directory.holds(config, None),
        lambda: read_status(directory.storage),
        lambda: list(problems(directory)),
    ):
        with pytest.raises(ValueError, match=rf"run.json: not that of a run \(expected {path}.* in it\)$"):
            read()


def test_a_run_with_too_few_images_is_not_finished(directory: RunDirectory) -> None:
    assert read_status(directory.storage).lines()[-1].endswith("; no driver is at work")
    directory.write_images(map(image, range(FIT)))
    status = read_status(directory.storage)
    assert not status.finished
    assert "; too few images can be used: none is left to evaluate" in status.lines()[-1]


def test_failures_name_their_stages() -> None:
    told = rows.FAILURES.field("stage").metadata[b"description"].decode()
    assert set(re.findall(r"\w+", told)) - {"or"} == set(STAGES)


def test_the_columns_of_the_status_are_told_apart(directory: RunDirectory) -> None:
    heads = re.split("  +", read_status(directory.storage).lines()[1].strip())
    assert len(set(heads)) == len(heads) == 9


def test_verification_refuses_another_format_and_images_yet_to_be_selected(directory: RunDirectory) -> None:
    (Path(directory.storage.root) / "images.parquet").unlink()
    with pytest.raises(ValueError, match=r"no run whose images are selected \(expected images.parquet\)$"):
        list(problems(directory))
    directory.storage.write_json("run.json", {**directory.read_run(), "format": 7})
    with pytest.raises(ValueError, match="holds a run in format 7"):
        list(problems(directory))


def test_a_table_of_something_else_is_a_problem_of_its_shard(directory: RunDirectory) -> None:
    directory.storage.write_table("results/shard-00000.parquet", pa.table({"image_id": ["00"]}))
    first, *rest = problems(directory)
    file = directory.storage.uri("results/shard-00000.parquet")
    assert first == f"{file}: not that of a run (expected a column label)"
    assert all(": missing, with" in problem for problem in rest)


@pytest.mark.parametrize("name", ["images", "failures", "listing"])
def test_lists_of_something_else_are_one_line(directory: RunDirectory, name: str) -> None:
    directory.storage.write_table(f"{name}.parquet", pa.table({"x": [1]}))
    read = getattr(directory, f"read_{name}")
    with pytest.raises(StorageError, match=rf"{name}.parquet: not that of a run \(expected a column "):
        read()


def test_failures_of_a_later_version_may_tell_more(directory: RunDirectory) -> None:
    failure = Failure("results", "00", "killed", 3)
    directory.write_failures([failure])
    table = directory.storage.read_table("failures.parquet")
    directory.storage.write_table("failures.parquet", table.append_column("host", pa.array(["here"])))
    assert directory.read_failures() == [failure]

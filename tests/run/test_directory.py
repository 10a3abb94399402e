"""What is refused as a run's files, and how it is told: no Ray is needed, nothing is computed."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from riemannopt_dist.run import schemas
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.failure import Failure
from riemannopt_dist.run.inspection import inspected
from riemannopt_dist.run.stages.base import Part, Row
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.status import STAGES, read_status
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError
from riemannopt_dist.testing.small_world import FIT, PICTURES, small_config


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
    told = schemas.FAILURES.field("stage").metadata[b"description"].decode()
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
    assert first == f"{file}: not a file of this run: it does not tell which run wrote it"
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


# --- What belongs to a run, and what is damaged ---


class Ids:
    """A stage of two rows an image."""

    name = "results"
    schema = pa.schema([pa.field("image_id", pa.string()), pa.field("part", pa.int64())])
    key = ("part",)
    parts: ClassVar[Sequence[Part]] = ((0,), (1,))

    def kept(self, fingerprint: str) -> Sequence[Part]:
        return self.parts

    def only(self, parts: Iterable[Part]) -> "Ids":
        raise NotImplementedError

    def rows(self, engine: Engine, items: Sequence[Any]) -> Iterator[Row]:
        raise NotImplementedError


def test_shards_are_the_files_right_in_the_folder(directory: RunDirectory) -> None:
    rows = pa.table({"image_id": ["a"]})
    names = (
        "shard-00001",
        "shard-100000",
        "old/shard-00001",
        "bad/shard-00002",
        "shard-00003 (copy)",
        "shard-4",
    )
    for name in names:
        directory.write_table(f"results/{name}.parquet", rows)
    directory.write_table("results/shard-00005.parquet.part", rows)
    assert directory.done_shards("results") == {"shard-00001", "shard-100000"}
    assert directory.shard_rows("results") == [{"image_id": "a"}] * 2


@pytest.mark.parametrize(
    ("content", "damage", "missing"),
    [
        ("a0 a1 b0 b1", None, ""),
        ("a0 a1", None, "b"),
        ("a0 a1 b1", None, "b"),
        ("a0 a1 b0 b1 c0 c1", "c is no image of this shard", "ab"),
        ("a0 a1 a1 b0 b1", "a 1 is there 2 times", "ab"),
        ("a0 a1 b0 b2", "b 2 was not promised", "ab"),
        ("empty", "not a Parquet file", "ab"),
        ("truncated", "not a Parquet file", "ab"),
        ("text", "not a Parquet file", "ab"),
    ],
)
def test_what_a_shard_lacks(directory: RunDirectory, content: str, damage: str | None, missing: str) -> None:
    name = "results/shard-00000.parquet"
    keys = re.findall(r"([abc])([012])", content)
    rows = pa.table({"image_id": [image for image, _ in keys], "part": [int(part) for _, part in keys]})
    directory.write_table(name, rows)
    whole = directory.storage.read_bytes(name)
    if content in (others := {"empty": b"", "truncated": whole[:-9], "text": b"text"}):
        directory.storage.write_bytes(name, others[content])
    shards = {"shard-00000": frozenset("ab")}
    with inspected(directory, Ids(), {"shard-00000": name}, shards) as inspections:
        ((key, found),) = inspections
    assert (key, found.missing) == ("shard-00000", frozenset(missing))
    told = found.damage
    assert (told is None) == (damage is None)
    assert damage is None or (told is not None and damage in told and name in told)


def test_what_is_put_aside_is_kept_under_a_name_of_its_own(directory: RunDirectory) -> None:
    for number in range(1, 4):
        directory.storage.write_bytes("results/shard-00000.parquet", bytes([number]))
        aside = directory.put_aside("results/shard-00000.parquet", "cut short")
        assert aside == f"damaged/results/shard-00000.parquet.{number}"
        assert directory.storage.read_bytes(aside) == bytes([number])
    assert directory.done_shards("results") == set()


def test_failures_are_settled_as_stored_and_not_as_remembered(directory: RunDirectory) -> None:
    """Another driver may have been at work: what it stored stays."""
    mine, its = Failure("results", "00", "killed", 3), Failure("results", "01", "killed", 3)
    assert directory.settle("results", {"00"}, [mine]) == [mine]
    directory.write_failures([mine, its])
    again = Failure("results", "00", "killed again", 3)
    assert directory.settle("results", {"00"}, [again]) == [its, again]
    assert directory.settle("fit", {"00", "01"}) == [its, again]
    assert directory.settle("results", {"01"}) == directory.read_failures() == [again]

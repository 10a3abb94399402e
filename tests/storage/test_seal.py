"""What is noticed of a damaged file: every bit, by everybody who reads it, in a line that names the file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.bit_flips import SHARD, drawn_bits, made_run, unnoticed
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError
from riemannopt_dist.storage.seal import Broken, check_seal, sealed

TABLE = pa.table({"name": ["a", "b"] * 50, "value": [n / 7 for n in range(100)]})


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return made_run(tmp_path_factory.mktemp("made"))


def test_a_run_as_it_was_made_is_fine(directory: RunDirectory) -> None:
    assert list(problems(directory)) == []
    assert read_results(directory.storage).num_rows == 3 * 8


def test_of_bits_turned_none_passes(directory: RunDirectory) -> None:
    """A short form of benchmarks/bit_flips.py."""
    assert unnoticed(directory, drawn_bits(directory, 100, seed=0)) == {}
    assert list(problems(directory)) == []


def test_every_bit_of_a_file_and_every_end_is_sealed() -> None:
    data = sealed(TABLE)
    check_seal(data)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Broken):
            check_seal(data)
        data[bit // 8] ^= 1 << bit % 8
    for length in (0, 1, 4, 8, len(data) // 2, len(data) - 1):
        with pytest.raises(Broken):
            check_seal(bytes(data[:length]))


def test_other_readers_see_the_table_and_what_they_write_is_not_taken(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_table("a.parquet", TABLE)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.equals(TABLE)
    pq.write_table(TABLE, tmp_path / "b.parquet")
    with pytest.raises(StorageError, match=r"b.parquet: without the digest that a run writes"):
        storage.read_table("b.parquet")
    # With the seal of the file that it was read from, which is another.
    pq.write_table(table.slice(1), tmp_path / "c.parquet")
    with pytest.raises(StorageError, match=r"c.parquet: without the digest"):
        storage.read_table("c.parquet")
    storage.write_table("d.parquet", storage.read_table("a.parquet"))
    assert (tmp_path / "d.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes()


def test_a_column_of_another_type_is_named(directory: RunDirectory) -> None:
    whole = directory.storage.read_bytes(SHARD)
    table = directory.table(SHARD)
    place = table.schema.get_field_index("relative_error")
    directory.storage.write_table(
        SHARD, table.set_column(place, "relative_error", table.column(place).cast(pa.string()))
    )
    (line,) = problems(directory)
    assert line.endswith(f"{SHARD}: not that of a run (expected double in its column relative_error)")
    directory.storage.write_bytes(SHARD, whole)


def test_a_profile_that_was_altered_is_told(tmp_path: Path) -> None:
    directory = RunDirectory(Storage(tmp_path))
    directory.write_schedules("ig", Profile((0.0, 1.0), (1.0, 2.0), (0.0, 0.0), images=3), {})
    assert (directory.read_profile("ig") or {})["magnitudes"] == [1.0, 2.0]
    text = (tmp_path / "schedules/ig.json").read_text()
    (tmp_path / "schedules/ig.json").write_text(text.replace("2.0", "3.0"))
    with pytest.raises(
        StorageError, match=r"schedules/ig.json: damaged: its digest is not that of its content"
    ):
        directory.read_profile("ig")

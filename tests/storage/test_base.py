"""The storage on a local disk and on a real S3 server, with writers killed and servers that fail."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from riemannopt_dist.storage import errors
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.bucket_file import BucketFile
from riemannopt_dist.storage.errors import LastingError, StorageError
from riemannopt_dist.storage.local import Folder
from riemannopt_dist.storage.object import ObjectStore
from riemannopt_dist.testing.s3_server import Bucket

NAMES = ["run.json", "schedules/ig.json", "results/shard-00042.parquet", "results/a b%20#é?.bin"]


@pytest.fixture(params=["path", "file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return Storage(bucket.uri(f"bucket/{tmp_path.name}"))
    return Storage(tmp_path if request.param == "path" else tmp_path.as_uri())


def as_a_worker_has_it(storage: Storage) -> Storage:
    """Through a pickle, which also makes Arrow's S3 client give up after three tries instead of ten."""
    copy = pickle.loads(pickle.dumps(storage))
    assert isinstance(copy, Storage)
    return copy


def test_what_is_written_is_read_listed_and_replaced(storage: Storage) -> None:
    assert storage.list() == storage.list("results") == []
    for name in NAMES:
        assert not storage.exists(name)
        with pytest.raises(FileNotFoundError, match="no such file"):
            storage.read_bytes(name)
        storage.write_bytes(name, name.encode())
    other = as_a_worker_has_it(storage)
    for name in NAMES:
        assert other.exists(name)
        assert other.read_bytes(name) == name.encode()
    assert other.list() == sorted(NAMES)
    assert other.list("results") == sorted(NAMES[2:])
    assert not other.exists("results")
    storage.write_bytes(NAMES[0], b"")
    assert storage.read_bytes(NAMES[0]) == b""


def test_times_are_those_of_the_writing_and_a_file_is_created_once_and_deleted(storage: Storage) -> None:
    before = time.time()
    assert storage.create("results/one.bin", b"first")
    assert not storage.create("results/one.bin", b"second")
    storage.write_bytes("two.bin", b"")
    assert storage.read_bytes("results/one.bin") == b"first"
    assert list(storage.times()) == storage.list() == ["results/one.bin", "two.bin"]
    assert list(storage.times("results")) == ["results/one.bin"]
    assert storage.times("nothing") == {}
    # Object stores tell whole seconds.
    assert all(before - 1 <= written <= time.time() for written in storage.times().values())
    storage.delete("results/one.bin")
    storage.delete("results/one.bin")
    assert storage.list() == ["two.bin"]
    assert storage.create("results/one.bin", b"second")


def test_a_creation_that_seemed_to_fail_is_known_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over NFS, where a request can be repeated after it was served."""
    link = Path.hardlink_to

    def link_without_an_answer(path: Path, target: Path) -> None:
        monkeypatch.setattr(Path, "hardlink_to", link)
        link(path, target)
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(Path, "hardlink_to", link_without_an_answer)
    assert Storage(tmp_path).create("lock.json", b"mine")
    assert not Storage(tmp_path).create("lock.json", b"another's")


def test_tables_keep_their_units_and_json_its_text(storage: Storage) -> None:
    field = pa.field("relative_error", pa.float64(), metadata={"better": "lower"})
    curves = pa.array([[0.0, 0.5], [1.0]], pa.list_(pa.float32()))
    table = pa.table([pa.array([0.25, None]), curves], pa.schema([field, pa.field("curve", curves.type)]))
    storage.write_table("results/shard-00000.parquet", table)
    back = storage.read_table("results/shard-00000.parquet")
    assert back.equals(table)
    assert back.schema.field("relative_error").metadata == {b"better": b"lower"}
    storage.write_json("run.json", {"α": [1, None, "é"]})
    assert storage.read_json("run.json") == {"α": [1, None, "é"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json("nan.json", float("nan"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux to list threads")
def test_reading_a_table_starts_no_thread(tmp_path: Path) -> None:
    """Arrow's can abort a process that ends, and then a command that did its work has failed."""
    Storage(tmp_path).write_table("x.parquet", pa.table({"a": list(range(1000)), "b": ["x"] * 1000}))
    program = (
        "import os, sys\n"
        "from riemannopt_dist.storage.base import Storage\n"
        "storage = Storage(sys.argv[1])\n"
        "before = os.listdir('/proc/self/task')\n"
        "assert storage.read_table('x.parquet').num_rows == 1000\n"
        "assert os.listdir('/proc/self/task') == before\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_table_without_an_expected_column_is_named(storage: Storage) -> None:
    storage.write_table("x.parquet", pa.table({"a": [1]}))
    expected = [pa.field("a", pa.int64()), pa.field("b", pa.int64())]
    assert storage.read_table("x.parquet", expected[:1]).to_pydict() == {"a": [1]}
    with pytest.raises(StorageError, match=r"x.parquet: not that of a run \(expected a column b\)$"):
        storage.read_table("x.parquet", expected)


@pytest.mark.parametrize("below", ["", "/run", "/a/run"])
def test_a_file_is_no_root(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    for scheme in ("", "file://"):
        with pytest.raises(ValueError, match=rf"{tmp_path}/file: is a file, expected a folder$"):
            Storage(f"{scheme}{tmp_path}/file{below}")


def test_a_damaged_file_is_named(storage: Storage) -> None:
    storage.write_bytes("damaged", b"PAR1 no")
    with pytest.raises(StorageError, match=r"/damaged: not a Parquet file: "):
        storage.read_table("damaged")
    with pytest.raises(StorageError, match=r"/damaged: not a JSON file: "):
        storage.read_json("damaged")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "./a",
        ".hidden",
        "a/.tmp",
        "a\\b",
        "a\0b",
        "a\nb",
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(storage: Storage, name: str) -> None:
    for method in (storage.read_bytes, storage.exists, lambda name: storage.write_bytes(name, b"")):
        with pytest.raises(ValueError, match="name: expected a relative POSIX path"):
            method(name)
    if name:
        with pytest.raises(ValueError, match="name: expected"):
            storage.list(name)


def test_a_link_out_of_the_root_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "within").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "alias").symlink_to(root / "within")
    storage = Storage(root)
    for name in ("folder/secret", "file", "folder/new"):
        with pytest.raises(ValueError, match="links out of it"):
            storage.read_bytes(name)
        with pytest.raises(ValueError, match="links out of it"):
            storage.write_bytes(name, b"overwritten")
    with pytest.raises(ValueError, match="links out of it"):
        storage.list("folder")
    assert storage.list() == []
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    storage.write_bytes("alias/x", b"x")
    assert storage.read_bytes("within/x") == b"x"


def test_a_relative_root_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Storage("runs/first").write_bytes("x", b"x")
    assert (tmp_path / "runs" / "first" / "x").read_bytes() == b"x"


@pytest.mark.parametrize(
    "root", ["", "ftp://user:swordfish@host/x", "s3://", "file://host/x", "s3://b/x?option=1"]
)
def test_roots_of_other_kinds_are_refused_without_telling_secrets(root: str) -> None:
    with pytest.raises(ValueError, match=r"^root: ") as caught:
        Storage(root)
    assert "swordfish" not in str(caught.value)


WRITER = """
import sys
from riemannopt_dist.storage import errors
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.bucket_file import BucketFile
storage, count = Storage(sys.argv[1]), 0
while True:
    count += 1
    storage.write_bytes("big", bytes([count % 256]) * (1 << 24))
    print(count, flush=True)
"""


def test_a_writer_killed_midway_leaves_the_old_file_whole(tmp_path: Path) -> None:
    """SIGKILL while a temporary file exists: the name still holds one entire earlier content."""
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        deadline = time.monotonic() + 20
        while not (left := [path for path in tmp_path.iterdir() if path.name != "big"]):
            assert time.monotonic() < deadline
        os.kill(writer.pid, signal.SIGSTOP)
        left = [path for path in tmp_path.iterdir() if path.name != "big"]
        os.kill(writer.pid, signal.SIGKILL)
    content = (tmp_path / "big").read_bytes()
    assert len(content) == 1 << 24
    assert len(set(content)) == 1
    assert Storage(tmp_path).list() == ["big"]
    assert all(path.name.startswith(".big.") for path in left)


def test_a_small_object_is_one_put(bucket: Bucket) -> None:
    storage = Storage(bucket.uri("bucket/one-put"))
    bucket.log.clear()
    storage.write_bytes("results/shard-00000.parquet", b"x" * 100_000)
    assert bucket.log == [("PUT", "/bucket/one-put/results/shard-00000.parquet")]


def test_what_is_replaced_while_it_is_read_is_whole(
    bucket: Bucket, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is renewed is a few bytes longer at times."""
    storage, other = (Storage(bucket.uri("bucket/replaced")) for _ in range(2))
    opened, contents = ObjectStore._opened, iter([b"renewals: 10", b"renewals: 9"])

    def replaced_then(store: ObjectStore, name: str) -> BucketFile:
        file = opened(store, name)
        if (content := next(contents, None)) is not None:
            other.write_bytes(name, content)
        return file

    storage.write_bytes("lock.json", b"renewals: 9")
    monkeypatch.setattr(ObjectStore, "_opened", replaced_then)
    assert storage.read_bytes("lock.json") == b"renewals: 9"
    assert next(contents, None) is None


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that follow one another sooner."""
    monkeypatch.setattr(errors, "FIRST_DELAY", 0.02)


def test_a_patient_storage_is_asked_until_it_answers(
    tmp_path: Path, soon: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of more attempts than five."""
    monkeypatch.setattr(errors, "LONGEST_DELAY", 0.02)
    storage, read, outage = Storage(tmp_path), Folder.read, iter(range(5 + 8))
    storage.write_bytes("x", b"content")

    def away_at_first(folder: Folder, name: str) -> bytes:
        if next(outage, None) is not None:
            raise OSError("timed out")
        return read(folder, name)

    monkeypatch.setattr(Folder, "read", away_at_first)
    with pytest.raises(StorageError, match=r"x: timed out \(5 attempts\)"):
        storage.read_bytes("x")
    assert caplog.messages == []
    assert storage.patient(30.0).read_bytes("x") == b"content"
    assert caplog.messages == [f"{tmp_path}/x: timed out; asked again, for 30 s at most"]


def test_patience_has_an_end_and_is_not_for_what_lasts(
    tmp_path: Path, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "LONGEST_DELAY", 0.02)
    storage = Storage(tmp_path).patient(0.3)
    (tmp_path / "folder").mkdir()
    with pytest.raises(LastingError, match=r"\(1 attempt\)"):
        storage.read_bytes("folder")

    def away(folder: Folder, name: str) -> bytes:
        raise OSError("timed out")

    monkeypatch.setattr(Folder, "read", away)
    with pytest.raises(StorageError, match=r"x: timed out \(([6-9]|[1-9]\d) attempts\)"):
        storage.read_bytes("x")


def test_a_server_that_fails_for_a_while_is_outlasted(bucket: Bucket, soon: None) -> None:
    storage = as_a_worker_has_it(Storage(bucket.uri("bucket/flaky")))
    for action in (
        lambda: storage.write_bytes("x", b"content"),
        lambda: storage.read_bytes("x"),
        lambda: storage.exists("x"),
        lambda: storage.list(),
    ):
        bucket.failures = 5  # more than the S3 client tries by itself
        action()
        assert bucket.failures == 0
    assert storage.read_bytes("x") == b"content"


def test_a_server_that_keeps_failing_ends_in_one_line_without_secrets(bucket: Bucket, soon: None) -> None:
    storage = as_a_worker_has_it(Storage(bucket.uri("bucket/broken")))
    bucket.failures = 1000
    with pytest.raises(StorageError, match=r"^s3://bucket/broken/x: .*\(5 attempts\)$") as caught:
        storage.write_bytes("x", b"content")
    bucket.failures = 0
    assert "swordfish" not in str(caught.value)
    assert "endpoint_override" not in str(caught.value)
    assert "swordfish" not in repr(storage)
    assert storage.list() == []


def test_a_missing_bucket_is_told_at_once(bucket: Bucket) -> None:
    storage = Storage(bucket.uri("nowhere/run"))
    with pytest.raises(StorageError, match=r"^s3://nowhere/run/x: .*\(1 attempt\)$"):
        storage.write_bytes("x", b"content")

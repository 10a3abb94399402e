"""Conditional writes, on a real S3 server: of many writers one, and never over another's."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from riemannopt_dist.run import lock
from riemannopt_dist.run.lock import LOCK, Holder, Lock, TakenOver, hold
from riemannopt_dist.storage.addresses import parse_address
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.conditional import ConditionalWrites, Unsupported
from riemannopt_dist.testing.s3_server import Bucket

WRITERS = 8


@pytest.fixture
def writes(bucket: Bucket) -> ConditionalWrites:
    return ConditionalWrites(parse_address(bucket.uri("bucket")), "us-east-1")


def at_once(storage: Storage, work: str, *arguments: bytes) -> list[bool]:
    """What each of several writers gets who all begin at the same moment, each with data of its own."""
    begin = threading.Barrier(WRITERS)

    def one(n: int) -> bool:
        begin.wait()
        found: bool = getattr(storage, work)("lock.json", *arguments, f"writer {n}".encode())
        return found

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(one, range(WRITERS)))


def test_of_many_that_create_one_does(bucket: Bucket) -> None:
    for turn in range(5):
        storage = Storage(bucket.uri(f"bucket/create{turn}"))
        created = at_once(storage, "create")
        assert sum(created) == 1
        assert storage.read_bytes("lock.json") == f"writer {created.index(True)}".encode()
        assert storage.create("lock.json", f"writer {created.index(True)}".encode())  # as after a lost answer


def test_of_many_that_replace_one_does(bucket: Bucket) -> None:
    for turn in range(5):
        storage = Storage(bucket.uri(f"bucket/replace{turn}"))
        storage.write_bytes("lock.json", b"old")
        replaced = at_once(storage, "replace", b"old")
        assert sum(replaced) == 1
        assert storage.read_bytes("lock.json") == f"writer {replaced.index(True)}".encode()


def test_what_is_gone_or_anothers_is_not_replaced(bucket: Bucket, writes: ConditionalWrites) -> None:
    assert not writes.replace("nobody/lock.json", b"old", b"new")
    assert writes.create("somebody/lock.json", b"theirs")
    assert not writes.replace("somebody/lock.json", b"mine", b"new")
    assert writes.replace("somebody/lock.json", b"theirs", b"new")
    assert writes.replace("somebody/lock.json", b"theirs", b"new")  # done already
    again: ConditionalWrites = pickle.loads(pickle.dumps(writes))
    assert again.replace("somebody/lock.json", b"new", b"newer")


def test_an_address_that_says_more_is_left_to_arrow(bucket: Bucket) -> None:
    address = bucket.uri("bucket/more") + "&allow_bucket_creation=true"
    with pytest.raises(Unsupported, match="options that conditional writes do not know"):
        ConditionalWrites(parse_address(address), "us-east-1").create("more/lock.json", b"one")
    storage = Storage(address)
    assert storage.create("lock.json", b"one")
    assert storage.replace("lock.json", b"one", b"two")
    assert storage.read_bytes("lock.json") == b"two"


AMBIENT = {"AWS_ACCESS_KEY_ID": "ambient", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "token"}


@pytest.mark.parametrize(
    ("user", "environment", "signer"),
    [
        ("", {}, ("of-profile", "")),
        ("", {"AWS_PROFILE": "other"}, ("of-other", "session")),
        ("", AMBIENT, ("ambient", "token")),
        ("mine:secret@", AMBIENT, ("mine", "")),
    ],
    ids=["default profile", "other profile", "environment", "address"],
)
@pytest.mark.parametrize(("option", "region"), [("", "ap-south-1"), ("?region=eu-west-3", "eu-west-3")])
def test_region_and_credentials_are_those_of_the_rest_of_the_run(
    bucket: Bucket,
    user: str,
    environment: dict[str, str],
    signer: tuple[str, str],
    option: str,
    region: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Arrow's requests and obstore's are signed alike, wherever the keys are."""
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = of-profile\naws_secret_access_key = x\n"
        "[other]\naws_access_key_id = of-other\naws_secret_access_key = x\naws_session_token = session\n"
    )
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.server.port}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    storage = Storage(f"s3://{user}bucket/{tmp_path.name}{option}")
    bucket.signers.clear()
    bucket.log.clear()
    assert storage.create("lock.json", b"one")
    assert storage.replace("lock.json", b"one", b"two")
    assert [method for method, _ in bucket.log] == ["PUT", "GET", "PUT"]  # conditional: no look before
    assert storage.read_bytes("lock.json") == b"two"
    assert bucket.signers == {(signer[0], region, signer[1])}


def test_the_region_is_the_one_that_arrow_finds(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the machine's."""
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    address = f"s3://mine:secret@bucket?scheme=http&endpoint_override=127.0.0.1:{bucket.server.port}"
    bucket.signers.clear()
    assert ConditionalWrites(parse_address(address), "eu-central-1").create("there/lock.json", b"one")
    assert bucket.signers == {("mine", "eu-central-1", "")}


def test_without_credentials_arrow_is_left_to_say_so(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    address = parse_address(f"s3://bucket?scheme=http&endpoint_override=127.0.0.1:{bucket.server.port}")
    with pytest.raises(Unsupported, match=r"^no credentials in the environment, in ~/.aws or"):
        ConditionalWrites(address, "us-east-1").create("nobody.json", b"one")
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(OSError, match=r"^The config profile \(missing\) could not be found$"):
        ConditionalWrites(address, "us-east-1").create("nobody.json", b"one")


def test_an_error_is_told_without_the_librarys_structures(bucket: Bucket, writes: ConditionalWrites) -> None:
    bucket.fault, bucket.faulty = "moved", "/bucket/elsewhere"
    try:
        with pytest.raises(OSError, match="redirect") as error:
            writes.create("elsewhere/lock.json", b"one")
    finally:
        bucket.fault = bucket.faulty = ""
    assert "Debug source" not in str(error.value)
    assert len(str(error.value)) < 300


def test_errors_are_one_line_without_secrets(bucket: Bucket, writes: ConditionalWrites) -> None:
    bucket.failures = 100
    try:
        with pytest.raises(OSError, match=r"injected|500") as error:
            writes.create("failing/lock.json", b"one")
        assert "\n" not in str(error.value)
        assert "swordfish" not in str(error.value)
    finally:
        bucket.failures = 0


def test_who_was_followed_does_not_overwrite_the_lock_of_his_follower(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where he looked at it just before he was followed."""
    monkeypatch.setattr(lock, "RENEWAL", 3600.0)
    storage = Storage(bucket.uri("bucket/run"))
    with hold(storage) as mine:
        usurper = Holder.this_process().after(mine.holder)
        looked = mine.check

        def looked_before() -> None:
            """The look was in time, the write is not."""
            looked()
            storage.write_bytes(LOCK, usurper.to_bytes())
            monkeypatch.setattr(Lock, "check", lambda _: looked())

        monkeypatch.setattr(Lock, "check", lambda _: looked_before())
        with pytest.raises(TakenOver):
            mine.renew()
        assert storage.read_bytes(LOCK) == usurper.to_bytes()

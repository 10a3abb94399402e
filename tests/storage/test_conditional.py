"""Conditional writes, on a real S3 server: of many writers one, and never over another's."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

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
    return ConditionalWrites(parse_address(bucket.uri("bucket")))


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
        ConditionalWrites(parse_address(address)).create("more/lock.json", b"one")
    storage = Storage(address)
    assert storage.create("lock.json", b"one")
    assert storage.replace("lock.json", b"one", b"two")
    assert storage.read_bytes("lock.json") == b"two"


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

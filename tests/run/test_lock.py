"""One driver a run directory: who gets the lock, who waits for it, who takes it over, who is told no."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from riemannopt_dist.run import lock as locks
from riemannopt_dist.run.lock import LOCK, Holder, InUse, TakenOver, hold, read_holder
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.s3_server import Bucket

ELSEWHERE = "another-machine some-boot pid:[1]"


@pytest.fixture(params=["path", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "path":
        return Storage(tmp_path)
    bucket: Bucket = request.getfixturevalue("bucket")
    return Storage(bucket.uri(f"bucket/{tmp_path.name}"))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a second or so."""
    for name, seconds in (("LEASE", 1.5), ("RENEWAL", 0.3), ("LOOK", 0.1)):
        monkeypatch.setattr(locks, name, seconds)


def put(storage: Storage, holder: Holder) -> Holder:
    storage.write_bytes(LOCK, holder.to_bytes())
    return holder


def test_it_is_held_for_a_context_and_then_gone(storage: Storage) -> None:
    with hold(storage) as lock:
        holder = read_holder(storage)
        assert holder is not None
        assert (holder.pid, holder.running) == (os.getpid(), True)
        assert not lock.lost()
        start = time.monotonic()
        with pytest.raises(InUse, match=rf"another driver is at work .* process {os.getpid()} on"):
            hold(storage).__enter__()
        assert time.monotonic() - start < locks.LEASE / 4  # no lease was waited for
    assert read_holder(storage) is None
    with hold(storage):
        pass


def test_a_process_that_proc_does_not_show_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, where /proc is mounted with hidepid: the kernel tells that it is there, and no more."""
    holder = Holder.this_process()
    monkeypatch.setattr(locks, "_start_of", lambda pid: None)
    assert holder.running is False

    def not_permitted(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_permitted)
    assert holder.running is None


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    storage, ready, got = Storage(tmp_path), threading.Barrier(8), []

    def try_it(number: int) -> None:
        ready.wait()
        if storage.create(LOCK, str(number).encode()):
            got.append(number)

    threads = [threading.Thread(target=try_it, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(n).encode() for n in got] == [storage.read_bytes(LOCK)]


def test_in_a_bucket_the_last_of_two_gets_it(bucket: Bucket) -> None:
    storage, got = Storage(bucket.uri("bucket/two")), []
    threads = [
        threading.Thread(target=lambda data=data: got.append((data, storage.create(LOCK, data))))
        for data in (b"one", b"two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won for _, won in got) == [False, True]
    assert storage.read_bytes(LOCK) == next(data for data, won in got if won)


def test_a_killed_process_of_this_host_is_followed_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from riemannopt_dist.run.lock import hold; "
        "from riemannopt_dist.storage.base import Storage\n"
        "with hold(Storage(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InUse, match=f"process {other.pid} on"):
        hold(Storage(tmp_path)).__enter__()
    other.send_signal(signal.SIGKILL)
    # Not waited for: a zombie holds nothing either.
    deadline = time.monotonic() + 10
    while (found := read_holder(Storage(tmp_path))) is not None and found.running:
        assert time.monotonic() < deadline
    start = time.monotonic()
    with hold(Storage(tmp_path)):
        assert time.monotonic() - start < 3
    other.communicate()


def test_a_number_that_another_process_has_now_is_no_holder(tmp_path: Path) -> None:
    put(Storage(tmp_path), replace(Holder.this_process(), started="1"))
    with hold(Storage(tmp_path)):
        pass


@pytest.mark.usefixtures("hasty")
def test_a_dead_lock_of_another_host_runs_out(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    dead = put(storage, replace(Holder.this_process(), pids=ELSEWHERE, host="gone"))
    assert dead.running is None
    start = time.monotonic()
    with caplog.at_level("INFO"), hold(storage):
        assert 1.5 <= time.monotonic() - start < 6
    assert "waiting 2 s at most for a sign of life" in caplog.text
    assert "taking over from process" in caplog.text


@pytest.mark.usefixtures("hasty")
def test_a_lock_that_is_released_while_it_is_watched_is_free(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    put(storage, replace(Holder.this_process(), pids=ELSEWHERE, host="far"))
    ending = threading.Timer(0.3, lambda: storage.delete(LOCK))
    ending.start()
    with hold(storage) as lock:
        assert read_holder(storage) == lock.holder
    ending.join()


def test_terms_grow_with_every_takeover(tmp_path: Path) -> None:
    ahead = replace(Holder.this_process(), started="1", term=10**12)  # by a clock far ahead
    put(Storage(tmp_path), ahead)
    with hold(Storage(tmp_path)) as lock:
        found = read_holder(Storage(tmp_path))
        assert found is not None
        assert found.term == lock.holder.term == 10**12 + 1
    assert Holder.this_process().term >= int(time.time()) - 1


@pytest.mark.usefixtures("hasty")
def test_a_living_lock_of_another_host_is_respected(storage: Storage) -> None:
    holder = put(storage, replace(Holder.this_process(), pids=ELSEWHERE, host="far"))
    ended = threading.Event()

    def beat() -> None:
        beating = holder
        while not ended.wait(0.2):
            beating = put(storage, beating.again())

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(InUse, match="on far"):
        hold(storage).__enter__()
    ended.set()
    thread.join()


@pytest.mark.usefixtures("hasty")
def test_it_is_renewed_and_a_holder_learns_of_its_loss(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with hold(storage) as lock:
        deadline = time.monotonic() + 10
        while (found := read_holder(storage)) is None or found.renewals < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        other = put(storage, replace(Holder.this_process(), host="usurper"))
        while not lock.lost():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    # It is another's now, and stays.
    assert read_holder(storage) == other


@pytest.mark.parametrize("other", ["another", "nobody", "something"])
def test_a_holder_that_was_followed_writes_nothing(storage: Storage, other: str) -> None:
    """It learns it at its next write, not at its next renewal; also where its follower has ended."""
    with hold(storage) as lock:
        guarded = storage.guarded(lock.check)
        guarded.write_bytes("failures", b"mine")
        if other == "another":
            put(storage, Holder.this_process())
        elif other == "something":
            storage.write_bytes(LOCK, b"\0")
        else:
            storage.delete(LOCK)
        storage.write_bytes("failures", b"its")
        for write in (
            lambda: guarded.write_bytes("failures", b"mine"),
            lambda: guarded.write_json("run.json", {}),
            lambda: guarded.delete("failures"),
            lambda: guarded.create("new", b""),
        ):
            with pytest.raises(TakenOver, match="another took the run over"):
                write()
        assert lock.lost()
    assert storage.read_bytes("failures") == b"its"
    assert storage.exists(LOCK) == (other != "nobody")
    storage.delete(LOCK)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux to tell who is stopped")
def test_a_stopped_process_of_this_host_has_to_be_watched() -> None:
    """It may go on at any time, and may not: only its lock tells."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        holder = replace(Holder.this_process(), pid=other.pid, started=locks._start_of(other.pid) or "")
        assert holder.running is True
        other.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while holder.running:
            assert time.monotonic() < deadline
        assert holder.running is None
        other.kill()


FORGED = {
    "pid": ["12", True, 0, -1, 1 << 40, 1.5, None],
    "renewed": ["now", float("inf"), float("nan"), 10**400, None],
    "renewals": ["1", None],
    "host": [1, None],
    "term": ["1", None],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in FORGED.items() for value in values]
)
def test_a_forged_lock_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    fields = json.loads(Holder.this_process().to_bytes())
    Storage(tmp_path).write_bytes(LOCK, json.dumps({**fields, key: value}).encode())
    with pytest.raises(ValueError, match=r"lock\.json: not a lock of this version; remove it"):
        read_holder(Storage(tmp_path))


@pytest.mark.parametrize("content", [b'{"owner": "me"}', b"[]", b"1"])
def test_what_is_no_lock_is_one_line(tmp_path: Path, content: bytes) -> None:
    Storage(tmp_path).write_bytes(LOCK, content)
    with pytest.raises(ValueError, match=r"lock\.json: not a lock of this version; remove it"):
        hold(Storage(tmp_path)).__enter__()

"""One driver a run directory: a lock in it that its holder renews, and that runs out if the holder is gone.

The lock is a file that names its holder, its term, and counts its renewals. Nobody compares clocks: whoever
finds a lock either knows that its process has ended, because it ran on this very host, or watches it for as
long as a lease lasts. A lock that is renewed meanwhile is alive; one that is not is void, and is replaced by
one of a higher term.

A holder may be stopped for longer than a lease (SIGSTOP, a machine that stalls) and go on when it has been
followed. So it looks at the lock before everything it writes (see `Storage.guarded`), and one that is gone or
another's is lost for good. What remains is a stop between that look and the write, an upload that hangs for
as long included: for that the store would have to refuse writes of an earlier term.

On a local disk and on S3 only one of several drivers that start together gets the lock, and on S3 a lock is
renewed and taken over by conditional uploads alone: who was followed cannot overwrite his follower's. In a
store without them that rests on a short wait (see `Storage.create`): should two get it there all the same,
the one whose name is overwritten learns it before it writes and stops.
"""

import json
import logging
import math
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DamagedFile

logger = logging.getLogger(__name__)

LOCK = "lock.json"
LEASE = 60.0
"""Seconds without a renewal after which a lock is void."""
RENEWAL = 15.0
"""Seconds between renewals."""
LOOK = 2.0
"""Seconds between two looks at a lock that is being watched."""
SETTLING = 1.0
"""Seconds after which all who wanted to follow a driver have done so, where writes are not conditional."""
LARGEST_PID = 1 << 31


class InUse(RuntimeError):
    """Another driver is at work on the run directory."""


class TakenOver(InUse):
    """The lock was this driver's, and is no longer."""


@dataclass(frozen=True)
class Holder:
    """A driver, and how often it has renewed its lock.

    `host` is a name for people; `pids` tells in which space of process numbers `pid` counts (a boot of a
    machine and a container on it), and `started` tells two processes with the same number apart. Both are ""
    where the system does not say. `renewed` is in Unix time, for people. `term` is higher than that of the
    holder before; without one it is the time of the start in Unix time, so that it grows over free locks too.
    """

    token: str
    host: str
    pids: str
    pid: int
    started: str
    renewals: int
    renewed: float
    term: int = 0

    @classmethod
    def this_process(cls) -> "Holder":
        """This process, as a new holder."""
        pid, now = os.getpid(), time.time()
        started = _start_of(pid) or ""
        return cls(secrets.token_hex(8), platform.node(), _process_space(), pid, started, 0, now, int(now))

    def again(self) -> "Holder":
        """The same holder, renewed."""
        return replace(self, renewals=self.renewals + 1, renewed=time.time())

    def after(self, other: "Holder") -> "Holder":
        """The same holder, in a higher term than another's."""
        return replace(self, term=max(self.term, other.term + 1))

    @property
    def running(self) -> bool | None:
        """Whether its process runs; None where that cannot be told from here, and of one that is stopped."""
        if not self.pids or self.pids != _process_space():
            return None
        started = _start_of(self.pid)
        if started is None and _is_hidden(self.pid):
            return None
        return None if started == self.started and _is_stopped(self.pid) else started == self.started

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), indent=2).encode()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def read_holder(storage: Storage) -> Holder | None:
    """Whose lock is in `storage`, None without one. Raises ValueError for a file that is no lock."""
    try:
        return _holder(storage.read_json(LOCK))
    except FileNotFoundError:
        return None
    except (TypeError, OverflowError):
        raise ValueError(f"{storage.uri(LOCK)}: not a lock of this version; remove it") from None


def _holder(content: Any) -> Holder:
    """A holder from its fields. Raises TypeError for other keys or kinds of values."""
    if not isinstance(content, dict):
        raise TypeError
    kinds = {field.name: type(getattr(_SOMEBODY, field.name)) for field in fields(Holder)}
    holder = Holder(**{"term": 0, **content})
    values = {name: getattr(holder, name) for name in kinds}
    if isinstance(values["renewed"], int) and not isinstance(values["renewed"], bool):
        values["renewed"] = float(values["renewed"])
    if any(type(values[name]) is not kind for name, kind in kinds.items()):
        raise TypeError
    if not (0 < holder.pid < LARGEST_PID and math.isfinite(holder.renewed)):
        raise TypeError
    return holder


_SOMEBODY = Holder("", "", "", 1, "", 0, 0.0)


class Lock:
    """The lock of a run directory while this process holds it."""

    def __init__(self, storage: Storage, holder: Holder) -> None:
        self.holder = holder
        self._storage = storage
        self._lost = threading.Event()

    def lost(self) -> bool:
        """Whether it has been seen to be gone or another's."""
        return self._lost.is_set()

    def check(self, patience: float = 0.0) -> None:
        """Look at it. Raises TakenOver where it is gone or another's, now or at an earlier look.

        A storage that does not answer is asked again for `patience` seconds.
        """
        if not self._lost.is_set():
            holder = self._found(patience)
            if holder is None or holder.token != self.holder.token:
                logger.error("%s: %s", self._storage.root, _taken_over_by(holder))
                self._lost.set()
        if self._lost.is_set():
            raise TakenOver(
                f"{self._storage.root}: the lock of this driver is gone: another took the run over"
            )

    def _found(self, patience: float) -> Holder | None:
        """Whose it is now; None where it is nobody's that can be told."""
        try:
            return read_holder(self._storage.patient(patience))
        except (ValueError, DamagedFile):
            return None

    def renew(self) -> None:
        """Tell that its holder is alive. Raises TakenOver where it no longer is the holder."""
        self.check()
        before, self.holder = self.holder, self.holder.again()
        if not self._storage.replace(LOCK, before.to_bytes(), self.holder.to_bytes()):
            self.check()

    def release(self) -> None:
        """Remove it, if it is this driver's."""
        if not self._lost.is_set():
            with suppress(OSError, ValueError, InUse):  # a lock that cannot be removed runs out
                self.check()
                self._storage.delete(LOCK)


@contextmanager
def hold(storage: Storage) -> Iterator[Lock]:
    """Hold the lock of a run directory for the time of a context.

    Raises InUse where another driver is at work. The lock of one that was killed is taken over: at once if it
    ran on this host, else after `LEASE` seconds without a sign of life.
    """
    lock, ended = Lock(storage, _acquire(storage)), threading.Event()
    renewing = threading.Thread(target=_renew, args=(storage, lock, ended), daemon=True)
    renewing.start()
    try:
        yield lock
    finally:
        ended.set()
        renewing.join()
        lock.release()


def _acquire(storage: Storage) -> Holder:
    mine = Holder.this_process()
    while not storage.create(LOCK, mine.to_bytes()):
        other = read_holder(storage)
        if other is None:  # released between the two looks
            continue
        if not _is_void(storage, other):
            raise InUse(
                f"{storage.root}: another driver is at work on this run: {other}; "
                f"riemannopt status tells how far it is"
            )
        logger.warning("%s: taking over from %s, which has ended", storage.root, other)
        mine = mine.after(other)
        followed = storage.replace(LOCK, other.to_bytes(), mine.to_bytes())
        time.sleep(SETTLING)
        now = read_holder(storage)
        if followed and now is not None and now.token == mine.token:
            return mine
        if now is not None:
            raise InUse(f"{storage.root}: another driver took this run over: {now}")
        # Gone: it was released while it was watched, or whoever took it over has ended as well.
    return mine


def _is_void(storage: Storage, other: Holder) -> bool:
    """Whether a lock's holder has ended: known, or seen by watching for a lease's time."""
    if other.running is not None:
        return not other.running
    logger.info("%s: locked by %s; waiting %.0f s at most for a sign of life", storage.root, other, LEASE)
    deadline = time.monotonic() + LEASE
    while time.monotonic() < deadline:
        time.sleep(LOOK)
        now = read_holder(storage)
        if now is None:
            return True
        if (now.token, now.renewals) != (other.token, other.renewals):
            return False
    return True


def _renew(storage: Storage, lock: Lock, ended: threading.Event) -> None:
    """Renew the lock until `ended`, or until it is lost."""
    while not ended.wait(RENEWAL):
        try:
            lock.renew()
        except TakenOver:
            return
        except (OSError, ValueError) as error:
            logger.warning("%s: the lock could not be renewed: %s", storage.root, error)


def _taken_over_by(other: Holder | None) -> str:
    who = "the lock of this driver is gone: somebody" if other is None else other
    return f"{who} has taken this run over"


def _process_space() -> str:
    """The space in which process numbers of this system count, "" where it does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_hidden(pid: int) -> bool:
    """Whether process `pid` runs though /proc does not show it: another user's, under hidepid."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _start_of(pid: int) -> str | None:
    """When process `pid` of this system started, in ticks since the boot; None if it does not run."""
    fields = _status_of(pid)
    return None if not fields or fields[0] in ("Z", "X") else fields[19]


def _is_stopped(pid: int) -> bool:
    return _status_of(pid)[:1] in (["T"], ["t"])


def _status_of(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; none if there is no such process."""
    try:
        # The name, in parentheses, may hold anything; fields are counted from its end.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []

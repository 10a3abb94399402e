"""One driver a run directory: a lock in it that its holder renews, and that runs out if the holder is gone.

The lock is a file that names its holder and counts its renewals. Nobody compares clocks: whoever finds a lock
either knows that its process has ended, because it ran on this very host, or watches it for as long as a
lease lasts. A lock that is renewed meanwhile is alive; one that is not is void, and is replaced.

On a local disk only one of several drivers that start together gets the lock. In an object store that rests
on a short wait (see `Storage.create`): should two get it there all the same, the one whose name is
overwritten learns it at its next renewal and stops. Until then both write the same shards, with the same
content.
"""

import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from riemannopt_dist.run.storage import Storage

logger = logging.getLogger(__name__)

LOCK = "lock.json"
LEASE = 60.0
"""Seconds without a renewal after which a lock is void."""
RENEWAL = 15.0
"""Seconds between renewals."""
LOOK = 2.0
"""Seconds between two looks at a lock that is being watched."""


class InUse(RuntimeError):
    """Another driver is at work on the run directory."""


@dataclass(frozen=True)
class Holder:
    """A driver, and how often it has renewed its lock.

    `host` is a name for people; `pids` tells in which space of process numbers `pid` counts (a boot of a
    machine and a container on it), and `started` tells two processes with the same number apart. Both are ""
    where the system does not say. `renewed` is in Unix time, for people.
    """

    token: str
    host: str
    pids: str
    pid: int
    started: str
    renewals: int
    renewed: float

    @classmethod
    def this_process(cls) -> "Holder":
        """This process, as a new holder."""
        pid = os.getpid()
        started = _start_of(pid) or ""
        return cls(secrets.token_hex(8), platform.node(), _process_space(), pid, started, 0, time.time())

    def again(self) -> "Holder":
        """The same holder, renewed."""
        return replace(self, renewals=self.renewals + 1, renewed=time.time())

    @property
    def running(self) -> bool | None:
        """Whether its process runs; None where that cannot be told from here."""
        if not self.pids or self.pids != _process_space():
            return None
        started = _start_of(self.pid)
        return None if started is None and _is_hidden(self.pid) else started == self.started

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), indent=2).encode()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def read_holder(storage: Storage) -> Holder | None:
    """Whose lock is in `storage`, None without one. Raises ValueError for a file that is no lock."""
    try:
        return Holder(**storage.read_json(LOCK))
    except FileNotFoundError:
        return None
    except TypeError:
        raise ValueError(f"{storage.uri(LOCK)}: not a lock of this version; remove it") from None


@contextmanager
def hold(storage: Storage) -> Iterator[Callable[[], bool]]:
    """Hold the lock of a run directory for the time of a context: gives whether it has been lost.

    Raises InUse where another driver is at work. The lock of one that was killed is taken over: at once if it
    ran on this host, else after `LEASE` seconds without a sign of life.
    """
    holder = _acquire(storage)
    lost, ended = threading.Event(), threading.Event()
    renewing = threading.Thread(target=_renew, args=(storage, holder, lost, ended), daemon=True)
    renewing.start()
    try:
        yield lost.is_set
    finally:
        ended.set()
        renewing.join()
        with suppress(OSError):  # a lock that cannot be removed runs out
            found = read_holder(storage)
            if found is not None and found.token == holder.token:
                storage.delete(LOCK)


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
        if not storage.replace(LOCK, mine.to_bytes()):
            raise InUse(f"{storage.root}: another driver took this run over: {read_holder(storage)}")
        return mine
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


def _renew(storage: Storage, holder: Holder, lost: threading.Event, ended: threading.Event) -> None:
    """Renew the lock until `ended`; set `lost`, and stop, once it is another's."""
    while not ended.wait(RENEWAL):
        try:
            found = read_holder(storage)
            if found is not None and found.token != holder.token:
                logger.error("%s: %s has taken this run over", storage.root, found)
                lost.set()
                return
            holder = holder.again()
            storage.write_bytes(LOCK, holder.to_bytes())
        except (OSError, ValueError) as error:
            logger.warning("%s: the lock could not be renewed: %s", storage.root, error)


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
    try:
        # The name, in parentheses, may hold anything; fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()

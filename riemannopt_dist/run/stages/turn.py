"""Whose turn it is on a device that several threads share."""

import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Turn(Generic[T]):
    """The use of a device by one `holder` at a time, each on a thread of its own; None while it is free."""

    def __init__(self) -> None:
        self.holder: T | None = None
        self._lock = threading.Lock()
        self._free_since = time.perf_counter()

    def take(self, holder: T, since: float) -> float:
        """Wait for the turn, for a holder that would have had work for the device but for waits `since` then.

        Gives the time (of `perf_counter`) from which on the device stood still for it.
        """
        self._lock.acquire()
        self.holder = holder
        return max(since, self._free_since)

    def end(self) -> None:
        """Let the next one have it."""
        self.holder = None
        self._free_since = time.perf_counter()
        self._lock.release()

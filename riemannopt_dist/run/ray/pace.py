"""How long calls take, by those that ended: which are slow, and when one has hung."""

import math
import statistics
from collections import deque

ENOUGH = 5
"""Calls that a median needs."""
KEPT = 1000
"""Calls that are remembered: the median follows a run whose work changes."""
SLOW = 10.0
"""Times the median, after which a call is told of."""
HUNG = 60.0
"""Times the median, after which it is ended."""
LEAST = 300.0
"""Seconds that every call may take, whatever the others took: a cold cache is no fault."""


class Pace:
    """Of calls of one kind, in seconds a part; no call may take more than `longest` a part."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._taken: deque[float] = deque(maxlen=KEPT)

    def took(self, seconds: float, parts: int) -> None:
        """Take note of a call that ended."""
        self._taken.append(seconds / parts)

    @property
    def median(self) -> float | None:
        """Seconds a part; None while too few calls have ended."""
        return statistics.median(self._taken) if len(self._taken) >= ENOUGH else None

    @property
    def limit(self) -> float:
        """Seconds a part after which a call has hung."""
        if self.median is None:
            return self._longest
        return min(self._longest, max(LEAST, HUNG * self.median))

    @property
    def slow(self) -> float:
        """Seconds a part after which a call is told of."""
        return math.inf if self.median is None else SLOW * self.median

"""What local disks, object stores and web servers have in common: retries, and messages without secrets."""

import errno
import logging
import random
import re
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from riemannopt_dist.storage.redaction import one_line

logger = logging.getLogger(__name__)
T = TypeVar("T")
ATTEMPTS = 5
"""How often an operation on a storage that fails for a passing reason is tried."""
FIRST_DELAY = 0.25
"""Seconds before the second attempt (± half); each further delay is twice as long, up to LONGEST_DELAY."""
LONGEST_DELAY = 15.0
"""Seconds between two attempts at a storage that is waited for."""
PATIENCE = 600.0
"""Seconds for which a run waits for a storage that does not answer, unless told otherwise."""
_LASTING_ERRORS = (IsADirectoryError, NotADirectoryError)
_LASTING_NUMBERS = (errno.ELOOP, errno.ENAMETOOLONG)
_DENIED_CODES = re.compile(
    "ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH"  # S3
    "|PERMISSION_DENIED|UNAUTHENTICATED"  # Google
)


class StorageError(OSError):
    """A storage could not be read or written. The message is one line and holds no credentials."""


class LastingError(StorageError):
    """One that another attempt would meet again: no permission, no such bucket, not a file."""


class DeniedError(LastingError):
    """One that somebody can mend: no permission, no such bucket, credentials that do not hold."""


class DamagedFile(StorageError):
    """A file of a storage that answers: what it holds is not what it should hold."""


def retried(operation: Callable[[], T], uri: str, patience: float = 0.0) -> T:
    """The operation's value, after up to `ATTEMPTS` tries, or more until `patience` seconds are over.

    Between them is an exponential back-off with jitter. Raises FileNotFoundError at once, LastingError at
    once (DeniedError where somebody can mend it), and StorageError for an error that outlasts the attempts;
    each names `uri`, which holds no secrets.
    """
    deadline = time.monotonic() + patience
    for attempt in count(1):
        try:
            return operation()
        except FileNotFoundError:
            raise FileNotFoundError(f"{uri}: no such file") from None
        except OSError as error:
            kind, now = _kind(error), time.monotonic()
            if issubclass(kind, LastingError) or (attempt >= ATTEMPTS and now >= deadline):
                tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                raise kind(f"{uri}: {one_line(error)} ({tries})") from None
            if attempt == ATTEMPTS:
                logger.warning(
                    "%s: %s; asked again, for %.0f s at most", uri, one_line(error), deadline - now
                )
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1))
        time.sleep(delay * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def _kind(error: OSError) -> type[StorageError]:
    """What an error is to whoever may try again."""
    if isinstance(error, PermissionError | DeniedError) or _DENIED_CODES.search(str(error)):
        return DeniedError
    lasting = isinstance(error, (*_LASTING_ERRORS, LastingError)) or error.errno in _LASTING_NUMBERS
    return LastingError if lasting else StorageError

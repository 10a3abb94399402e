"""What local disks, object stores and web servers have in common: retries, and messages without secrets."""

import errno
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 5
"""How often an operation on a storage that fails for a passing reason is tried."""
FIRST_DELAY = 0.25
"""Seconds before the second attempt (± half); each further delay is twice as long."""

_LASTING_ERRORS = (IsADirectoryError, NotADirectoryError)
_LASTING_NUMBERS = (errno.ELOOP, errno.ENAMETOOLONG)
_DENIED_CODES = re.compile(
    "ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH"  # S3
    "|PERMISSION_DENIED|UNAUTHENTICATED"  # Google
)
URI = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
"""How an address begins that is no local path."""

_PASSWORD = re.compile(r"[^:/]+://[^/\s@:]*:[^\s@]*@")
_BUCKET = re.compile("[^:]*")
_HOST_AND_PORT = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
# user@ and user:password@ in an address, where a password may hold a "/" that was not encoded; and its query.
_SECRETS = re.compile(r"(?<=://)([^/\s@]*|[^/\s@:]*:[^\s@]*)@|\?\S*")


class StorageError(OSError):
    """A storage could not be read or written. The message is one line and holds no credentials."""


class LastingError(StorageError):
    """One that another attempt would meet again: no permission, no such bucket, not a file."""


class DeniedError(LastingError):
    """One that somebody can mend: no permission, no such bucket, credentials that do not hold."""


class DamagedFile(StorageError):
    """A file of a storage that answers: what it holds is not what it should hold."""


def retried(operation: Callable[[], T], uri: str) -> T:
    """The operation's value, after up to `ATTEMPTS` tries with exponential back-off and jitter.

    Raises FileNotFoundError at once, LastingError at once (DeniedError where somebody can mend it), and
    StorageError for an error that outlasts the attempts; each names `uri`, which holds no secrets.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return operation()
        except FileNotFoundError:
            raise FileNotFoundError(f"{uri}: no such file") from None
        except OSError as error:
            kind = _kind(error)
            if issubclass(kind, LastingError) or attempt == ATTEMPTS:
                tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                raise kind(f"{uri}: {one_line(error)} ({tries})") from None
        time.sleep(FIRST_DELAY * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def without_secrets(address: str) -> str:
    """The address without user, password and query; a plain path as it is."""
    if not URI.match(address):
        return address
    scheme, _, rest = address.partition("://")
    authority, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    if ends_in_password(scheme.lower(), authority):
        return f"{scheme.lower()}://…"
    return f"{scheme.lower()}://{authority.rpartition('@')[2]}{slash}{path}"


def holds_secret(address: str) -> bool:
    """Whether an address holds a password, or a query of a web server, which may be a token."""
    if not URI.match(address):
        return False
    is_web = address.lower().startswith(("http://", "https://"))
    return _PASSWORD.match(address) is not None or (is_web and "?" in address)


def ends_in_password(scheme: str, authority: str) -> bool:
    """Whether the host is none: a user and a part of a password, whose "/" ought to be written %2F."""
    expected = _BUCKET if scheme in ("s3", "gs") else _HOST_AND_PORT
    return expected.fullmatch(authority.rpartition("@")[2]) is None


def one_line(error: BaseException) -> str:
    """The error's text in one line, without secrets."""
    return scrubbed(str(error))


def scrubbed(text: str) -> str:
    """The text in one line; of addresses in it, neither user, password nor query."""
    return " ".join(re.sub(_SECRETS, "", text).split())


def _kind(error: OSError) -> type[StorageError]:
    """What an error is to whoever may try again."""
    if isinstance(error, PermissionError | DeniedError) or _DENIED_CODES.search(str(error)):
        return DeniedError
    lasting = isinstance(error, (*_LASTING_ERRORS, LastingError)) or error.errno in _LASTING_NUMBERS
    return LastingError if lasting else StorageError

"""Conditional writes to S3: an object is created only where there is none, and replaced only while unchanged.

S3 takes `If-None-Match: *` and `If-Match: <etag>` with an upload, and refuses it with 412 where they do not
hold (docs.aws.amazon.com, "How to prevent object overwrites with conditional writes"). Arrow does not offer
them; obstore does. A store that knows neither answers 501, and `Unsupported` is raised.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from obstore.store import S3Store

from riemannopt_dist.storage.addresses import Address
from riemannopt_dist.storage.redaction import one_line

T = TypeVar("T")

KNOWN = {"region", "scheme", "endpoint_override", "allow_delayed_open"}
"""Options of an address that are understood here; with others writes are not conditional."""
UNSUPPORTED = ("501", "NotImplemented")
"""What stands in the answer of a store that has no conditional writes."""


class Unsupported(OSError):
    """The store has no conditional writes, or its address says more than is understood here."""


class ConditionalWrites:
    """Those to one bucket. Made from its address, and so picklable."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def create(self, key: str, data: bytes) -> bool:
        """Make a new object of `data`; whether one that holds `data` is there now."""
        try:
            _asked(lambda: obstore.put(self._store(), key, data, mode="create", use_multipart=False))
        except (AlreadyExistsError, PreconditionError):
            # It may be from an attempt of this call that seemed to fail.
            return self._content(key) == data
        return True

    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        """Put `data` in the place of an object that holds `expected`; whether it holds `data` now."""
        store = self._store()
        try:
            current = _asked(lambda: obstore.get(store, key))
        except FileNotFoundError:
            return False
        etag, content = current.meta["e_tag"], bytes(current.bytes())
        if content != expected:
            return content == data
        if etag is None:
            raise Unsupported("the store tells no etag")
        try:
            _asked(lambda: obstore.put(store, key, data, mode={"e_tag": etag}, use_multipart=False))
        except (AlreadyExistsError, PreconditionError):
            return self._content(key) == data
        return True

    def _content(self, key: str) -> bytes | None:
        try:
            return bytes(_asked(lambda: obstore.get(self._store(), key)).bytes())
        except FileNotFoundError:
            return None

    def _store(self) -> S3Store:
        """A client; credentials that the address lacks come from the environment, or the machine's role."""
        user, _, bucket = self._address.authority.rpartition("@")
        options = dict(parse_qsl(self._address.query))
        if not options.keys() <= KNOWN:
            raise Unsupported("the address has options that conditional writes do not know")
        return S3Store(bucket, config=_config(user, options), client_options={"allow_http": True})


def _config(user: str, options: Mapping[str, str]) -> Any:
    config = {"aws_region": options["region"]} if "region" in options else {}
    if "endpoint_override" in options:
        config["aws_endpoint"] = f"{options.get('scheme', 'https')}://{options['endpoint_override']}"
    if user:
        key, _, secret = user.partition(":")
        config |= {"aws_access_key_id": unquote(key), "aws_secret_access_key": unquote(secret)}
    return config


def _asked(operation: Callable[[], T]) -> T:
    """What an operation gives. Raises OSError, in one line without secrets, for other errors of obstore's."""
    try:
        return operation()
    except (AlreadyExistsError, PreconditionError, FileNotFoundError):
        raise
    except NotSupportedError as error:
        raise Unsupported(one_line(error)) from None
    except BaseError as error:
        text = one_line(error)
        kind = Unsupported if any(word in text for word in UNSUPPORTED) else OSError
        raise kind(text) from None

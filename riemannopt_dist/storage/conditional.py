"""Conditional writes to S3: an object is created only where there is none, and replaced only while unchanged.

S3 takes `If-None-Match: *` and `If-Match: <etag>` with an upload, and refuses it with 412 where they do not
hold (docs.aws.amazon.com, "How to prevent object overwrites with conditional writes"). Arrow does not offer
them; obstore does, but neither looks up a bucket's region nor reads a profile in ~/.aws. So the region is
Arrow's, and the credentials are botocore's, which looks for them where Arrow does. A store that knows no
conditional writes answers 501, and `Unsupported` is raised.
"""

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from obstore.store import S3Store

from riemannopt_dist.storage.addresses import Address
from riemannopt_dist.storage.redaction import one_line

if TYPE_CHECKING:
    from obstore.store import S3Credential

T = TypeVar("T")

KNOWN = {"region", "scheme", "endpoint_override", "allow_delayed_open"}
"""Options of an address that are understood here; with others writes are not conditional."""
UNSUPPORTED = re.compile(r"\b501\b|NotImplemented")
"""What stands in the answer of a store that has no conditional writes."""


class Unsupported(OSError):
    """The store has none, its address says more than is understood here, or there are no credentials."""


class ConditionalWrites:
    """Those to one bucket, in the region that Arrow finds it in. Can be pickled."""

    def __init__(self, address: Address, region: str) -> None:
        self._address = address
        self._region = region

    def __reduce__(self) -> tuple[type["ConditionalWrites"], tuple[Address, str]]:
        return ConditionalWrites, (self._address, self._region)  # credentials stay on their machine

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
        options = dict(parse_qsl(self._address.query))
        if not options.keys() <= KNOWN:
            raise Unsupported("the address has options that conditional writes do not know")
        credential = self._credential()
        return S3Store(
            self._address.authority.rpartition("@")[2],
            config=_config(self._region, options),
            client_options={"allow_http": True},
            credential_provider=lambda: credential,
        )

    def _credential(self) -> "S3Credential":
        """The keys of the address, or those of the environment, a profile or the machine's role."""
        user = self._address.authority.rpartition("@")[0]
        if user:
            key, _, secret = (unquote(part) for part in user.partition(":"))
            return {"access_key_id": key, "secret_access_key": secret, "token": None, "expires_at": None}
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            keys = self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise OSError(one_line(error)) from None
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": None,
        }

    @cached_property
    def _credentials(self) -> Any:
        """Botocore's credentials, which renew themselves."""
        from botocore.session import get_session

        credentials = get_session().get_credentials()
        if credentials is None:
            raise Unsupported("no credentials in the environment, in ~/.aws or from the machine's role")
        return credentials


def _config(region: str, options: Mapping[str, str]) -> Any:
    config = {"aws_region": region}
    if "endpoint_override" in options:
        config["aws_endpoint"] = f"{options.get('scheme', 'https')}://{options['endpoint_override']}"
    return config


def _asked(operation: Callable[[], T]) -> T:
    """What an operation gives. Raises OSError, in one line without secrets, for other errors of obstore's."""
    try:
        return operation()
    except (AlreadyExistsError, PreconditionError, FileNotFoundError):
        raise
    except NotSupportedError as error:
        raise Unsupported(_told(error)) from None
    except BaseError as error:
        text = _told(error)
        raise (Unsupported if UNSUPPORTED.search(text) else OSError)(text) from None


def _told(error: Exception) -> str:
    """The error's line, without the dump of structures that obstore puts after it."""
    return one_line(error).partition(" Debug source:")[0]

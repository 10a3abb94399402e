"""Addresses and messages without the secrets in them."""

import re

URI = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
"""How an address begins that is no local path."""
# A path made of an address has one "/" where that has two.
_PASSWORD = re.compile(r"[A-Za-z0-9+.-]:/{1,2}[^/\s@:]*:[^\s@]*@")
_WEB_QUERY = re.compile(r"https?:/{1,2}[^\s?]*\?", re.IGNORECASE)
_BUCKETS = ("s3", "gs")
_BUCKET = re.compile("[^:]*")
_HOST_AND_PORT = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
# user@ and user:password@ in an address, where a password may hold a "/" that was not encoded; and its query.
_SECRETS = re.compile(r"(?<=://)([^/\s?]*|[^/\s@:]*:[^\s@]*)@|\?\S*")


def without_secrets(address: str) -> str:
    """The address without user, password and query; a plain path as it is."""
    if not URI.match(address):
        return address
    scheme, _, rest = without_credentials(address).partition("://")
    return f"{scheme.lower()}://{re.split('[?#]', rest, maxsplit=1)[0]}"


def without_credentials(text: str) -> str:
    """The text without user, password, and a query that may be a token, where it is an address.

    Options of a bucket, such as its region, stay: a text that holds no secret is as it is.
    """
    if not URI.match(text):
        return text
    scheme, _, rest = text.partition("://")
    place = re.split("[?#]", rest, maxsplit=1)[0]
    authority, slash, path = place.partition("/")
    if ends_in_password(scheme.lower(), authority):
        return f"{scheme}://…"
    options = rest.removeprefix(place) if scheme.lower() in _BUCKETS else ""
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}{'' if '@' in options else options}"


def holds_secret(text: str) -> bool:
    """Whether an address in the text holds a password, or a query of a web server, which may be a token."""
    return _PASSWORD.search(text) is not None or _WEB_QUERY.search(text) is not None


def ends_in_password(scheme: str, authority: str) -> bool:
    """Whether the host is none: a user and a part of a password, whose "/" ought to be written %2F."""
    expected = _BUCKET if scheme in _BUCKETS else _HOST_AND_PORT
    return expected.fullmatch(authority.rpartition("@")[2]) is None


def one_line(error: BaseException) -> str:
    """The error's text in one line, without secrets."""
    return scrubbed(str(error))


def scrubbed(text: str) -> str:
    """The text in one line; of addresses in it, neither user, password nor query."""
    return " ".join(re.sub(_SECRETS, "", text).split())

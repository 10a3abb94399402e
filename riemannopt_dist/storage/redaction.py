"""Addresses and messages without the secrets in them."""

import re

URI = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
"""How an address begins that is no local path."""
_PASSWORD = re.compile(r"[^:/]+://[^/\s@:]*:[^\s@]*@")
_BUCKET = re.compile("[^:]*")
_HOST_AND_PORT = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
# user@ and user:password@ in an address, where a password may hold a "/" that was not encoded; and its query.
_SECRETS = re.compile(r"(?<=://)([^/\s@]*|[^/\s@:]*:[^\s@]*)@|\?\S*")


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

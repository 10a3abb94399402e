"""Addresses: a local path, taken as it is, or a URI, whose path is percent-decoded.

One reading for images, labels and output. A URI that may name another place than was meant is refused: one
with a # or %, which are written %23 and %25, with a ? that no options follow (%3F), or with a host or folder
that its store cannot have.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from riemannopt_dist.storage.redaction import URI, ends_in_password, one_line, without_secrets

_BUCKETS = ("s3", "gs")
_ALMOST_URI = re.compile(r"\s*(file|s3|gs|https?):/", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RESERVED = re.compile(r"[%#?\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Address:
    """A local path, which has no scheme, or the parts of a URI.

    `path` is decoded, but for http:// and https://, whose servers decode it.
    """

    scheme: str
    authority: str
    path: str
    query: str

    @property
    def local(self) -> Path:
        """The path of a local address. Raises ValueError for the home of an unknown user."""
        try:
            return Path(self.path) if self.scheme else Path(self.path).expanduser()
        except RuntimeError as error:
            raise ValueError(f"{self.path}: {one_line(error)}") from None

    @property
    def key(self) -> str:
        """Bucket and path of an object, as Arrow's file systems have them."""
        return f"{self.authority.rpartition('@')[2]}{self.path}".removesuffix("/")

    @property
    def bucket(self) -> str:
        """The URI of the bucket alone, with credentials and options."""
        return f"{self.scheme}://{self.authority}" + (f"?{self.query}" if self.query else "")

    @property
    def name(self) -> str:
        """An absolute path, or a URI without credentials and options: for tables and messages."""
        if self.scheme in ("", "file"):
            return str(self.local.absolute())  # workers run in other directories
        key = _encoded(self.key) if self.scheme in _BUCKETS else self.key
        return f"{self.scheme}://{key}"


def parse_address(text: str) -> Address:
    """The parts of an address. Raises ValueError, in one line without secrets, for one that is refused."""
    if not URI.match(text):
        if almost := _ALMOST_URI.match(text):
            raise ValueError(
                f"expected :// after {almost[1]}, got {almost[0]}… (a local path like that begins with ./)"
            )
        return Address("", "", text, "")
    scheme, _, rest = text.partition("://")
    before, mark, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    address = Address(scheme.lower(), authority, slash + path, query)
    _check_authority(address)
    _check_characters(text, address, mark)
    if address.scheme in ("http", "https"):
        return address
    address = Address(address.scheme, authority, _decoded(text, address.path), query)
    if address.scheme in _BUCKETS and not {"", ".", ".."}.isdisjoint(address.key.split("/")):
        raise ValueError(f"expected no empty part, . or .. between the / of {without_secrets(text)}")
    return address


def name_inside(folder: str, path: str) -> str:
    """The name of what lies at `path`, not encoded, in a folder of a name."""
    return f"{folder}/{_encoded(path) if URI.match(folder) else path}"


def key_of(name: str) -> str:
    """Bucket and path of the object of a name."""
    return unquote(name.partition("://")[2])


def shown_path(name: str) -> str:
    """A name as people read it."""
    return unquote(name) if name.startswith(tuple(f"{scheme}://" for scheme in _BUCKETS)) else name


def _check_authority(address: Address) -> None:
    scheme, authority = address.scheme, address.authority
    if scheme == "file":
        if authority not in ("", "localhost") or not address.path:
            raise ValueError(f"expected file:/// and an absolute path, got {without_secrets(address.bucket)}")
    elif not authority.rpartition("@")[2] or ends_in_password(scheme, authority):
        kind = "bucket" if scheme in _BUCKETS else "host"
        raise ValueError(f"expected a {kind} after {scheme}:// (a password has its / as %2F)")


def _check_characters(text: str, address: Address, mark: str) -> None:
    """Refuse characters that have another meaning in a URI than in the name of a file."""
    shown = without_secrets(text)
    if "#" in text:
        raise ValueError(f"expected no # in an address (write it %23), found one after {shown}")
    if _CONTROL.search(text):
        raise ValueError(f"expected no tab or line break in an address (write %09, %0A), got {shown!r}")
    if stray := _STRAY_PERCENT.search(address.path):
        escape = address.path[stray.start() : stray.start() + 3]
        raise ValueError(f"expected a code after each % (write a % itself %25), found {escape!r} in {shown}")
    if mark and address.scheme == "file":
        raise ValueError(f"expected no ? in a file:// address (write it %3F), found one after {shown}")
    if mark and address.scheme in _BUCKETS and not all("=" in part for part in address.query.split("&")):
        raise ValueError(
            f"expected options such as region=eu-west-1 after the ? behind {shown} (write a ? itself %3F)"
        )


def _decoded(text: str, path: str) -> str:
    try:
        path = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"expected UTF-8 in the codes after %, got {without_secrets(text)}") from None
    if "\0" in path:
        raise ValueError(f"expected no %00 in an address, got {without_secrets(text)}")
    return path


def _encoded(path: str) -> str:
    """`path` with what a URI gives another meaning percent-encoded."""
    return _RESERVED.sub(lambda found: quote(found[0], safe=""), path)

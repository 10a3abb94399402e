"""One input of a run: where it lies, and its label."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2")
"""Endings of files that claim to be images, in lower case."""
_SHOWN = 5
"""Names in a message."""


@dataclass(frozen=True)
class ImageRef:
    """One input: where it lies, its class index where known, and the reason where it cannot be used.

    `uri` is the local path, or the percent-encoded URI without credentials, of its own file, or of the tar or
    Parquet file that holds it: in a tar the `size` bytes from byte `offset`, in Parquet the row `offset`,
    where `size` is None and `group` the row group that it is in. Of its own file `size` is what the listing
    tells, None where it does not. `digest`, once the image has been read, tells it from another of its name.
    """

    image_id: str
    uri: str
    label: int | None
    reason: str | None = None
    offset: int | None = None
    size: int | None = None
    group: int | None = None
    digest: str | None = None


def storable(ref: ImageRef) -> ImageRef:
    """`ref`; if its name is not UTF-8, which no table holds, with that escaped and as the reason."""
    try:
        f"{ref.image_id} {ref.uri}".encode()
    except UnicodeEncodeError:
        image_id, uri = _escaped(ref.image_id), _escaped(ref.uri)
        return replace(ref, image_id=image_id, uri=uri, reason="file name is not UTF-8")
    return ref


def shortened(names: Iterable[object]) -> str:
    """The first few of some names, for a message."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "")


def _escaped(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

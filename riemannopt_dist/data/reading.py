"""The bytes of images, from files of their own or from parts of tars and Parquet files."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from riemannopt_dist.data.errors import ReplacedImage, UnreachableImage, UnreadableImage
from riemannopt_dist.data.files import Files
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.parquet.images import ParquetImages
from riemannopt_dist.data.webdataset import TarImages
from riemannopt_dist.storage.errors import DeniedError, LastingError, StorageError, retried
from riemannopt_dist.storage.redaction import one_line


class ImageReader:
    """Reads some images, each at most once and from any thread.

    A tar or Parquet file that holds several of them is opened once, and a row group read once. A context, at
    whose end all files are closed. `digests` holds those of the images read, by id.
    """

    def __init__(self, files: Files, refs: Iterable[ImageRef]) -> None:
        self.digests: dict[str, str] = {}
        self._files = files
        inside: dict[str, list[ImageRef]] = defaultdict(list)
        for ref in refs:
            if ref.offset is not None:
                inside[ref.uri].append(ref)
        self._containers = {uri: _container(files, uri, parts) for uri, parts in inside.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for container in self._containers.values():
            container.close()

    def read(self, ref: ImageRef) -> bytes:
        """The bytes of one image.

        Raises UnreadableImage if the fault is the image's (damaged, no file, or the reason in its ref);
        UnreachableImage if its storage does not give it, or not as long as it was listed; ReplacedImage if
        it is not the one of the ref's digest.
        """
        if ref.reason is not None:
            raise UnreadableImage(ref.reason)
        data = self._read(ref)
        digest = self.digests[ref.image_id] = digest_of(data)
        if ref.digest not in (None, digest):
            raise ReplacedImage(f"{ref.uri}: not the image that was selected: it has been replaced since")
        return data

    def _read(self, ref: ImageRef) -> bytes:
        try:
            if ref.offset is not None:
                return self._containers[ref.uri].read(ref)
            return retried(lambda: self._whole(ref), ref.uri)
        except (FileNotFoundError, StorageError) as error:
            if isinstance(error, LastingError) and not isinstance(error, DeniedError):
                raise UnreadableImage(f"cannot be read: {_reason(error, ref)}") from error
            raise UnreachableImage(one_line(error)) from error

    def _whole(self, ref: ImageRef) -> bytes:
        data = self._files.read(ref.uri)
        if ref.size not in (None, len(data)):
            raise OSError(f"{len(data)} bytes, {ref.size} when it was listed: cut short, or replaced since")
        return data


def digest_of(data: bytes) -> str:
    """What tells the bytes of an image from others: 128 bits of BLAKE2b, in hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _container(files: Files, uri: str, refs: Sequence[ImageRef]) -> TarImages | ParquetImages:
    return ParquetImages(files, uri, refs) if refs[0].size is None else TarImages(files, uri)


def _reason(error: OSError, ref: ImageRef) -> str:
    return one_line(error).removeprefix(f"{ref.uri}: ").removesuffix(" (1 attempt)")

"""The bytes of images, from files of their own or from parts of tars and Parquet files."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from riemannopt_dist.images.files import Files, files_of, name_of
from riemannopt_dist.images.image_ref import ImageRef, UnreadableImage
from riemannopt_dist.images.parquet import ParquetImages
from riemannopt_dist.images.webdataset import TarImages
from riemannopt_dist.stores import LastingError, one_line, retried


class ImageReader:
    """Reads some images, each at most once and from any thread.

    A tar or Parquet file that holds several of them is opened once, and a row group read once. A context, at
    whose end all files are closed.
    """

    def __init__(self, files: Files, refs: Iterable[ImageRef]) -> None:
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

        Raises UnreadableImage if the fault is the image's (missing, no permission, damaged, or the reason in
        its ref); StorageError if its store did not answer.
        """
        if ref.reason is not None:
            raise UnreadableImage(ref.reason)
        try:
            if ref.offset is not None:
                return self._containers[ref.uri].read(ref)
            return retried(lambda: self._files.read(ref.uri), ref.uri)
        except (FileNotFoundError, LastingError) as error:
            reason = one_line(error).removeprefix(f"{ref.uri}: ").removesuffix(" (1 attempt)")
            raise UnreadableImage(f"cannot be read: {reason}") from error


def _container(files: Files, uri: str, refs: Sequence[ImageRef]) -> TarImages | ParquetImages:
    return ParquetImages(files, uri, refs) if refs[0].size is None else TarImages(files, uri)


def read_image(address: str) -> bytes:
    """The bytes of the file at a path or an s3://, gs:// or https:// address; raises as ImageReader does."""
    ref = ImageRef(address, name_of(address), None)
    with ImageReader(files_of(address), [ref]) as reader:
        return reader.read(ref)

"""A list of images, in CSV or Parquet: a column `uri`, and one of labels where it has them.

A uri is absolute, on a disk, at s3://, gs:// or https://, or the path from the folder that the list lies in.
Images in the list's own store are read with its credentials, others with those of the environment.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa

from riemannopt_dist.data.class_folders import Placed, placed
from riemannopt_dist.data.classes import class_index
from riemannopt_dist.data.files import Entry, Files, files_of, name_of, size_of
from riemannopt_dist.data.image_ref import ImageRef, shortened
from riemannopt_dist.storage.addresses import name_inside, parse_address, shown_path
from riemannopt_dist.storage.errors import retried
from riemannopt_dist.storage.redaction import URI, without_secrets

URI_COLUMN = "uri"
LABEL_COLUMN = "label"
SCHEMES = ("", "file", "s3", "gs", "http", "https")

Classes = Sequence[str] | int | None
"""The names of a model's own classes, or how many it has; None are those of ILSVRC."""


def list_csv(files: Files, uri: str, classes: Classes = None) -> list[Placed]:
    """The images of a CSV file with a line of columns' names.

    Raises ValueError for a file that is no such list.
    """
    text = retried(lambda: files.read(uri), uri).decode("utf-8-sig", "replace")
    try:
        # Strictly: an unclosed quote would take in all lines below it.
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = reader.fieldnames or ()
        if URI_COLUMN not in columns:
            raise ValueError(
                f"source: {uri}: expected a column {URI_COLUMN} and, for labels, {LABEL_COLUMN}; found "
                f"{shortened(columns) or 'none'}"
            )
        rows = [(row[URI_COLUMN], row.get(LABEL_COLUMN)) for row in reader]
    except csv.Error as error:
        raise ValueError(f"source: {uri}: not a CSV file: {error}") from None
    return listed_images(uri, rows, LABEL_COLUMN in columns, classes)


def listed_images(
    source: str, rows: Iterable[tuple[str | None, object]], has_labels: bool, classes: Classes = None
) -> list[Placed]:
    """The images of a list's rows, each a uri and a label, which counts where the list `has_labels`."""
    folder = source.rpartition("/")[0]
    return [_listed(folder, uri or "", label, has_labels, classes) for uri, label in rows]


def _listed(folder: str, uri: str, label: object, has_labels: bool, classes: Classes) -> Placed:
    index, reason = label_of(label, classes) if has_labels else (None, None)
    is_relative = not (URI.match(uri) or uri.startswith("/"))
    try:
        name = name_inside(folder, uri) if is_relative else _checked_name(uri)
    except ValueError as error:
        return Placed(ImageRef(image_id_of(without_secrets(uri)), without_secrets(uri), None, str(error)))
    if not uri:
        reason = "no uri in its row"
    size = None if URI.match(name) else size_of(Path(name))
    ref = ImageRef(image_id_of(shown_path(uri)), name, index, reason, size=size)
    return placed(ref, shown_path(folder), uri) if is_relative and not has_labels else Placed(ref)


def _checked_name(uri: str) -> str:
    """The name of an absolute uri. Raises ValueError for one of no image, or with more than a name."""
    address = parse_address(uri)
    if address.scheme not in SCHEMES:
        raise ValueError(f"expected a path, or s3://, gs:// or https://, got {address.scheme}://")
    if address.query or "@" in address.authority:
        raise ValueError("credentials or options in its uri: they are the list's, or from the environment")
    return address.name


def image_id_of(path: str) -> str:
    """An id that is a path inside of a folder, whatever a list or a data set calls an image."""
    parts = PurePosixPath(path.partition("://")[2] if URI.match(path) else path).parts
    return "/".join(part for part in parts if part not in ("/", "..")) or "?"


def label_of(label: object, classes: Classes) -> tuple[int | None, str | None]:
    """The class that a label means, or why it means none: an index, or a name of the model's classes.

    Of a model without classes of its own it is what `class_index` takes.
    """
    text = label.strip() if isinstance(label, str) else label
    if classes is None or text is None or text == "" or not isinstance(text, str) or text.isdecimal():
        return class_index(text or None if isinstance(text, str) else text)
    if not isinstance(classes, int) and text in classes:
        return list(classes).index(text), None
    return None, f"label {text[:40]!r} is no class of the model: name these in order in model.classes"


class ListedFiles:
    """The files of an image source, and those elsewhere that a list names. Can be pickled."""

    def __init__(self, own: Files, store: str) -> None:
        self._stores = {store: own}

    def read(self, name: str) -> bytes:
        """All of a file."""
        return self._of(name).read(name)

    def open(self, name: str) -> pa.NativeFile:
        """A file for reading parts of it, from any thread."""
        return self._of(name).open(name)

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of this name."""
        return self._of(name).is_folder(name)

    def entries(self, folder: str) -> Iterator[Entry]:
        """What a folder holds at any depth, hidden names left out."""
        return self._of(folder).entries(folder)

    def _of(self, name: str) -> Files:
        store = _store_of(name)
        if store not in self._stores:
            self._stores[store] = files_of(store)
        return self._stores[store]


def source_files(source: str) -> Files:
    """The files of an image source. Raises as `files_of` does."""
    return ListedFiles(files_of(source), _store_of(name_of(source)))


def _store_of(name: str) -> str:
    """The bucket or host that a name is in; "" of a local one."""
    parts = urlsplit(name) if URI.match(name) else None
    return "" if parts is None else f"{parts.scheme}://{parts.netloc}"

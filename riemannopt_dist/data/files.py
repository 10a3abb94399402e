"""Reading files by name: from a local disk, s3://, gs:// or https://.

An address may hold credentials and options; the name of a file never does, and is what tables and messages
show. A worker is given names, and the `Files` of their source to read them with.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from riemannopt_dist.data.web import WebFile
from riemannopt_dist.storage.addresses import Address, key_of, parse_address
from riemannopt_dist.storage.bucket_file import BucketFile
from riemannopt_dist.storage.errors import LastingError, retried
from riemannopt_dist.storage.redaction import one_line

LARGEST = 128 << 20
"""Bytes of a file that is read as a whole: more than a compressed image has that can be decoded."""


class Entry(NamedTuple):
    """What a folder holds: a path inside it, whether that is a folder itself, and a file's bytes if known."""

    path: str
    is_folder: bool
    size: int | None = None


class Files(Protocol):
    """The files of one store, by name. Can be pickled.

    Methods raise OSError: FileNotFoundError where nothing has the name, LastingError for what is not a file
    or too large to be read as a whole.
    """

    def read(self, name: str) -> bytes:
        """All of a file."""
        ...

    def open(self, name: str) -> pa.NativeFile:
        """A file for reading parts of it, from any thread."""
        ...

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of this name."""
        ...

    def entries(self, folder: str) -> Iterator[Entry]:
        """What a folder holds at any depth, hidden names left out."""
        ...


def files_of(address: str) -> Files:
    """The store that an address lies in, reached with the credentials and options in it.

    Raises ValueError for another kind of address, one that `parse_address` refuses or whose options Arrow's
    file systems refuse; StorageError if the store does not answer.
    """
    parsed = parse_address(address)
    match parsed.scheme:
        case "" | "file":
            return LocalFiles()
        case "s3" | "gs":
            return BucketFiles(parsed)
        case "http" | "https":
            return WebFiles(parsed.authority.rpartition("@")[0], parsed.query)
        case other:
            raise ValueError(
                f"expected a path or a file://, s3://, gs:// or https:// address, got {other}://"
            )


def name_of(address: str) -> str:
    """The name of the file or folder at an address; ValueError for one that `parse_address` refuses."""
    return parse_address(address).name


class LocalFiles:
    """Files on a disk that every worker sees."""

    def read(self, name: str) -> bytes:
        """All of a file."""
        path = self._file(name)
        check_size(path.stat().st_size)
        return path.read_bytes()

    def open(self, name: str) -> pa.NativeFile:
        """A file for reading parts of it."""
        return fs.LocalFileSystem().open_input_file(str(self._file(name)))

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of this name."""
        return Path(name).is_dir()

    def entries(self, folder: str) -> Iterator[Entry]:
        """What a folder holds; linked folders are followed, except back up."""

        def fail(error: OSError) -> None:
            raise ValueError(f"source: cannot list {error.filename!r}: {error.strerror}") from error

        for root, folders, files in os.walk(folder, onerror=fail, followlinks=True):
            here = Path(root).resolve()
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not here.is_relative_to((here / name).resolve())
            ]
            inside = Path(root).relative_to(folder)
            yield from (Entry((inside / name).as_posix(), True) for name in folders)
            for name in files:
                if not name.startswith("."):
                    yield Entry((inside / name).as_posix(), False, size_of(Path(root, name)))

    def _file(self, name: str) -> Path:
        path = Path(name)
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise LastingError("not a regular file")
        return path


class BucketFiles:
    """Objects in an object store."""

    def __init__(self, address: Address) -> None:
        try:
            self._file_system, _ = retried(lambda: fs.FileSystem.from_uri(address.bucket), address.name)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{address.name}: {one_line(error)} (a ? in a name is written %3F)") from None

    def read(self, name: str) -> bytes:
        """All of an object."""
        with self._opened(name) as file:
            check_size(file.size())
            return file.read()

    def open(self, name: str) -> pa.NativeFile:
        """An object for reading ranges of it."""
        return pa.PythonFile(self._opened(name), mode="r")

    def _opened(self, name: str) -> BucketFile:
        return BucketFile(self._file_system.open_input_file(key_of(name)))

    def is_folder(self, name: str) -> bool:
        """Whether objects lie below this name."""
        return bool(self._file_system.get_file_info(key_of(name)).type == fs.FileType.Directory)

    def entries(self, folder: str) -> Iterator[Entry]:
        """What lies below a prefix."""
        top = key_of(folder)
        for info in self._file_system.get_file_info(fs.FileSelector(top, recursive=True)):
            inside = info.path[len(top) :].lstrip("/")
            if not any(part.startswith(".") for part in inside.split("/")):
                is_folder = info.type == fs.FileType.Directory
                yield Entry(inside, is_folder, None if is_folder else info.size)


class WebFiles:
    """Files on web servers, which cannot be listed. `user` and `query` go to every address."""

    def __init__(self, user: str, query: str) -> None:
        self._user = user
        self._query = query

    def read(self, name: str) -> bytes:
        """All of a file."""
        with WebFile(self._address(name)) as file:
            check_size(file.size())
            return file.read()

    def open(self, name: str) -> pa.NativeFile:
        """A file for reading ranges of it."""
        return pa.PythonFile(WebFile(self._address(name)), mode="r")

    def is_folder(self, name: str) -> bool:
        """Never."""
        return False

    def entries(self, folder: str) -> Iterator[Entry]:
        """Nothing."""
        return iter(())

    def _address(self, name: str) -> str:
        parts = urlsplit(name)
        host = f"{self._user}@{parts.netloc}" if self._user else parts.netloc
        return parts._replace(netloc=host, query=self._query).geturl()


def check_length(read: int, expected: int) -> None:
    """Raise OSError for what was cut short."""
    if read != expected:
        raise OSError(f"{read} bytes of {expected}: cut short")


def size_of(path: Path) -> int | None:
    """Bytes in a file; None where that is not to be had now, or of what is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def check_size(size: int) -> None:
    """Raise LastingError for a file too large to be an image."""
    if size > LARGEST:
        raise LastingError(f"too large: {size} bytes")

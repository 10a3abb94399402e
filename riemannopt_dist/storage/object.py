"""Whole files in an object store, s3:// or gs://: an object is there when its upload is complete."""

import time
from contextlib import suppress
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

from riemannopt_dist.storage.bucket_file import BucketFile
from riemannopt_dist.storage.conditional import ConditionalWrites, Unsupported

SETTLING = 1.0
"""Seconds after which all who wanted to write a file at the same time have done so."""


class ObjectStore:
    """A root in an object store."""

    def __init__(self, file_system: fs.FileSystem, root: str, writes: ConditionalWrites | None) -> None:
        self._file_system = file_system
        self._root = PurePosixPath(root)
        self._writes = writes

    def write(self, name: str, data: bytes | bytearray) -> None:
        """Make `data` the content of `name`, at a stroke."""
        with self._file_system.open_output_stream(str(self._root / name), compression=None) as stream:
            stream.write(data)

    def read(self, name: str) -> bytes:
        """The content of `name`. Raises OSError where it was replaced meanwhile by more or less.

        Arrow asks for the size first and reads so many bytes then, of another object perhaps.
        """
        with self._opened(name) as file:
            data = file.read()
        if self._file_system.get_file_info(str(self._root / name)).size != len(data):
            raise OSError("it was replaced while it was read")
        return data

    def open(self, name: str) -> pa.NativeFile:
        """`name`, to be read in parts."""
        return pa.PythonFile(self._opened(name), mode="r")

    def _opened(self, name: str) -> BucketFile:
        return BucketFile(self._file_system.open_input_file(str(self._root / name)))

    def exists(self, name: str) -> bool:
        """Whether there is a file `name`."""
        return bool(self._file_system.get_file_info(str(self._root / name)).type == fs.FileType.File)

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file, unless there is one; whether it holds `data` now."""
        if self._writes is not None:
            with suppress(Unsupported):
                return self._writes.create(self._key(name), data)
        if not self.exists(name):  # it may be there from an attempt of this call that seemed to fail
            self.write(name, data)
            time.sleep(SETTLING)
        return self._holds(name, data)

    def replace(self, name: str, expected: bytes, data: bytes) -> bool:
        """Put `data` in the place of `expected`; whether the file holds `data` now."""
        if self._writes is not None:
            with suppress(Unsupported):
                return self._writes.replace(self._key(name), expected, data)
        if not self._holds(name, expected):
            return self._holds(name, data)
        self.write(name, data)
        return True

    def _key(self, name: str) -> str:
        """The object's key in its bucket."""
        return str(self._root / name).partition("/")[2]

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def delete(self, name: str) -> None:
        """Delete `name`, if it is there."""
        if self.exists(name):
            self._file_system.delete_file(str(self._root / name))

    def names(self, folder: str) -> list[str]:
        """Names of the files under `folder`, at any depth."""
        return list(self.times(folder))

    def times(self, folder: str) -> dict[str, float]:
        """The files under `folder` and when each was written, in seconds."""
        selector = fs.FileSelector(str(self._root / folder), recursive=True, allow_not_found=True)
        files = (info for info in self._file_system.get_file_info(selector) if info.type == fs.FileType.File)
        return {str(PurePosixPath(info.path).relative_to(self._root)): info.mtime_ns / 1e9 for info in files}

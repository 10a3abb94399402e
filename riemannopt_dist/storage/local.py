"""Whole files in a local folder: written beside, flushed to the disk, and renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa


class Folder:
    """A local root."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        for path in (self._root, *self._root.parents):
            if path.is_file():
                raise ValueError(f"{path}: is a file, expected a folder")

    def write(self, name: str, data: bytes | bytearray) -> None:
        """Make `data` the content of `name`, at a stroke."""
        with self._temporary(name, data) as (temporary, path):
            temporary.replace(path)

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file, unless there is one; whether it holds `data` now."""
        with self._temporary(name, data) as (temporary, path):
            try:
                path.hardlink_to(temporary)
            except OSError:
                if path.exists():  # it may be from an attempt of this call that seemed to fail
                    return path.read_bytes() == data
                temporary.replace(path)  # no hard links here: as good as it can be done
        return True

    def replace(self, name: str, expected: bytes, data: bytes) -> bool:
        """Put `data` in the place of `expected`; whether it was there.

        A look and a renaming: between the two another process may do the same, and the last one stays.
        """
        path = self._path(name)
        if not path.is_file() or path.read_bytes() not in (expected, data):
            return False
        self.write(name, data)
        return True

    def delete(self, name: str) -> None:
        """Delete `name`, if it is there."""
        self._path(name).unlink(missing_ok=True)

    @contextmanager
    def _temporary(self, name: str, data: bytes | bytearray) -> Iterator[tuple[Path, Path]]:
        """A file beside `name` that holds `data`, safe on the disk, and the path that it is meant for."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary, path
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)

    def read(self, name: str) -> bytes:
        """The content of `name`."""
        return self._path(name).read_bytes()

    def open(self, name: str) -> pa.NativeFile:
        """`name`, to be read in parts."""
        return pa.OSFile(str(self._path(name)))

    def exists(self, name: str) -> bool:
        """Whether there is a file `name`."""
        return self._path(name).is_file()

    def names(self, folder: str) -> list[str]:
        """Names of the files under `folder`, at any depth."""
        names = []
        for parent, _, files in os.walk(self._path(folder), onerror=_raise_unless_missing):
            paths = (Path(parent, file) for file in files)
            names += [path.relative_to(self._root).as_posix() for path in paths if not path.is_symlink()]
        return names

    def times(self, folder: str) -> dict[str, float]:
        """The files under `folder` and when each was written, in seconds."""
        times = {}
        for name in self.names(folder):
            with suppress(FileNotFoundError):  # deleted since it was listed
                times[name] = (self._root / name).stat().st_mtime
        return times

    def _path(self, name: str) -> Path:
        path = self._root / name
        if not path.resolve().is_relative_to(self._root):
            raise ValueError(
                f"name: expected a file inside {self._root}, got {name!r}, which links out of it"
            )
        return path


def sync_folder(folder: Path) -> None:
    """Make a renaming last: it is the folder that records it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error

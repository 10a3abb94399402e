"""A file on a web server, read by ranges."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import requests

SECONDS = 60.0
"""How long a server may be silent."""


class WebFile(io.RawIOBase):
    """The file at an http:// or https:// address, which may hold a user and a password. Seekable.

    Raises OSError from any method: FileNotFoundError for 404 and 410, PermissionError for 401 and 403.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = requests.Session()
        self._position = 0
        self._size: int | None = None

    def size(self) -> int:
        """Bytes in the file."""
        if self._size is None:
            with self._answer({"Range": "bytes=0-0"}) as answer:
                # Content-Range: bytes 0-0/146515
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if answer.status_code == 416:
                    total = "0"
                if not total.isdecimal():
                    raise OSError("the server does not answer requests for a range of bytes")
                self._size = int(total)
        return self._size

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to `offset` from the beginning, from here or from the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (self.size() if start is None else start)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, all that are left by default."""
        left = max(0, self.size() - self._position)
        wanted = left if size < 0 else min(size, left)
        if wanted == 0:
            return b""
        last = self._position + wanted - 1
        with self._answer({"Range": f"bytes={self._position}-{last}"}) as answer:
            if answer.status_code != 206:
                raise OSError("the server does not answer requests for a range of bytes")
            data = answer.content
        if len(data) != wanted:
            raise OSError(f"{len(data)} bytes of {wanted}: cut short")
        self._position += len(data)
        return data

    def close(self) -> None:
        """Give the connection back."""
        self._session.close()
        super().close()

    @contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        # Ranges are of the file as it is, not of a compressed form.
        headers = {"Accept-Encoding": "identity", **headers}
        with self._session.get(self._address, headers=headers, timeout=SECONDS, stream=True) as answer:
            if answer.status_code in (404, 410):
                raise FileNotFoundError("no such file")
            if answer.status_code in (401, 403):
                raise PermissionError(f"{answer.status_code} {answer.reason}")
            if answer.status_code >= 400 and answer.status_code != 416:
                raise OSError(f"{answer.status_code} {answer.reason}")
            yield answer

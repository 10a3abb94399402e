"""A file that is read by ranges, wherever it lies."""

import io
from abc import ABC, abstractmethod


class RangedFile(io.RawIOBase, ABC):
    """A seekable file; what a kind of store has to say is its size, and the bytes of a range.

    Reading raises OSError where less comes than there is.
    """

    def __init__(self) -> None:
        self._position = 0

    @abstractmethod
    def size(self) -> int:
        """Bytes in the file."""

    @abstractmethod
    def _range(self, start: int, count: int) -> bytes:
        """All of the `count` bytes, at least one, from byte `start`."""

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
        length = left if size < 0 else min(size, left)
        if length == 0:
            return b""
        data = self._range(self._position, length)
        self._position += length
        return data

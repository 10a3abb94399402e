"""A file in an object store, read by ranges of which every byte has come.

Arrow's S3 client takes an answer whose body was cut short, with headers that match, for a whole one: what has
not come is whatever was in memory. So the last byte to be read is marked before. Where the mark is still
there, the range is read once more with another mark, as it may be that byte.
"""

import io

import pyarrow as pa

MARKS = (0xB7, 0x48)
"""Bytes that no file format ends a part with more often than with others."""


class BucketFile(io.RawIOBase):
    """An object opened by Arrow, seekable. Raises OSError where less is read than there is."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file
        self._position = 0

    def size(self) -> int:
        """Bytes in the file."""
        return int(self._file.size())

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
        data = bytearray(wanted)
        for mark in MARKS:
            if wanted:
                data[-1] = mark
                self._file.seek(self._position)
                self._file.readinto(data)
            if not wanted or data[-1] != mark:
                self._position += wanted
                return bytes(data)
        raise OSError(f"a range of {wanted} bytes was cut short")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

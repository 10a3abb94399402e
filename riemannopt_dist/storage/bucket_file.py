"""A file in an object store, read by ranges of which every byte has come.

Arrow's S3 client takes an answer whose body was cut short, with headers that match, for a whole one: what has
not come is whatever was in memory. So the last byte to be read is marked before. Where the mark is still
there, the range is read once more with another mark, as it may be that byte.
"""

import pyarrow as pa

from riemannopt_dist.storage.ranged_file import RangedFile

MARKS = (0xB7, 0x48)
"""Bytes that no file format ends a part with more often than with others."""


class BucketFile(RangedFile):
    """An object opened by Arrow."""

    def __init__(self, file: pa.NativeFile) -> None:
        super().__init__()
        self._file = file

    def size(self) -> int:
        """Bytes in the file."""
        return int(self._file.size())

    def _range(self, start: int, count: int) -> bytes:
        data = bytearray(count)
        for mark in MARKS:
            data[-1] = mark
            self._file.seek(start)
            self._file.readinto(data)
            if data[-1] != mark:
                return bytes(data)
        raise OSError(f"a range of {count} bytes was cut short")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

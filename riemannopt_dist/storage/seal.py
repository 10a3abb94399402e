"""The seal of a Parquet file: a digest of all its bytes, kept in its own footer.

Parquet's checksums are of pages, and cover neither their headers nor the footer, which names the columns. Of
a sealed file any bit that changes is noticed before anything in it is parsed. Other readers take the seal for
one more key of the file's metadata.
"""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

KEY = b"seal"
_MARK = b"riemannopt-sha256:"
_DIGITS = 64
_BLANK = b"0" * _DIGITS
_PARQUET = b"PAR1"
"""How a Parquet file begins and ends."""


class Broken(ValueError):
    """A file that is not as it was written; the message says how that is known."""


def sealed(table: pa.Table) -> bytearray:
    """`table` as a Parquet file with a seal."""
    sink = pa.BufferOutputStream()
    table = unmarked(table)
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({KEY: _MARK + _BLANK})
    data = bytearray(sink.getvalue())
    start = data.rfind(_MARK) + len(_MARK)
    data[start : start + _DIGITS] = _digest(data, start)
    return data


def check_seal(data: bytes) -> None:
    """Raise Broken unless `data` is a sealed file as it was written."""
    if not (data.startswith(_PARQUET) and data.endswith(_PARQUET)):
        raise Broken("not a Parquet file: cut off, or something else")
    start = data.rfind(_MARK) + len(_MARK)
    if start < len(_MARK):
        raise Broken("without the digest that a run writes: damaged, or written by something else")
    if data[start : start + _DIGITS] != _digest(data, start):
        raise Broken("damaged: its digest is not that of its content")


def unmarked(table: pa.Table) -> pa.Table:
    """`table` without the seal of the file that it was read from."""
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({key: value for key, value in metadata.items() if key != KEY})


def _digest(data: bytes | bytearray, start: int) -> bytes:
    """The digits for a seal whose digits begin at `start`: those of the file with noughts in their place."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(_BLANK)
    digest.update(view[start + _DIGITS :])
    return digest.hexdigest().encode()

"""Whole files under one root, a local folder, `s3://` or `gs://`: written once, at a stroke, and then listed.

A reader sees a file entire or not at all. Locally a file is written under a temporary name, flushed to the
disk and renamed; an object store makes an object visible when its upload is complete.
"""

import copy
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from riemannopt_dist.storage.addresses import parse_address
from riemannopt_dist.storage.conditional import ConditionalWrites
from riemannopt_dist.storage.errors import DamagedFile, retried
from riemannopt_dist.storage.local import Folder
from riemannopt_dist.storage.object import ObjectStore
from riemannopt_dist.storage.redaction import one_line, without_secrets
from riemannopt_dist.storage.seal import Broken, check_seal, sealed, unmarked

T = TypeVar("T")

# Components never begin with a dot: that excludes "." and ".." and keeps such names free for temporary files.
_COMPONENT = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
_NAME = re.compile(f"{_COMPONENT}(/{_COMPONENT})*")


Columns = Callable[[pa.Schema], Sequence[str]]
"""What chooses columns of a file: by the whole file's schema, once that is known to be as it was written."""


def only(*names: str) -> Columns:
    """Those of the names that are there."""
    return lambda schema: [name for name in names if name in schema.names]


class Storage:
    """Files by relative POSIX name under `root`, a path or a file://, s3:// or gs:// URI. Can be pickled.

    Of a URI the path is percent-decoded, see `parse_address`.

    Options of an object store come as the URI's query, as Arrow's file systems take them
    (`s3://bucket/runs?region=eu-west-1`), or from the environment (`AWS_ENDPOINT_URL`, …).

    Raises ValueError for a root of another kind, and for a local one that is a file or lies below one. Every
    method raises ValueError for a name that is absolute, holds an empty or hidden component (which
    includes "." and ".."), a backslash or a control character, or leads out of a local root through a
    symbolic link; StorageError if an error outlasts 5 attempts (see `patient`); FileNotFoundError where a
    file to be read is missing.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = without_secrets(str(root))
        self._place = retried(lambda: _place(str(root)), self.root)
        self._before: Callable[[], None] = _nothing
        self._patience = 0.0

    def __repr__(self) -> str:
        return f"Storage({self.root!r})"

    def guarded(self, check: Callable[[], None]) -> "Storage":
        """The same files; `check` is called before each is written or deleted, and may raise."""
        other = copy.copy(self)
        other._before = check
        return other

    def patient(self, seconds: float) -> "Storage":
        """The same files; where they do not answer, they are asked again for so long."""
        other = copy.copy(self)
        other._patience = seconds
        return other

    def uri(self, name: str) -> str:
        """`name` with its root, without credentials: for messages."""
        return f"{self.root.rstrip('/')}/{name}"

    def write_bytes(self, name: str, data: bytes | bytearray) -> None:
        """Make `data` the content of `name`, at a stroke; a file of that name is replaced."""
        _check(name)
        self._before()
        self._retried(lambda: self._place.write(name, data), name)

    def read_bytes(self, name: str) -> bytes:
        """The content of `name`."""
        _check(name)
        return self._retried(lambda: self._place.read(name), name)

    def exists(self, name: str) -> bool:
        """Whether there is a file `name`."""
        _check(name)
        return self._retried(lambda: self._place.exists(name), name)

    def list(self, folder: str = "") -> list[str]:
        """Names of the files under `folder` (all by default), at any depth, sorted; none if it is missing."""
        if folder:
            _check(folder)
        names = self._retried(lambda: self._place.names(folder), folder)
        return sorted(name for name in names if _NAME.fullmatch(name))

    def times(self, folder: str = "") -> dict[str, float]:
        """When each file that `list` names was last written, in seconds of Unix time."""
        if folder:
            _check(folder)
        times = self._retried(lambda: self._place.times(folder), folder)
        return {name: times[name] for name in sorted(times) if _NAME.fullmatch(name)}

    def create(self, name: str, data: bytes) -> bool:
        """Write `name` unless it is there; whether it now holds `data` because of this call.

        Exact on a local disk and on S3, whose uploads are conditional: of several writers one gets True. In a
        store without them it is a look, an upload and, `SETTLING` seconds later, a second look: of several
        writers the last one gets True, if none of them took longer than that from its look to its upload.
        Give each writer data of its own.
        """
        _check(name)
        self._before()
        return self._retried(lambda: self._place.create(name, data), name)

    def replace(self, name: str, expected: bytes, data: bytes) -> bool:
        """Put `data` in the place of a file that holds `expected`; whether it did, or holds `data` already.

        Exact on S3: of several writers one gets True. Elsewhere it is a look and a write, and the last of
        several writers stays. Give each writer data of its own.
        """
        _check(name)
        self._before()
        return self._retried(lambda: self._place.replace(name, expected, data), name)

    def delete(self, name: str) -> None:
        """Remove the file `name`, if it is there."""
        _check(name)
        self._before()
        self._retried(lambda: self._place.delete(name), name)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write `table` as one Parquet file, sealed."""
        self.write_bytes(name, sealed(table))

    def read_table(
        self, name: str, expected: Iterable[pa.Field] = (), columns: Columns | None = None
    ) -> pa.Table:
        """The table in the Parquet file `name`: all its columns, or those chosen by what its schema is.

        Raises DamagedFile if it is none, is not as it was written, or lacks an `expected` column. All of the
        file's bytes are checked, whatever is taken from them: decoding them is what takes time.
        """
        data = self.read_bytes(name)
        try:
            check_seal(data)
            # Without threads, which now and then abort a process that ends (apache/arrow#34314).
            with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
                schema = file.schema_arrow
                table = unmarked(file.read(columns=columns and columns(schema), use_threads=False))
        except Broken as error:
            raise DamagedFile(f"{self.uri(name)}: {error}") from None
        except (OSError, pa.ArrowException) as error:
            raise DamagedFile(f"{self.uri(name)}: not a Parquet file: {one_line(error)}") from error
        check_columns(schema, expected, self.uri(name))
        return table

    def read_schema(self, name: str) -> pa.Schema:
        """The schema of the Parquet file `name`, from the file's end alone; DamagedFile if it is none."""
        return self._footer(name, lambda footer: footer.schema.to_arrow_schema())

    def count_rows(self, name: str) -> int:
        """The rows of the Parquet file `name`, from the file's end alone; DamagedFile if it is none."""
        return self._footer(name, lambda footer: int(footer.num_rows))

    def _retried(self, operation: Callable[[], T], name: str) -> T:
        return retried(operation, self.uri(name), self._patience)

    def _footer(self, name: str, part: Callable[[pq.FileMetaData], T]) -> T:
        _check(name)
        try:
            with self._retried(lambda: self._place.open(name), name) as file:
                return self._retried(lambda: part(pq.read_metadata(file)), name)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DamagedFile(f"{self.uri(name)}: not a Parquet file: {one_line(error)}") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as JSON; ValueError if it holds NaN or infinity, which JSON lacks."""
        self.write_bytes(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode())

    def read_json(self, name: str) -> Any:
        """The value in the JSON file `name`; DamagedFile if it is none."""
        data = self.read_bytes(name)
        try:
            return json.loads(data)
        except ValueError as error:
            raise DamagedFile(f"{self.uri(name)}: not a JSON file: {one_line(error)}") from error


def check_columns(schema: pa.Schema, expected: Iterable[pa.Field], uri: str) -> None:
    """Raise DamagedFile, naming the file, for a schema that lacks an `expected` column."""
    for field in expected:
        place = schema.get_field_index(field.name)
        if place < 0 or schema.field(place).type != field.type:
            column = f"a column {field.name}" if place < 0 else f"{field.type} in its column {field.name}"
            raise DamagedFile(f"{uri}: not that of a run (expected {column})")


def _place(root: str) -> Folder | ObjectStore:
    try:
        address = parse_address(root)
    except ValueError as error:
        raise ValueError(f"root: {error}") from None
    if address.scheme not in ("", "file", "s3", "gs") or not root:
        raise ValueError(
            f"root: expected a path or a file://, s3:// or gs:// URI, got {without_secrets(root)!r}"
        )
    if address.scheme in ("", "file"):
        return Folder(address.local)
    if address.scheme == "s3" and "allow_delayed_open" not in address.query:
        options = [address.query, "allow_delayed_open=true"]  # with it, a small file is one PUT
        address = replace(address, query="&".join(filter(None, options)))
    try:
        file_system, _ = fs.FileSystem.from_uri(address.bucket)
    except pa.ArrowInvalid as error:
        shown = f"{without_secrets(root)}: {one_line(error)}"
        raise ValueError(f"root: {shown} (a ? in a name is written %3F)") from None
    writes = ConditionalWrites(address, file_system.region) if address.scheme == "s3" else None
    return ObjectStore(file_system, address.key, writes)


def _nothing() -> None:
    """What is called before a write that nothing guards."""


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: expected a relative POSIX path without hidden components, got {name!r}")

"""Values that a table carries in its metadata, as JSON objects: a dataclass under a key of its own."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def noted(table: pa.Table, key: bytes, value: "DataclassInstance") -> pa.Table:
    """`table` with the fields of `value` in its metadata."""
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({**metadata, key: json.dumps(asdict(value)).encode()})


def note_of(schema: pa.Schema, key: bytes, kind: type[T]) -> T | None:
    """The value of a table with this schema, None where it carries none that can be read."""
    try:
        fields: dict[str, Any] = json.loads((schema.metadata or {})[key])
        return kind(**fields)
    except (KeyError, TypeError, ValueError):
        return None

"""What a stage of a run is: a value that turns the items of a shard into rows.

A stage knows neither Ray nor files. Its rows go, shard by shard, to a folder of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from riemannopt_dist.run.stages.engine import Engine

Row = dict[str, Any]


class Stage(Protocol):
    """What is done to the items of one shard."""

    @property
    def name(self) -> str:
        """The folder of its shards."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows."""
        ...

    @property
    def rows_an_image(self) -> int:
        """Rows of every image that went through."""
        ...

    def rows(self, engine: Engine, items: Sequence[Any]) -> Iterator[Row]:
        """The rows of `items`, in order. An item that raises is found and left out by the caller."""
        ...


def as_table(stage: Stage, rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of the stage's schema."""
    return pa.Table.from_pylist(list(rows), schema=stage.schema)

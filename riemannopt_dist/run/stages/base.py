"""What a stage of a run is: a value that turns the items of a shard into rows.

A stage knows neither Ray nor files. Its rows go, shard by shard, to a folder of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import pyarrow as pa

if TYPE_CHECKING:
    from riemannopt_dist.run.stages.engine import Engine

Row = dict[str, Any]
Part = tuple[Any, ...]
"""What tells a row of an image from its others: its cell, or its path."""

SHARD = "SHARD"
"""What stands for the shard in the names of `engine.tables`."""


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
    def key(self) -> tuple[str, ...]:
        """The columns that hold a row's part."""
        ...

    @property
    def parts(self) -> Sequence[Part]:
        """The parts of every image that went through, a row each."""
        ...

    def kept(self, fingerprint: str) -> Container[Part]:
        """The parts whose rows stay that were made under one of the run's fingerprints."""
        ...

    def only(self, parts: Iterable[Part]) -> Self:
        """The stage for some of its parts."""
        ...

    def rows(self, engine: Engine, items: Sequence[Any]) -> Iterator[Row]:
        """The rows of `items`, in order. An item that raises is found and left out by the caller.

        Tables for other files than the shard's go to `engine.tables`, by their names without the shard's.
        """
        ...


@runtime_checkable
class Beside(Protocol):
    """A stage that makes files beside the shards of its rows, which are written before them."""

    def files(self, shard: str, image_ids: Collection[str]) -> Mapping[str, frozenset[str]]:
        """The files of a shard with such images, and the ids of those that are in each."""
        ...


def files_beside(stage: Stage, shard: str, image_ids: Collection[str]) -> Mapping[str, frozenset[str]]:
    """The files that a stage makes beside a shard of its rows, with the ids of the images in each."""
    return stage.files(shard, image_ids) if isinstance(stage, Beside) else {}


def as_table(stage: Stage, rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of the stage's schema."""
    return pa.Table.from_pylist(list(rows), schema=stage.schema)

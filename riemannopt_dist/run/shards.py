"""The shards that the images of a run are done in: from its numbers alone.

A row group of a Parquet file can only be read from its beginning. So the images of one come together: in a
single shard, or in shards that hold nothing else, which go to one worker, one after the other.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Location(NamedTuple):
    """Where an image lies in a Parquet file."""

    uri: str
    group: int
    row: int


@dataclass(frozen=True)
class Piece(Generic[T]):
    """An item, and the key of its shard."""

    shard: str
    item: T


def location_of(fields: Mapping[str, Any]) -> Location | None:
    """Where the image of a row of listing.parquet or images.parquet lies, None if not in Parquet."""
    return None if fields["group"] is None else Location(fields["uri"], fields["group"], fields["offset"])


def nowhere(item: object) -> None:
    """The location of what lies in no Parquet file."""


def shards_of(
    items: Sequence[T],
    size: int,
    located: Callable[[T], Location | None] = nowhere,
    cuts: Iterable[int] = (),
) -> dict[str, Sequence[T]]:
    """The items of every shard, by its key. Both depend on the arguments alone.

    The order of the items is kept, but for those of a row group, which come with the first of them, by rows.
    A shard has `size` items, or less where a row group is not to be divided. None has items of both sides of
    a cut, which is a count of items: with more items after the last cut, the shards before it stay.
    """
    edges = [0, *sorted(cuts), len(items)]
    parts = (_filled(items[start:end], size, located) for start, end in pairwise(edges))
    return {f"shard-{n:05}": shard for n, shard in enumerate(chain.from_iterable(parts))}


def runs_of(
    shards: Mapping[str, Sequence[T]], most: int, located: Callable[[T], Location | None] = nowhere
) -> Iterator[tuple[Piece[T], ...]]:
    """Shards as they go to workers: alone, or with others of the same row group, of at most `most` items."""
    run: list[Piece[T]] = []
    last: object = None
    for key, items in shards.items():
        groups = {None if (place := located(item)) is None else place[:2] for item in items}
        (group,) = groups if len(groups) == 1 else (None,)
        if run and (group is None or group != last or len(run) + len(items) > most):
            yield tuple(run)
            run = []
        run += [Piece(key, item) for item in items]
        last = group
    if run:
        yield tuple(run)


def _filled(items: Sequence[T], size: int, located: Callable[[T], Location | None]) -> list[list[T]]:
    """The shards of items, full one after the other."""
    shards: list[list[T]] = [[]]
    for group in _groups(items, located):
        if len(group) > size:
            shards += [*_divided(group, size), []]
            continue
        if len(shards[-1]) + len(group) > size:
            shards.append([])
        shards[-1] += group
    return [shard for shard in shards if shard]


def _groups(items: Sequence[T], located: Callable[[T], Location | None]) -> Iterator[list[T]]:
    """Items of one row group together, by rows; others alone. In the order of the first of each."""
    groups: dict[Hashable, list[tuple[int, T]]] = {}
    for place, item in enumerate(items):
        location = located(item)
        key, row = (place, 0) if location is None else (location[:2], location.row)
        groups.setdefault(key, []).append((row, item))
    for group in groups.values():
        yield [item for _, item in sorted(group, key=lambda pair: pair[0])]


def _divided(group: list[T], size: int) -> Iterator[list[T]]:
    """As few parts as there can be, nearly equal in size."""
    count = math.ceil(len(group) / size)
    edges = [len(group) * n // count for n in range(count + 1)]
    return (group[start:end] for start, end in pairwise(edges))

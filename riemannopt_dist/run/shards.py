"""The order in which images are drawn, and the shards they are done in: from a run's numbers alone."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def drawn_order(ids: Sequence[str], seed: int) -> list[str]:
    """All of `ids`, in an order that depends on them and the seed alone."""
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(ids))]


def drawn_images(images: Sequence[Mapping[str, Any]], seed: int) -> list[str]:
    """The ids of the images selected among rows of images.parquet, as they are drawn: one draw after another.

    All belong to the first draw but those that were out of reach then.
    """
    draws: dict[int, list[str]] = {}
    for row in images:
        if row["selected"]:
            draws.setdefault(row.get("draw") or 0, []).append(row["image_id"])
    return list(chain.from_iterable(drawn_order(draws[number], seed) for number in sorted(draws)))


def shards_of(items: Sequence[T], size: int) -> dict[str, Sequence[T]]:
    """The items of every shard, by its key. Both depend on the items and the size alone."""
    return {f"shard-{n // size:05}": items[n : n + size] for n in range(0, len(items), size)}

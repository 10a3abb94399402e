"""The order in which images are drawn, and the shards they are done in: from a run's numbers alone."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def drawn_order(ids: Sequence[str], seed: int) -> list[str]:
    """All of `ids`, in an order that depends on them and the seed alone."""
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(ids))]


def shards_of(items: Sequence[T], size: int) -> dict[str, Sequence[T]]:
    """The items of every shard, by its key. Both depend on the items and the size alone."""
    return {f"shard-{n // size:05}": items[n : n + size] for n in range(0, len(items), size)}

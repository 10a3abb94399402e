"""The draw of a run: the images that it fits on and those that it evaluates, from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from riemannopt_dist.storage.redaction import without_secrets

if TYPE_CHECKING:  # workers, which need no schemas, are spared them
    from riemannopt_dist.run.config.config import Config

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


def divided(order: Sequence[T], fit: int, limit: int | None) -> tuple[Sequence[T], Sequence[T]]:
    """Of images in the order of their draw the first `fit`, fitted on, and the next `limit`, evaluated."""
    return order[:fit], order[fit:][:limit]


def evaluated_ids(images: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Sequence[str]:
    """The ids evaluated of rows of images.parquet, as drawn, in a run of `config` as run.json has it."""
    return divided(drawn_images(images, config["seed"]), config["fit"]["images"], config["limit"])[1]


def draw(images: Sequence[Mapping[str, Any]], config: Config) -> tuple[Sequence[str], Sequence[str]]:
    """Of rows of images.parquet the ids fitted on and those evaluated, drawn without replacement.

    Errors are those of `check_enough`.
    """
    order = drawn_images(images, config.seed)
    check_enough(order, config, " (images.parquet says why)")
    return divided(order, config.fit.images, config.limit)


def check_enough(usable: Sized, config: Config, told: str = "") -> None:
    """Raise ValueError for too few images to fit on and evaluate one; `told` is where the others are told."""
    if len(usable) <= config.fit.images:
        raise ValueError(
            f"fit.images: {config.fit.images} images to fit on and at least one to evaluate were asked for, "
            f"only {len(usable)} of {without_secrets(config.images)} can be used{told}"
        )

"""What became of a run's inputs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

IMAGES = "images.parquet"
SELECTION = "selection"
"""The stage that looks at every input."""

BY_CLASS: Mapping[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "correct": ("of another class to the model", pc.not_equal),
    "wrong": ("of the label's class to the model", pc.equal),
}
"""Which images a configuration's `select` leaves out: what they are, by their label and their prediction."""


def inputs_sentence(images: pa.Table, select: str, failed: Collection[str] = ()) -> str:
    """How many inputs are in images.parquet, how many are usable, and how many left out for what.

    `select` is the configuration's, `failed` are those given up on in the selection.
    """
    used = pc.sum(images["selected"]).as_py() or 0
    reasons = left_out(images, select, failed)
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    count = f"{len(images):,} input{'' if len(images) == 1 else 's'}"
    return f"{count}, {used:,} usable, " + (
        f"{sum(reasons.values()):,} left out ({told})" if told else "none left out"
    )


def left_out(images: pa.Table, select: str, failed: Collection[str] = ()) -> dict[str, int]:
    """How many images of images.parquet are not used, by their reason, without those that `failed`."""
    unused = pc.and_(pc.invert(images["selected"]), pc.is_null(images["error"]))
    reasons = {"unreadable or without a valid label": _count(unreadable(images, failed))}
    by_class = 0
    if select in BY_CLASS:
        words, compared = BY_CLASS[select]
        by_class = reasons[words] = _count(pc.and_(unused, compared(images["label"], images["prediction"])))
    return {**reasons, "below min_probability": _count(unused) - by_class}


def unreadable(images: pa.Table, failed: Collection[str]) -> pa.ChunkedArray:
    """Which images have an error of their own: not that for which they were given up on."""
    given_up = pc.is_in(images["image_id"], pa.array([*failed], images["image_id"].type))
    return pc.and_(pc.is_valid(images["error"]), pc.invert(given_up))


def failed_in_selection(failures: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The images that the selection gave up on, of rows of failures.parquet."""
    return frozenset(row["image_id"] for row in failures if row["stage"] == SELECTION)


def _count(chosen: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.fill_null(chosen, False)).as_py() or 0)

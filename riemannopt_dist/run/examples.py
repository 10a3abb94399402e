"""Images to be explained, each with its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from riemannopt_dist.choices import Framing, Targets
from riemannopt_dist.data.boxes import Box, BoxedImage, boxes_of, read_boxed_image
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.run.draw import draw
from riemannopt_dist.run.shards import Location, location_of
from riemannopt_dist.run.targets import target_of

if TYPE_CHECKING:  # workers, which need neither, are spared the schemas
    from riemannopt_dist.run.config.config import Config

# What images.parquet keeps of an ImageRef.
KNOWN = ("image_id", "uri", "offset", "size", "group", "label", "digest")


@dataclass(frozen=True)
class Example:
    """An image to be explained: where it is, its label where it has one, and the class explained.

    `boxed` are the boxes of the objects in it, where they are known and asked for.
    """

    image: ImageRef
    target: int
    boxed: BoxedImage | None = None

    def framed_boxes(self, framing: Framing) -> Sequence[Box] | None:
        """The boxes as the image is framed, None where they are not known."""
        return None if self.boxed is None else self.boxed.prepared(*framing[:2])


def image_of(item: ImageRef | Example) -> ImageRef:
    """The image of an item of a stage."""
    return item if isinstance(item, ImageRef) else item.image


def located(item: ImageRef | Example) -> Location | None:
    """Where an item of a stage lies in a Parquet file, None if in none."""
    return location_of(vars(image_of(item)))


def evaluated_examples(images: Sequence[dict[str, Any]], config: Config) -> list[Example]:
    """The examples to evaluate, in the order in which they were drawn."""
    by_id = {row["image_id"]: row for row in images if row["selected"]}
    _, chosen = draw(images, config)
    return [example_of(by_id[image_id], config.targets) for image_id in chosen]


def with_boxes(examples: Sequence[Example], config: Config) -> list[Example]:
    """The examples with their boxes, where a metric needs them. Errors are those of `boxes_of`."""
    if config.boxes is None or not any(METRICS[name].needs_boxes for name in config.metrics):
        return [*examples]
    files = boxes_of(config.boxes.folder, [example.image.image_id for example in examples])
    boxes = {image_id: read_boxed_image(file) for image_id, file in files.items()}
    return [replace(example, boxed=boxes.get(example.image.image_id)) for example in examples]


def example_of(row: dict[str, Any], targets: Targets) -> Example:
    """The example of a row of images.parquet; without a label its target is the prediction, unless told."""
    known: dict[str, Any] = {key: row.get(key) for key in KNOWN}
    return Example(ImageRef(**known), target_of(row, targets))

"""The images of a run with their labels, as the driver lists them."""

from collections.abc import Iterable, Sequence

from riemannopt_dist.data.boxes import boxes_of
from riemannopt_dist.data.classes import CLASSES
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.run.config.config import Config


def labelled_images(config: Config, classes: int, names: Sequence[str] | None = None) -> list[ImageRef]:
    """The images of a run of a model of so many classes, called `names`, with their labels.

    Raises ValueError for a label that the model lacks, names of other classes than it has, and boxes of other
    images.
    """
    if names is not None and len(names) != classes:
        raise ValueError(f"model.classes: expected the names of {classes} classes, got {len(names)}")
    is_named = names is not None and (classes != CLASSES or config.model.classes is not None)
    own = None if classes == CLASSES else classes
    refs = list_images(config.images, config.labels, config.image_extensions, names if is_named else own)
    check_labels(refs, classes)
    if config.boxes is not None:
        boxes_of(config.boxes.folder, [ref.image_id for ref in refs])
    return refs


def check_labels(refs: Iterable[ImageRef], classes: int) -> None:
    """Raise ValueError for a label that is none of the model's classes, 0 … classes − 1."""
    for ref in refs:
        if ref.label is not None and ref.label >= classes:
            raise ValueError(
                f"labels: {ref.image_id!r} has class {ref.label}, the model's are 0 to {classes - 1}: "
                "expected a model of the classes that the labels name, or the names of its classes, in their "
                "order, in model.classes"
            )

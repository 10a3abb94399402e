"""Labels from the folders that images lie in, on a disk, in a bucket or in a tar; and which have none."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from riemannopt_dist.data.classes import SYNSET, named_class
from riemannopt_dist.data.image_ref import SUFFIXES, ImageRef, shortened

logger = logging.getLogger(__name__)

_INDEX = re.compile(r"0|[1-9]\d{0,2}|\d{3}")


@dataclass(frozen=True)
class Placed:
    """An input with the folders it lies in, outermost first: those above its source or tar, and inside.

    The first inside is the source or tar itself. A row of a Parquet file lies in none; `note` says why it has
    no label, where there is more to say, and `name` what its data set calls it.
    """

    ref: ImageRef
    above: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    note: str | None = None
    name: str | None = None

    @property
    def unlabelled(self) -> bool:
        """Whether it is a picture that can be used and has no label."""
        ref = self.ref
        is_picture = ref.offset is not None or ref.image_id.lower().endswith(SUFFIXES)
        return is_picture and ref.label is None and ref.reason is None

    @property
    def folder(self) -> str:
        """Its folder inside the source or tar, "" if it lies in none."""
        return "/".join(self.inside[1:])


def placed(ref: ImageRef, source: str, path: str) -> Placed:
    """An input at `path` inside a folder or tar `source`."""
    *above, own = source.split("/")
    return Placed(ref, tuple(above), (own, *path.split("/")[:-1]))


def labelled_by_folders(
    images: Sequence[Placed], source: str, classes: Sequence[str] | int | None = None
) -> list[ImageRef]:
    """The inputs, those without a label with that of their folders; a warning tells which have none then.

    `classes` are the names of a model's own classes, or how many it has; None are those of ILSVRC. Raises
    ValueError for folders that are numbers, as many as the model's own classes, which sort otherwise as text.
    """
    labelled = _labelled(images, source, classes)
    missing = [image for image in labelled if image.unlabelled]
    labels = sum(image.ref.label is not None for image in labelled)
    if missing and (labels or missing[0].folder or missing[0].ref.offset is not None):
        _warn(missing, labels, source, classes)
    return [image.ref for image in labelled]


def _labelled(images: Sequence[Placed], source: str, classes: Sequence[str] | int | None) -> Sequence[Placed]:
    if classes is not None and not isinstance(classes, int):
        return [_with_class(image, classes) for image in images]
    if classes is not None and all(image.ref.label is None for image in images):
        ranked = _with_sorted_folders(images, source, classes)
        if ranked is not None:
            return ranked
    by_synset = [_with_synset(image) for image in images]
    is_any = any(image.ref.label is not None for image in by_synset)
    return by_synset if is_any else _with_numbers(by_synset, source)


def _with_class(image: Placed, classes: Sequence[str]) -> Placed:
    """With the class of the nearest folder of its name."""
    if image.ref.label is not None or image.ref.reason is not None:
        return image
    own = next((folder for folder in reversed(image.inside[1:]) if folder in classes), None)
    return image if own is None else _with_label(image, list(classes).index(own))


def _with_sorted_folders(images: Sequence[Placed], source: str, classes: int) -> list[Placed] | None:
    """With the ranks of the folders that pictures lie in, as torchvision's ImageFolder has them.

    None unless all pictures lie in such, as many as there are classes. They are the outermost ones, or those
    named by a number. Raises ValueError where the order of numbers is another than that of their texts.
    """
    pictures = [image for image in images if image.unlabelled]
    if not all(image.folder for image in pictures):
        return None
    numbers = _numbers(pictures)
    own: dict[str, str] = numbers or {image.ref.image_id: image.inside[1] for image in pictures}
    folders = sorted({*own.values()})
    if len(folders) != classes:
        return None
    if numbers:
        _check_order(folders, source)
    logger.warning(
        "%s: folders %s are taken as the model's classes, in this order; else name them in order "
        "in model.classes",
        source,
        shortened(f"{rank} = {folder}" for rank, folder in enumerate(folders)),
    )
    ranks = {image_id: folders.index(folder) for image_id, folder in own.items()}
    return [_with_label(image, ranks.get(image.ref.image_id)) for image in images]


def _check_order(folders: list[str], source: str) -> None:
    """Raise ValueError where the order of numbers is another than that of their texts, which are sorted."""
    by_number = sorted(folders, key=int)
    if by_number != folders:
        raise ValueError(
            f"source: {source}: folders {shortened(by_number)} may be the model's classes in this order, or "
            f"in that of their texts, which torchvision's ImageFolder gives them ({shortened(folders)}): "
            "name them in the model's order in model.classes"
        )


def _with_synset(image: Placed) -> Placed:
    """With the class of the nearest folder named by a synset, n01440764 or n02085620-Chihuahua.

    Another synset than ILSVRC's 1,000 is the reason why the image cannot be used, above its source nothing.
    """
    if image.ref.label is not None or image.ref.reason is not None:
        return image
    for folder in reversed(image.inside):
        if (index := _synset_index(folder)) is not None:
            return _with_label(image, index)
        if SYNSET.fullmatch(folder):
            reason = f"folder {folder} is not one of the 1,000 ILSVRC synsets"
            return replace(image, ref=replace(image.ref, reason=reason))
    above = (_synset_index(folder) for folder in reversed(image.above) if SYNSET.fullmatch(folder))
    index = next((index for index in above if index is not None), None)
    return image if index is None else _with_label(image, index)


def _synset_index(folder: str) -> int | None:
    return named_class(folder) if SYNSET.match(folder) else None


def _with_numbers(images: Sequence[Placed], source: str) -> Sequence[Placed]:
    """With the class indices that name folders, from 0 to 999, if all pictures in folders lie in one such."""
    numbers = _numbers([image for image in images if image.unlabelled and image.folder])
    if not numbers:
        return images
    labels = {image_id: int(folder) for image_id, folder in numbers.items()}
    logger.warning(
        "%s: folders %s are taken as class indices; else name the model's classes in order in model.classes",
        source,
        shortened(sorted({*labels.values()})),
    )
    return [_with_label(image, labels.get(image.ref.image_id)) for image in images]


def _numbers(pictures: Sequence[Placed]) -> dict[str, str]:
    """The folder, named by a number, that each picture lies in, by its id; none unless each is in one."""
    found = {
        image.ref.image_id: [folder for folder in image.inside[1:] if _INDEX.fullmatch(folder)]
        for image in pictures
    }
    if any(len(folders) != 1 for folders in found.values()):
        return {}
    return {image_id: folders[0] for image_id, folders in found.items()}


def _with_label(image: Placed, label: int | None) -> Placed:
    return image if label is None else replace(image, ref=replace(image.ref, label=label))


def _warn(missing: Sequence[Placed], labels: int, source: str, classes: Sequence[str] | int | None) -> None:
    """Tell what is without a label while `given` others have one, and the mend."""
    first = missing[0]
    some = f" for {len(missing)} of {len(missing) + labels} images, such as {first.ref.image_id}"
    folders = shortened(sorted({image.folder for image in missing} - {""}))
    if first.note is not None:
        mend = first.note
    elif folders and classes is not None:
        count = classes if isinstance(classes, int) else len(classes)
        mend = (
            f"folders {folders} are not those of the model's {count} classes: name these in order, as the "
            "folders are called, in model.classes"
        )
    elif folders:
        mend = (
            f"folders {folders}: expected WordNet ids such as n01440764, or for all class indices from 0 to "
            "999; rename them, or give labels in a file, see --labels, or the model's own in model.classes"
        )
    elif first.ref.offset is not None and first.ref.size is None:
        mend = "expected a column label with class indices, synsets or ILSVRC's class names"
    else:
        mend = "expected folders named by WordNet ids, in a tar a .cls for each, or a file, see --labels"
    which = some if labels else ""
    logger.warning("%s has no labels%s: whatever class the model sees is explained (%s)", source, which, mend)

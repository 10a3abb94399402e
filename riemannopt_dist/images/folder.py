"""A folder of image files: a folder a synset, or flat."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from riemannopt_dist.addresses import name_inside, shown_path
from riemannopt_dist.images.image_ref import SUFFIXES, ImageRef
from riemannopt_dist.images.labels import SYNSET, class_index


def list_folder(folder: str, entries: Iterable[tuple[str, bool]]) -> Iterator[ImageRef]:
    """Every file among the entries of `folder`, and with a reason every folder named like an image."""
    for path, is_folder in entries:
        uri = name_inside(folder, path)
        if is_folder:
            if path.lower().endswith(SUFFIXES):
                yield ImageRef(path, uri, None, "a folder, not a file")
            continue
        label, reason = _synset_label(PurePosixPath(f"{shown_path(folder)}/{path}").parent.name)
        yield ImageRef(path, uri, label, reason)


def _synset_label(folder: str) -> tuple[int | None, str | None]:
    if not SYNSET.fullmatch(folder):
        return None, None
    label, _ = class_index(folder)
    return label, None if label is not None else f"folder {folder} is not one of the 1,000 ILSVRC synsets"

"""A folder of image files."""

from collections.abc import Iterable, Iterator

from riemannopt_dist.addresses import name_inside
from riemannopt_dist.images.files import Entry
from riemannopt_dist.images.image_ref import SUFFIXES, ImageRef


def list_folder(folder: str, entries: Iterable[Entry]) -> Iterator[ImageRef]:
    """Every file among the entries of `folder`, and with a reason every folder named like an image."""
    for path, is_folder, size in entries:
        if not is_folder:
            yield ImageRef(path, name_inside(folder, path), None, size=size)
        elif path.lower().endswith(SUFFIXES):
            yield ImageRef(path, name_inside(folder, path), None, "a folder, not a file")

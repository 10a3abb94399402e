"""A folder of image files."""

from collections.abc import Iterable, Iterator

from riemannopt_dist.data.files import Entry
from riemannopt_dist.data.image_ref import SUFFIXES, ImageRef
from riemannopt_dist.storage.addresses import name_inside


def list_folder(folder: str, entries: Iterable[Entry]) -> Iterator[ImageRef]:
    """Every file among the entries of `folder`, and with a reason every folder named like an image."""
    for path, is_folder, size in entries:
        if not is_folder:
            yield ImageRef(path, name_inside(folder, path), None, size=size)
        elif path.lower().endswith(SUFFIXES):
            yield ImageRef(path, name_inside(folder, path), None, "a folder, not a file")

"""The images of a source: what is there, in which order, under which names."""

import importlib.util
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from riemannopt_dist.addresses import name_inside, shown_path
from riemannopt_dist.images.files import Files, files_of, name_of
from riemannopt_dist.images.folder import list_folder
from riemannopt_dist.images.image_ref import SUFFIXES, ImageRef, storable
from riemannopt_dist.images.labels import with_labels
from riemannopt_dist.images.parquet import list_parquet
from riemannopt_dist.images.webdataset import list_tar
from riemannopt_dist.stores import one_line, retried, without_secrets

logger = logging.getLogger(__name__)

CONTAINERS = {".parquet": list_parquet, ".tar": list_tar}
AT_ONCE = 16
"""Containers listed at a time."""


def list_images(source: str, labels: str | None = None) -> list[ImageRef]:
    """The images of `source`, sorted by id.

    A source is a path or an s3:// or gs:// address, or for the second kind also https://, of

    - a folder: every file in it, at any depth, but hidden ones. The id is the path inside the folder. A file
      whose own folder is named after a synset (n01440764) has that synset's rank among all 1,000 of ILSVRC
      as its label, others have none. Files that are not images are listed too: decoding gives the reason;
    - a .parquet or .tar file, a folder of them, or several as data-{000..127}.tar: Parquet with a column of
      image files and one of labels, or a WebDataset. Ids are file/row and file/member;
    - `demo:` the colour photos that come with scikit-image, without labels.

    `labels` is the address of a file that labels the images by their file names, see `read_labels`. Raises
    ValueError where there is no such source, nothing in it, or no column of images; OSError where its store
    does not answer.
    """
    shown = without_secrets(source)
    try:
        refs = sorted(map(storable, _refs(source)), key=lambda ref: ref.image_id)
    except FileNotFoundError as error:
        raise ValueError(f"source: {one_line(error)}") from None
    if not refs:
        raise ValueError(f"source: no files in {shown!r}")
    for one, other in itertools.pairwise(refs):
        if one.image_id == other.image_id:
            raise ValueError(f"source: two files of {shown!r} share the id {one.image_id!r}")
    if labels is not None:
        return with_labels(refs, labels)
    if refs[0].offset is not None and all(ref.label is None for ref in refs):
        logger.warning("%s has no labels: whatever class the model sees is explained", shown)
    return refs


def _refs(source: str) -> Iterable[ImageRef]:
    if source == "demo:":
        return _demo()
    addresses = expanded(source)
    try:
        files, names = files_of(addresses[0]), [name_of(address) for address in addresses]
    except ValueError as error:
        raise ValueError(f"source: {error}") from None
    if len(names) == 1 and retried(lambda: files.is_folder(names[0]), names[0]):
        return _folder(files, names[0])
    strange = [name for name in names if _suffix(name) not in CONTAINERS]
    if strange:
        raise ValueError(f"source: no folder {strange[0]!r} (nor a .parquet or .tar file)")
    # Ids begin where the names begin to differ, at the last folder that all share.
    paths = [shown_path(name).split("/") for name in names]
    levels = zip(*(path[:-1] for path in paths), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    prefixes = ["/".join(path[shared:]) for path in paths]
    return _containers(files, list(zip(names, prefixes, strict=True)))


def _folder(files: Files, folder: str) -> Iterable[ImageRef]:
    """The files of a folder, or what is in its Parquet files and tars."""
    entries = retried(lambda: list(files.entries(folder)), folder)
    inside = [path for path, is_folder in entries if not is_folder and _suffix(path) in CONTAINERS]
    if not inside:
        return list_folder(folder, entries)
    image = next(
        (path for path, is_folder in entries if not is_folder and path.lower().endswith(SUFFIXES)), None
    )
    if image is not None:
        raise ValueError(
            f"source: {folder} holds images ({image}) and {_suffix(inside[0])} files ({inside[0]}): "
            "name one kind"
        )
    return _containers(files, [(name_inside(folder, path), path) for path in inside])


def _containers(files: Files, containers: Sequence[tuple[str, str]]) -> Iterator[ImageRef]:
    """The images in Parquet files and tars, given with the prefixes of their ids."""

    def listed(container: tuple[str, str]) -> list[ImageRef]:
        uri, prefix = container
        whole = storable(ImageRef(prefix, uri, None))
        if whole.reason is not None:  # Arrow opens no file of such a name
            return [whole]
        return CONTAINERS[_suffix(uri)](files, uri, prefix)

    with ThreadPoolExecutor(min(AT_ONCE, len(containers))) as threads:
        yield from itertools.chain.from_iterable(threads.map(listed, containers))


def expanded(source: str) -> list[str]:
    """The addresses that a source with {000..127} in it stands for; itself without."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", source)
    if found is None:
        return [source]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    if not numbers:
        raise ValueError(f"source: {{{first}..{last}}} counts down")
    before, after = source[: found.start()], source[found.end() :]
    return [address for n in numbers for address in expanded(f"{before}{n:0{len(first)}}{after}")]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


_DEMO_PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)


def _demo() -> Iterator[ImageRef]:
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise ValueError("source: 'demo:' needs scikit-image: pip install scikit-image")
    folder = Path(package.submodule_search_locations[0]) / "data"
    for name in _DEMO_PHOTOS:
        if (folder / name).is_file():  # its releases move photos out of the wheel now and then
            yield ImageRef(name, str(folder / name), None)

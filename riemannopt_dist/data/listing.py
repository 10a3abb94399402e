"""The images of a source: what is there, in which order, under which names."""

import functools
import importlib.util
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from riemannopt_dist.data.class_folders import Placed, labelled_by_folders, placed
from riemannopt_dist.data.files import Files, files_of, name_of
from riemannopt_dist.data.folder import list_folder
from riemannopt_dist.data.image_ref import SUFFIXES, ImageRef, storable
from riemannopt_dist.data.labels import with_labels
from riemannopt_dist.data.parquet.listing import list_parquet
from riemannopt_dist.data.uri_list import Classes, image_id_of, list_csv
from riemannopt_dist.data.webdataset import list_tar
from riemannopt_dist.storage.addresses import name_inside, shown_path
from riemannopt_dist.storage.errors import retried
from riemannopt_dist.storage.redaction import one_line, without_secrets

logger = logging.getLogger(__name__)

CONTAINERS = (".parquet", ".tar")
LIST = ".csv"
AT_ONCE = 16
"""Containers listed at a time."""


def list_images(
    source: str,
    labels: str | None = None,
    extensions: Sequence[str] | None = None,
    classes: Classes = None,
) -> list[ImageRef]:
    """The images of `source`, sorted by id.

    A source is a path or an s3:// or gs:// address, or for the second kind also https://, of

    - a folder: every file in it, at any depth, but hidden ones. The id is the path inside the folder. Files
      that are not images are listed too: decoding gives the reason;
    - a .parquet or .tar file, a folder of them, or several as data-{000..127}.tar: Parquet with a column of
      image files and one of labels, or a WebDataset. Ids are file/row and file/member, or the names that
      Hugging Face keeps beside images in Parquet, where all have one and no two share it;
    - a .csv file, or a .parquet without images, with a column `uri` of their addresses and perhaps one of
      labels, indices or names: see `uri_list`. The id is the uri;
    - `demo:` the colour photos that come with scikit-image, without labels.

    A file on a disk or in a tar that has no label of its own has that of its folder: the nearest one named
    after a synset (n01440764), whose rank among all 1,000 of ILSVRC it is; or the one named by a class index
    from 0 to 999, if all images in folders lie in one such. `classes` are those of a model of its own: the
    nearest folder named after one of them labels; of classes without names there may be as many folders,
    which label in sorted order, as torchvision's ImageFolder has them, or fewer, named by class indices.
    Others have none; a warning tells which.

    `labels` is the address of a file that labels the images by their file names, see `read_labels`.
    `extensions` are those of images in a WebDataset, such as "jpg" or "left.png"; by default those of all
    image formats. Raises ValueError where there is no such source, nothing in it, or no column of images, and
    for as many folders as classes whose numbers come in another order (1, 2, 10) than their texts (1, 10, 2);
    OSError where its store does not answer.
    """
    shown = without_secrets(source)
    try:
        images = sorted(_images(source, extensions, classes), key=lambda image: image.ref.image_id)
    except FileNotFoundError as error:
        raise ValueError(f"source: {one_line(error)}") from None
    if not images:
        expected = "" if extensions is None else f" with the image_extensions {', '.join(extensions)}"
        raise ValueError(f"source: no files in {shown!r}{expected}")
    for one, other in itertools.pairwise(image.ref.image_id for image in images):
        if one == other:
            raise ValueError(f"source: two files of {shown!r} share the id {one!r}")
    if labels is None:
        refs = labelled_by_folders(images, shown, classes)
    else:
        refs = with_labels([image.ref for image in images], labels)
    if refused := [ref for ref in refs if ref.reason is not None]:
        first = f"{refused[0].image_id}: {refused[0].reason}"
        logger.warning("%s: %d of %d inputs cannot be used (%s)", shown, len(refused), len(refs), first)
    return refs


def image_or_images(source: str) -> list[ImageRef]:
    """The images of a folder, Parquet file, tar or list, or the one that `source` is itself.

    Raises the errors of `list_images`; not where there is no such image, which reading it tells.
    """
    if source == "demo:" or Path(source).is_dir() or source.endswith((".parquet", ".tar", ".csv", "/")):
        return list_images(source)
    return [ImageRef(Path(name_of(source)).name, source, None)]


def _images(source: str, extensions: Sequence[str] | None, classes: Classes) -> Iterable[Placed]:
    if source == "demo:":
        return _demo()
    addresses = expanded(source)
    try:
        files, names = files_of(addresses[0]), [name_of(address) for address in addresses]
    except ValueError as error:
        raise ValueError(f"source: {error}") from None
    if len(names) == 1 and retried(lambda: files.is_folder(names[0]), names[0]):
        return _folder(files, names[0], extensions, classes)
    if len(names) == 1 and _suffix(names[0]) == LIST:
        return map(_storable, list_csv(files, names[0], classes))
    strange = [name for name in names if _suffix(name) not in CONTAINERS]
    if strange:
        raise ValueError(f"source: no folder {strange[0]!r} (nor a .parquet, .tar or .csv file)")
    # Ids begin where the names begin to differ, at the last folder that all share.
    paths = [shown_path(name).split("/") for name in names]
    levels = zip(*(path[:-1] for path in paths), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    prefixes = ["/".join(path[shared:]) for path in paths]
    return _containers(files, list(zip(names, prefixes, strict=True)), extensions, classes)


def _folder(
    files: Files, folder: str, extensions: Sequence[str] | None, classes: Classes
) -> Iterable[Placed]:
    """The files of a folder, or what is in its Parquet files and tars."""
    entries = retried(lambda: list(files.entries(folder)), folder)
    names = [entry.path for entry in entries if not entry.is_folder]
    inside = [path for path in names if _suffix(path) in CONTAINERS]
    if not inside:
        refs = map(storable, list_folder(folder, entries))
        return (placed(ref, shown_path(folder), ref.image_id) for ref in refs)
    image = next((path for path in names if path.lower().endswith(SUFFIXES)), None)
    if image is not None:
        raise ValueError(
            f"source: {folder} holds images ({image}) and {_suffix(inside[0])} files ({inside[0]}): "
            "name one kind"
        )
    return _containers(files, [(name_inside(folder, path), path) for path in inside], extensions, classes)


def _containers(
    files: Files, containers: Sequence[tuple[str, str]], extensions: Sequence[str] | None, classes: Classes
) -> list[Placed]:
    """The images in Parquet files and tars, given with the prefixes of their ids."""
    listers: dict[str, Callable[[Files, str, str], list[Placed]]] = {
        ".parquet": functools.partial(list_parquet, classes=classes),
        ".tar": functools.partial(list_tar, extensions=extensions),
    }

    def listed(container: tuple[str, str]) -> list[Placed]:
        uri, prefix = container
        whole = storable(ImageRef(prefix, uri, None))
        if whole.reason is not None:  # Arrow opens no file of such a name
            return [Placed(whole)]
        return listers[_suffix(uri)](files, uri, prefix)

    with ThreadPoolExecutor(min(AT_ONCE, len(containers))) as threads:
        images = [*itertools.chain.from_iterable(threads.map(listed, containers))]
    return [_storable(image) for image in _by_name(images)]


def _by_name(images: list[Placed]) -> list[Placed]:
    """Rows of Parquet by the names that their data set has for them, if all have one and no two share it."""
    names = [
        image.ref.image_id if image.ref.group is None else image.name and image_id_of(image.name)
        for image in images
    ]
    if None in names or len({*names}) < len(names):
        return images
    return [
        replace(image, ref=replace(image.ref, image_id=name))
        for image, name in zip(images, names, strict=True)
        if name is not None
    ]


def _storable(image: Placed) -> Placed:
    return replace(image, ref=storable(image.ref))


def expanded(source: str) -> list[str]:
    """The addresses that a source with {000..127} in it stands for; itself without."""
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", source)
    if braces is None:
        return [source]
    first, last = braces.groups()
    numbers = range(int(first), int(last) + 1)
    if not numbers:
        raise ValueError(f"source: {{{first}..{last}}} counts down")
    before, after = source[: braces.start()], source[braces.end() :]
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


def _demo() -> Iterator[Placed]:
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise ValueError("source: 'demo:' needs scikit-image: pip install scikit-image")
    folder = Path(package.submodule_search_locations[0]) / "data"
    for name in _DEMO_PHOTOS:
        if (folder / name).is_file():  # its releases move photos out of the wheel now and then
            yield Placed(ImageRef(name, str(folder / name), None))

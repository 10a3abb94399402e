"""Where images and labels come from, their decoding, and what is wrong with a bad one.

Decoding gives 8-bit RGB as ImageNet evaluation with torchvision does: the first frame of an animation,
without regard to EXIF orientation. What is transparent is seen over black, the attributions' baseline.
"""

import functools
import importlib.util
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


@dataclass(frozen=True)
class ImageRef:
    """One input: where it lies, its class index where known, and the reason where it cannot be used."""

    image_id: str
    uri: str
    label: int | None
    reason: str | None = None


class UnreadableImage(ValueError):
    """An image that cannot be read; the message is a short reason."""


def list_images(source: str) -> list[ImageRef]:
    """The images of `source`, sorted by id.

    - A folder: every file in it, at any depth, but hidden ones. The id is the path inside the folder. A file
      whose own folder is named after a synset (n01440764) has that synset's rank among all 1,000 of ILSVRC
      as its label, others have none. Files that are not images are listed too: decoding gives the reason.
    - `demo:` the colour photos that come with scikit-image, without labels.

    Raises ValueError where there is no such folder or nothing in it.
    """
    refs = sorted(next(s.refs(source) for s in _SOURCES if s.has(source)), key=lambda ref: ref.image_id)
    if not refs:
        raise ValueError(f"source: no files in {source!r}")
    for one, other in itertools.pairwise(refs):
        if one.image_id == other.image_id:
            raise ValueError(f"source: two files of {source!r} share the id {one.image_id!r}")
    return refs


def read_image(uri: str) -> bytes:
    """The bytes at a local path; raises UnreadableImage."""
    path = Path(uri)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise UnreadableImage("not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror or error}") from error


# --- Decoding ---

# Raster formats alone: Pillow hands EPS to an external program.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
_MAX_PIXELS = 89_478_485  # Pillow's own limit for a warning: 256 MiB of RGB


def decode_image(data: bytes) -> Image.Image:
    """An RGB image, 8 bits a channel, from the bytes of a file; raises UnreadableImage.

    16-bit grey is divided by 257, so that 65,535 becomes 255; floating-point grey is taken as [0, 1].
    """
    if not data:
        raise UnreadableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UnreadableImage(f"too large: {image.width} × {image.height} pixels")
            image.load()
            return _to_rgb(image)
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"too large: more than {_MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image of a known format") from error
    # Damaged files raise nearly anything in Pillow: OSError, SyntaxError, ValueError, struct.error, …
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UnreadableImage(f"damaged: {reason or type(error).__name__}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(image).convert("RGB")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """8-bit grey from 16-bit or floating-point grey, which Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= top):  # NaN too
        raise UnreadableImage(f"pixel values outside [0, {top:g}]")
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def prepare_image(image: Image.Image, input_size: int, resize_size: int) -> Tensor:
    """The central square of `input_size` pixels after the short side became `resize_size`, antialiased.

    (3, input_size, input_size), float32 in [0, 1]: the values of torchvision's presets with bilinear
    interpolation. Raises UnreadableImage where one side is so much longer than the other that the image
    would become too large.
    """
    if not 1 <= input_size <= resize_size:
        raise ValueError(f"input_size: expected 1 to resize_size = {resize_size}, got {input_size}")
    width, height = (int(resize_size * side / min(image.size)) for side in image.size)
    if width * height > _MAX_PIXELS:
        raise UnreadableImage(f"too elongated: {image.width} × {image.height} pixels")
    left, top = round((width - input_size) / 2), round((height - input_size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    square = resized.crop((left, top, left + input_size, top + input_size))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()


# --- Sources ---

_SYNSET = re.compile(r"n\d{8}")

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


def _demo(source: str) -> Iterator[ImageRef]:
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise ValueError(f"source: {source!r} needs scikit-image: pip install scikit-image")
    folder = Path(package.submodule_search_locations[0]) / "data"
    for name in _DEMO_PHOTOS:
        if (folder / name).is_file():  # its releases move photos out of the wheel now and then
            yield ImageRef(name, str(folder / name), None)


def _folder(source: str) -> Iterator[ImageRef]:
    top = Path(source).expanduser().absolute()  # workers run in other directories
    if not top.is_dir():
        raise ValueError(f"source: no folder {source!r}")
    for path in _files(top):
        image_id = path.relative_to(top).as_posix()
        label, reason = _synset_label(path.parent.name)
        try:
            image_id.encode()
        except UnicodeEncodeError:  # no table or log could hold the name
            image_id = os.fsencode(image_id).decode("utf-8", "backslashreplace")
            yield ImageRef(image_id, image_id, label, "file name is not UTF-8")
            continue
        yield ImageRef(image_id, str(path), label, reason)


def _files(top: Path) -> Iterator[Path]:
    """Files below `top`, hidden ones left out; linked folders are followed, except back up."""

    def fail(error: OSError) -> None:
        raise ValueError(f"source: cannot list {error.filename!r}: {error.strerror}") from error

    for root, folders, files in os.walk(top, onerror=fail, followlinks=True):
        here = Path(root).resolve()
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not here.is_relative_to((here / name).resolve())
        ]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _synset_label(folder: str) -> tuple[int | None, str | None]:
    if not _SYNSET.fullmatch(folder):
        return None, None
    label = _synset_ranks().get(folder)
    return label, None if label is not None else f"folder {folder} is not one of the 1,000 ILSVRC synsets"


@functools.cache
def _synset_ranks() -> dict[str, int]:
    """Class index of each ILSVRC synset, which is its rank among all 1,000."""
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ModuleNotFoundError as error:
        raise ValueError("source: folders named after synsets need timm: pip install timm") from error
    imagenet: Any = ImageNetInfo()
    return {synset: rank for rank, synset in enumerate(imagenet.label_names())}


class _Source(NamedTuple):
    """A kind of source: how to tell it, and how to list it. The first that fits is taken."""

    has: Callable[[str], bool]
    refs: Callable[[str], Iterator[ImageRef]]


_SOURCES = (
    _Source(lambda source: source == "demo:", _demo),
    _Source(lambda source: True, _folder),
)

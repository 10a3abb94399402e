"""Where straight lines and guided walks begin: a colour, the image made dull, noise, or pictures of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from riemannopt_dist.storage.redaction import without_secrets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from riemannopt_dist.data.image_ref import ImageRef

    Pixels = NDArray[np.uint8]

SIGMA = 50.0
"""The blur of the baseline "blurred" in pixels, that from which Blur IG starts."""


class Baseline(Protocol):
    """One picture for each image, or as many as there are draws."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def count(self, draws: int | None) -> int:
        """How many there are, of which `draws` are asked for. Raises ValueError for more than there are."""
        ...

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The baseline number `draw` of each image (B, C, H, W), of its shape, type and device."""
        ...


class _Single:
    """Of which there is one for each image."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        raise NotImplementedError

    def count(self, draws: int | None) -> int:
        """One."""
        if draws not in (None, 1):
            raise ValueError(
                f"draws: {self.name} is the same in every draw: expected the baseline noise or a folder of "
                f"images, got {draws} draws"
            )
        return 1


@dataclass(frozen=True)
class Colour(_Single):
    """A plain colour in [0, 1]: one value, or one for each channel."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(0 <= value <= 1 for value in self.values):
            raise ValueError(f"baseline: expected numbers in [0, 1], got {self.values!r}")

    @property
    def name(self) -> str:
        """Its name where it has one, else its values."""
        named = {colour: name for name, colour in BASELINES.items()}
        return named.get(self) or " ".join(f"{value:g}" for value in self.values)

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The colour. Raises ValueError for another number of channels than the images have."""
        if len(self.values) not in (1, images.shape[1]):
            raise ValueError(f"baseline: expected one value or {images.shape[1]}, got {self.values}")
        return images.new_tensor(self.values)[:, None, None].expand_as(images)


@dataclass(frozen=True)
class MeanColour(_Single):
    """Each image's own mean colour."""

    name = "mean"

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The mean of every channel."""
        return images.mean((2, 3), keepdim=True).expand_as(images)


@dataclass(frozen=True)
class Blurred(_Single):
    """Each image blurred as at the start of Blur IG's path, with σ = `SIGMA` pixels."""

    name = "blurred"

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The blurred images."""
        import torch

        from riemannopt_dist.paths.blur import BlurPath

        rows = torch.arange(len(images), device=images.device)
        start = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        return BlurPath(images, SIGMA).at(rows, start)[0]


@dataclass(frozen=True)
class Noise:
    """Uniform noise in [0, 1], another picture in each draw and the same for every image."""

    name = "noise"

    def count(self, draws: int | None) -> int:
        """As many as asked for."""
        return draws or 1

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The noise that belongs to the draw's number, drawn on the CPU: the same on every device."""
        import torch

        generator = torch.Generator().manual_seed(draw)
        noise = torch.rand(images.shape[1:], generator=generator, dtype=torch.float64)
        return noise.to(images).expand_as(images)


@dataclass(frozen=True)
class Pictures:
    """Pictures of a file or folder, or of anything else that a run takes images from.

    They are resized to the images' height and width. Of more than `draws` those are taken that come first in
    a seeded order. Whoever computes must be able to read `source`.
    """

    source: str

    @property
    def name(self) -> str:
        """Its last part."""
        return without_secrets(self.source).rstrip("/").rsplit("/", 1)[-1]

    def count(self, draws: int | None) -> int:
        """As many as asked for, or all."""
        there = len(_listed(self.source))
        if draws is not None and draws > there:
            raise ValueError(f"draws: expected at most the {there} images of {self.name}, got {draws}")
        return draws or there

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The picture number `draw`; its grey for images of one channel."""
        import torch
        from torch.nn.functional import interpolate

        picture = torch.from_numpy(_pixels(self.source, draw).copy()).permute(2, 0, 1)[None].double() / 255
        if images.shape[1] == 1:
            picture = picture.mean(1, keepdim=True)
        resized = interpolate(picture, images.shape[2:], mode="bilinear", antialias=True)
        return resized.clamp(0, 1).to(images).expand_as(images)

    def digest(self) -> str:
        """That of the pixels of all pictures: 64 bits in hexadecimal digits."""
        digest = blake2b(digest_size=8)
        for draw in range(len(_listed(self.source))):
            digest.update(_pixels(self.source, draw).tobytes())
        return digest.hexdigest()


@lru_cache(maxsize=8)
def _listed(source: str) -> tuple[ImageRef, ...]:
    """The images of a source in a seeded order. Raises ValueError where there is none."""
    import random

    from riemannopt_dist.data.listing import image_or_images

    refs = image_or_images(source)
    random.Random(0).shuffle(refs)
    return tuple(refs)


@lru_cache(maxsize=64)
def _pixels(source: str, number: int) -> Pixels:
    """The pixels (H, W, 3) of a source's image. Raises ValueError for one that cannot be read."""
    import numpy as np

    from riemannopt_dist.data.decoding import decode_image
    from riemannopt_dist.data.errors import UnreachableImage, UnreadableImage
    from riemannopt_dist.data.reading import ImageReader
    from riemannopt_dist.data.uri_list import source_files

    ref = _listed(source)[number]
    try:
        with ImageReader(source_files(source), [ref]) as reader:
            return np.asarray(decode_image(reader.read(ref)))
    except (UnreadableImage, UnreachableImage) as error:
        raise ValueError(f"baseline: {ref.image_id}: {error}") from None


BASELINES: dict[str, Baseline] = {
    "black": Colour((0.0,)),
    "white": Colour((1.0,)),
    "mean": MeanColour(),
    "blurred": Blurred(),
    "noise": Noise(),
}
"""What is chosen by name. A new one is a class here, and an entry."""
BLACK = BASELINES["black"]


def baseline_of(value: Baseline | str | float | Sequence[float]) -> Baseline:
    """What a name, a grey, a value for each channel or the address of pictures stands for.

    Raises ValueError for anything else.
    """
    if isinstance(value, str):
        return BASELINES[value] if value in BASELINES else _pictures(value)
    if isinstance(value, int | float):
        return Colour((float(value),))
    if isinstance(value, Sequence):
        try:
            return Colour(tuple(map(float, value)))
        except (TypeError, ValueError):
            raise ValueError(f"baseline: expected numbers in [0, 1], got {value!r}") from None
    return value


def _pictures(source: str) -> Pictures:
    """Raises ValueError for what can be neither the name of a baseline nor where pictures are."""
    if not any(mark in source for mark in "/.:"):
        raise ValueError(
            f"baseline: expected {', '.join(BASELINES)}, numbers in [0, 1], an image file or a folder of "
            f"images, got {source!r}"
        )
    return Pictures(source)

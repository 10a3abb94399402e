"""Baselines that are pictures of a file, a folder or any other source of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from riemannopt_dist.paths.baselines import Baseline
from riemannopt_dist.storage.redaction import without_secrets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from riemannopt_dist.data.image_ref import ImageRef

    Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures(Baseline):
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

    def several(self, draws: int | None) -> bool:
        """Of any number but one: how many there are takes reading them."""
        return draws != 1

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The picture number `draw`; its grey, that of the images, for images of one channel."""
        import numpy as np
        import torch
        from PIL import Image
        from torch.nn.functional import interpolate

        from riemannopt_dist.data.decoding import toned

        image = toned(Image.fromarray(_pixels(self.source, draw)), images.shape[1])
        pixels = torch.from_numpy(np.atleast_3d(np.array(image)))
        picture = pixels.permute(2, 0, 1)[None].double() / 255
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

"""The blurred images at which performance information curves start."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import ImageFilter
from torch import Tensor

from riemannopt_dist.arguments import check_choice
from riemannopt_dist.metrics.information.conventions import CONVENTIONS
from riemannopt_dist.metrics.information.interpolation import fill_by_pyramid, fill_by_triangles
from riemannopt_dist.metrics.information.pictures import Mask, Picture, as_pil, eight_bits

KEPT_FRACTION = 0.01
OFFICIAL_BLUR_RADIUS = 20


@dataclass(frozen=True)
class BlurredImages:
    """B images as shown, in 8 bits, and where their curves start: all that is common to an image's maps.

    `shown` and `blurred` are (B, H, W, C); `kept` (B, H, W) marks the pixels that the blurred image has
    from the input.
    """

    shown: Picture
    blurred: Picture
    kept: Mask


def information_blur(images: Tensor, *, convention: str = "pair", seed: int = 0) -> BlurredImages:
    """The blurred images at which the curves of `images` (B, C, H, W) in [0, 1] start.

    The random pixels of an image follow from `seed` and its own 8-bit content, so neither from the batch
    it is in nor from the maps it is evaluated with.
    """
    check_choice(convention, tuple(CONVENTIONS), "convention")
    shown = eight_bits(images)
    filling = CONVENTIONS[convention].filling
    if filling == "blur":
        blur = ImageFilter.GaussianBlur(OFFICIAL_BLUR_RADIUS)
        blurred = np.stack([np.asarray(as_pil(image).filter(blur)).reshape(image.shape) for image in shown])
        return BlurredImages(shown, blurred, np.zeros(shown.shape[:3], dtype=np.bool_))
    masks = np.stack([_random_mask(image, seed) for image in shown])
    if filling == "triangles":
        blurred = np.stack([fill_by_triangles(image, mask) for image, mask in zip(shown, masks, strict=True)])
    else:
        pictures, known = (torch.from_numpy(array).to(images.device) for array in (shown, masks))
        blurred = fill_by_pyramid(pictures, known).cpu().numpy()
    return BlurredImages(shown, blurred, masks)


def _random_mask(image: Picture, seed: int) -> Mask:
    """1 % of the pixels, rounded down, and the corners: (H, W)."""
    content = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
    random = np.random.default_rng([seed, int.from_bytes(content, "big")])
    mask = np.zeros(image.shape[:2], dtype=np.bool_)
    mask.flat[random.choice(mask.size, int(mask.size * KEPT_FRACTION), replace=False)] = True
    mask[np.ix_([0, -1], [0, -1])] = True
    return mask

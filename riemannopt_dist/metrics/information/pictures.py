"""Pictures: images as they are displayed, in 8 bits a channel."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.precision import sum_type

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Array = NDArray[Any]


def eight_bits(images: Tensor) -> Picture:
    """Images (B, C, H, W) in [0, 1] as displayed: (B, H, W, C) of 8 bits."""
    check_images(images)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images: expected 1 or 3 channels to display, got shape {tuple(images.shape)}")
    outside = ((images < 0) | (images > 1)).flatten(1).any(1)
    if bool(outside.any()):
        raise ValueError(
            f"images: expected values in [0, 1], not so in image(s) {outside.nonzero().flatten().tolist()}"
        )
    pixels = images.to(sum_type(images.dtype)) * 255
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def as_pil(picture: Picture) -> Image.Image:
    """A picture (H, W, C) as Pillow has it."""
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)

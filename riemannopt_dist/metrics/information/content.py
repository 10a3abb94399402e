"""The information in a picture: the size of its file, or its MS-SSIM with the input."""

import io
import math
from functools import lru_cache

import torch
from torch import Tensor

from riemannopt_dist.metrics.information.conventions import Convention
from riemannopt_dist.metrics.information.pictures import Picture, as_pil
from riemannopt_dist.precision import ieee_float32, sum_type

Measured = tuple[Picture, float]
"""A picture and its size in bytes, NaN where information is not a size."""


def measured(picture: Picture, how: Convention) -> Measured:
    """The picture with its size in bytes when encoded, or with NaN where information is not a size."""
    if how.encoding is None:
        return picture, math.nan
    buffer = io.BytesIO()
    as_pil(picture).save(buffer, **how.encoding)
    return picture, float(buffer.tell())


def ms_ssim_of(pictures: Tensor, images: Tensor) -> Tensor:
    """MS-SSIM of each picture (N, C, H, W) in [0, 1] with its image, of the same shape: (N,)."""
    from pytorch_msssim import ms_ssim

    pictures, images = (tensor.to(sum_type(tensor.dtype)) for tensor in (pictures, images))
    window = ms_ssim_window(images.shape[1], images.device, images.dtype)
    with ieee_float32():
        similarity: Tensor = ms_ssim(pictures, images, data_range=1, size_average=False, win=window)
    return similarity


@lru_cache(maxsize=16)
def ms_ssim_window(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The package's own window, on the device, where it would else be copied for every scale of a batch."""
    from pytorch_msssim import MS_SSIM

    window: Tensor = MS_SSIM(channel=channels).win
    return window.to(device, dtype)

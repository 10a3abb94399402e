"""Heat maps over their photo, as small pictures that a page holds."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from riemannopt_dist.reports.figures import SMOOTHING
from riemannopt_dist.reports.page.rendering import data_uri

Photo = NDArray[np.uint8]
Map = NDArray[np.float64]

COLOURS = "PuOr_r"
"""From purple, against, to orange, for: told apart without colour vision."""
PERCENTILE = 99.5
"""Of a map's magnitudes, at which its scale ends."""
SIDE = 256
"""Pixels of a picture's longer side."""
QUALITY = 85


def smooth(values: NDArray[np.float32]) -> Map:
    """A map (H, W) blurred by `SMOOTHING` pixels of 224, the shorter side."""
    return np.asarray(gaussian_filter(values.astype(np.float64), SMOOTHING * min(values.shape) / 224))


def scale_of(values: Map) -> float:
    """Where the scale of a smoothed map ends, above 0."""
    return max(float(np.percentile(np.abs(values), PERCENTILE)), 1e-12)


def overlay(photo: Photo | None, values: Map, limit: float) -> Photo:
    """A smoothed map (H, W), clipped at ±limit, over a photo (H, W, 3) in grey; on grey without one."""
    share = np.clip(values / limit, -1, 1)
    colours = matplotlib.colormaps[COLOURS]((share + 1) / 2)[..., :3]
    grey = np.full(values.shape, 0.5) if photo is None else photo @ np.array([0.299, 0.587, 0.114]) / 255
    opacity = (np.abs(share) ** 0.7)[..., None]
    mixed = opacity * colours + (1 - opacity) * (0.35 + 0.5 * grey)[..., None]
    return np.asarray(np.rint(255 * mixed), dtype=np.uint8)


def picture_uri(pixels: Photo) -> str:
    """Pixels (H, W, 3) as a data URI of a JPEG, `SIDE` pixels long."""
    image = Image.fromarray(pixels)
    ratio = SIDE / max(image.size)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    sampling = Image.Resampling.LANCZOS if ratio < 1.2 else Image.Resampling.NEAREST
    buffer = io.BytesIO()
    image.resize(size, sampling).save(buffer, "JPEG", quality=QUALITY)
    return data_uri(buffer.getvalue(), "image/jpeg")


def legend() -> Sequence[str]:
    """The colours from against to for, as CSS has them."""
    return [to_hex(matplotlib.colormaps[COLOURS](place)) for place in np.linspace(0, 1, 9)]

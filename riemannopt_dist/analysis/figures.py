"""Figures: attribution maps beside their image, profiles with their points."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float64]


def attribution_figure(image: Array, maps: Sequence[tuple[str, Array]], title: str) -> bytes:
    """A PNG of an image (H, W, 3) in [0, 1] beside attribution maps (C, H, W), each with its caption.

    A map is summed over channels and shown from blue (against the class) over white to red (for it), its
    scale ending at the 99th percentile of the magnitudes of the last map.
    """
    summed = [(caption, values.sum(axis=0)) for caption, values in maps]
    limit = max(float(np.percentile(np.abs(summed[-1][1]), 99)), 1e-12)
    figure = Figure(figsize=(3.2 * (len(maps) + 1), 3.7), layout="constrained")
    axes = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
    axes[0].imshow(image)
    axes[0].set_title("image", fontsize=9)
    for axis, (caption, values) in zip(axes[1:], summed, strict=True):
        axis.imshow(values, cmap="seismic", vmin=-limit, vmax=limit)
        axis.set_title(caption, fontsize=9)
    for axis in axes:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()

"""Pictures interpolated from some of their pixels: over Delaunay triangles, or on an image pyramid."""

import numpy as np
import torch
from scipy.interpolate import LinearNDInterpolator
from torch import Tensor, nn

from riemannopt_dist.metrics.information.pictures import Array, Mask, Picture


def fill_by_triangles(image: Picture, known: Mask) -> Picture:
    """`image` (H, W, C) with the pixels outside `known` (H, W) rebuilt from those inside: piecewise linear.

    The pieces are the Delaunay triangles of the known pixels; outside of them all, the mean colour. In a
    picture of one row or column they are the stretches between neighbours. In any other the known pixels must
    not all lie on a line, as the four corners do not.
    """
    rebuilt = image.copy()
    if not known.all():
        places, colours, gaps = np.argwhere(known), image[known].astype(np.float64), np.argwhere(~known)
        rebuild = _on_a_line if 1 in known.shape else _on_triangles
        # Rounded through float32, as PAIR does: it decides the halves.
        values = rebuild(places, colours, gaps).astype(np.float32)
        mean = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        rebuilt[~known] = np.round(np.where(np.isnan(values), mean, values))
    return rebuilt


def _on_triangles(places: Array, colours: Array, gaps: Array) -> Array:
    """Colours (M, C) at `gaps` (M, 2) from those (K, C) at `places` (K, 2); NaN outside of all triangles."""
    return np.asarray(LinearNDInterpolator(places, colours)(gaps))


def _on_a_line(places: Array, colours: Array, gaps: Array) -> Array:
    """The same where all places are in one row or column; NaN beyond its ends."""
    at, to = places.sum(axis=1), gaps.sum(axis=1)
    return np.stack([np.interp(to, at, channel, np.nan, np.nan) for channel in colours.T], axis=1)


def fill_by_pyramid(pictures: Tensor, known: Tensor) -> Tensor:
    """`pictures` (N, H, W, C) of 8 bits with the pixels outside `known` (N, H, W) rebuilt from those inside.

    Pull and push (Gortler et al., 1996), on the tensors' device: the known pixels are averaged into a grid of
    half the size, and so on up to a single pixel; each level then fills its gaps from the one above,
    enlarged bilinearly. Every picture must have a known pixel.
    """
    weights = known[:, None].float()
    filled = _pull_and_push(pictures.permute(0, 3, 1, 2) * weights, weights)
    return filled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _pull_and_push(weighted: Tensor, weights: Tensor) -> Tensor:
    """One level: colours times their weights (N, C, H, W), and the weights (N, 1, H, W) in [0, 1]."""
    if weights[0].numel() == 1:
        return weighted / weights
    coarse, coarse_weights = (
        nn.functional.avg_pool2d(values, 2, ceil_mode=True) * 4 for values in (weighted, weights)
    )
    # One known pixel of the four is enough to know the coarse one.
    excess = coarse_weights.clamp_min(1.0)
    filled = _pull_and_push(coarse / excess, coarse_weights / excess)
    enlarged = nn.functional.interpolate(filled, weights.shape[-2:], mode="bilinear", align_corners=False)
    return weighted + (1 - weights) * enlarged

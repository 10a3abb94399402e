"""The pointing game (Zhang et al., ECCV 2016): whether a map's highest pixel is on the object.

Objects are told by boxes, of whatever class they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from riemannopt_dist.data.boxes import Box
from riemannopt_dist.metrics.insertion import check_maps, pixel_saliency
from riemannopt_dist.metrics.metric import BOX_TOLERANCE, Column, MapBatch, Metric, Summary
from riemannopt_dist.transfer import on_device


def pointing_game(
    maps: Tensor, boxes: Sequence[Sequence[Box]], *, tolerance: float = BOX_TOLERANCE
) -> Tensor:
    """1 where the highest |channel sum| of a map is within `tolerance` pixels of a box, else 0: (…, B).

    Float64. Maps are (B, C, H, W), or (S, B, C, H, W) for S maps an image, and `boxes` those of each of the B
    images, in pixels of the maps. NaN for an image without a box, and for a map that is the same everywhere,
    which points nowhere. Else the first of equal pixels counts, row by row. Raises ValueError for another
    number of images, and for maps with NaN or infinity.
    """
    if maps.ndim < 4 or len(boxes) != maps.shape[-4]:
        raise ValueError(f"boxes: expected those of each image of maps {tuple(maps.shape)}, got {len(boxes)}")
    check_maps(maps, maps if maps.ndim == 4 else maps[0])
    return _hits(maps, boxes, tolerance)


def _hits(maps: Tensor, boxes: Sequence[Sequence[Box]], tolerance: float) -> Tensor:
    """`pointing_game`, without a look at the values, which would wait for the device."""
    saliency = pixel_saliency(maps).flatten(-2)
    constant = saliency.amax(-1) == saliency.amin(-1)
    places = torch.where(constant, -1, saliency.argmax(-1)).cpu()
    down, across = places // maps.shape[-1], places % maps.shape[-1]
    hits = torch.full(places.shape, torch.nan, dtype=torch.float64)
    for image, around in enumerate(boxes):
        near = [_distance(box, across[..., image], down[..., image]) <= tolerance for box in around]
        if near:
            hits[..., image] = torch.stack(near).any(0).double()
    return on_device(hits.where(places >= 0, torch.nan).numpy(), maps.device)


def _distance(box: Box, x: Tensor, y: Tensor) -> Tensor:
    """How far pixels are from the nearest one in a box."""
    beside = (
        torch.maximum(box.left - x, x - (box.right - 1)),
        torch.maximum(box.top - y, y - (box.bottom - 1)),
    )
    return torch.hypot(*(distance.double().clamp_min(0.0) for distance in beside))


def _compute(batch: MapBatch) -> dict[str, Tensor | Sequence[str | None]]:
    known = batch.boxes or [None] * len(batch.images)
    hits = _hits(batch.maps, [boxes or () for boxes in known], batch.box_tolerance)
    return {"pointing_hit": hits, "pointing_skipped": [_skip_reason(boxes) for boxes in known]}


def _skip_reason(boxes: Sequence[Box] | None) -> str | None:
    if boxes is None:
        return "no boxes are known of it"
    return None if boxes else "no box is in what the model sees of it"


POINTING_GAME = Metric(
    name="pointing_game",
    columns=(
        Column(
            "pointing_hit",
            "1",
            "higher",
            undefined="for an image without boxes, and where the map is the same everywhere",
            meaning="1 where the map's highest pixel is on an object's box or near one, else 0",
        ),
        Column(
            "pointing_skipped", "reason", kind="text", meaning="why the image is not played; null if it is"
        ),
    ),
    summaries=(Summary("pointing_game", "mean", ("pointing_hit",), "higher"),),
    compute=_compute,
    against_controls="pointing_hit",
    of_channel_sums=True,
    needs_boxes=True,
)

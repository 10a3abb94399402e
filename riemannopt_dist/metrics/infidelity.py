"""Infidelity (Yeh et al., NeurIPS 2019): how badly a map foretells what taking squares out of x does to f.

E[(Σ_i∈square a_i − (f(x) − f(x with the square black)))²] over random squares. The attributions are of the
kind that sums to f's change along a path, so that a square's sum stands for the square's part in f. A lower
one is better; a map of zeros has the mean square of f's own changes. It takes attributions in units of f:
a control has its own, and is not compared. Squares are seeded by the image's content: the same in any batch,
and for all maps.
"""

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary
from riemannopt_dist.metrics.seeds import content_seeds
from riemannopt_dist.objective import Objective

SQUARES = 16


def infidelity(objective: Objective, images: Tensor, maps: Tensor, *, seed: int = 0) -> Tensor:
    """Infidelity of maps (B, C, H, W) or (S, B, C, H, W) of images (B, C, H, W), float64, (B,) or (S, B).

    From `SQUARES + 1` forward passes an image, whatever the number of maps. Raises ValueError for images,
    targets and maps that do not fit.
    """
    check_images(images)
    objective.check(images)
    check_maps(maps, images)
    return _infidelity(objective, images, maps, objective.values(images), seed)


def _infidelity(objective: Objective, images: Tensor, maps: Tensor, f_input: Tensor, seed: int) -> Tensor:
    saliency = maps.reshape(-1, *images.shape).sum(2, dtype=torch.float64)
    total = saliency.new_zeros(saliency.shape[:2])
    for removed in squares(images, seed):
        foretold = (saliency * removed[:, 0]).sum((2, 3))
        loss = f_input.double() - objective.values(images * ~removed).double()
        total += (foretold - loss).square()
    return (total / SQUARES).view(maps.shape[:-3])


def squares(images: Tensor, seed: int) -> Tensor:
    """Random squares of each image, of up to half its shorter side, anywhere: bool (SQUARES, B, 1, H, W)."""
    height, width = images.shape[2:]
    masks = torch.zeros(SQUARES, len(images), 1, height, width, dtype=torch.bool)
    for column, content in enumerate(content_seeds(images)):
        random = np.random.default_rng([seed, content])
        for row in range(SQUARES):
            side = int(random.integers(1, max(1, min(height, width) // 2), endpoint=True))
            top, left = random.integers(0, (height - side, width - side), endpoint=True)
            masks[row, column, :, top : top + side, left : left + side] = True
    return masks.to(images.device)


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    values = _infidelity(batch.objective, batch.images, batch.maps, batch.f_input, batch.seed)
    return {"infidelity": values}


INFIDELITY = Metric(
    name="infidelity",
    columns=(
        Column(
            "infidelity",
            "f squared",
            "lower",
            meaning="mean squared difference of a square's attributions and what f loses with it; not "
            "compared with controls, which are in other units than f",
        ),
    ),
    summaries=(Summary("infidelity_mean", "mean", ("infidelity",), "lower"),),
    compute=_compute,
    passes_an_image=SQUARES,
    of_channel_sums=True,
)

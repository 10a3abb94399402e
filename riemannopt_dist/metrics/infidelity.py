"""Infidelity (Yeh et al., NeurIPS 2019): how badly a map foretells what taking squares out of x does to f.

E[(Σ_i∈square a_i − (f(x) − f(x with x′ in the square)))²] over random squares, x′ being where the map's path
begins. The attributions are of the kind that sums to f's change along a path, so that a square's sum stands
for the square's part in f: of a linear model the value is 0 whatever x′. A lower one is better; a map of
zeros has the mean square of f's own changes. It takes attributions in units of f: a control has its own, and
is not compared. Squares are seeded by the image's content: the same in any batch, and for all maps.
"""

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary
from riemannopt_dist.metrics.seeds import content_seeds
from riemannopt_dist.metrics.starts import Start, on_one_start
from riemannopt_dist.objective import Objective

SQUARES = 16


def infidelity(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    baselines: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Infidelity of maps (B, C, H, W) or (S, B, C, H, W) of images (B, C, H, W), float64, (B,) or (S, B).

    `baselines` (B, C, H, W) are where the maps' paths begin, black unless given. From `SQUARES + 1` forward
    passes an image, whatever the number of maps. Raises ValueError for images, baselines, targets and maps
    that do not fit.
    """
    several, start = on_one_start(objective, images, maps, baselines)
    values = _infidelity(objective, images, several, start, objective.values(images), squares(images, seed))
    return values.view(maps.shape[:-3])


def _infidelity(
    objective: Objective, images: Tensor, maps: Tensor, start: Start, f_input: Tensor, removed: Tensor
) -> Tensor:
    """That of the maps (S, B, C, H, W) whose paths begin at a start, with the squares `removed`: (s, B)."""
    saliency = start.of(maps).sum(2, dtype=torch.float64)
    total = saliency.new_zeros(saliency.shape[:2])
    for square in removed:
        foretold = (saliency * square[:, 0]).sum((2, 3))
        loss = f_input.double() - objective.values(start.without(images, square)).double()
        total += (foretold - loss).square()
    return total / SQUARES


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
    values = batch.maps.new_empty(batch.maps.shape[:2], dtype=torch.float64)
    removed = squares(batch.images, batch.seed)
    for start in batch.starts:
        found = _infidelity(batch.objective, batch.images, batch.maps, start, batch.f_input, removed)
        start.put(values, found)
    return {"infidelity": values}


INFIDELITY = Metric(
    name="infidelity",
    columns=(
        Column(
            "infidelity",
            "f squared",
            "lower",
            meaning="mean squared difference of a square's attributions and what f loses with it, the start "
            "of the map's path (of several draws their mean) in its place; not compared with controls, which "
            "are in other units than f",
        ),
    ),
    summaries=(Summary("infidelity_mean", "mean", ("infidelity",), "lower"),),
    compute=_compute,
    passes_a_start=SQUARES,
    of_channel_sums=True,
)

"""Infidelity (Yeh et al., NeurIPS 2019): how badly a map foretells what taking squares out of x does to f.

E[(Σ_i∈square a_i − (f(x) − f(x with the square black)))²] over random squares. The attributions are of the
kind that sums to f's change along a path, so that a square's sum stands for the square's part in f. A lower
one is better; a map of zeros has the mean square of f's own changes. Squares are seeded by the image's
content: the same in any batch, and for all maps.
"""

import zlib

import numpy as np
import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images, check_model, check_positive, check_targets
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary
from riemannopt_dist.objective import DEFAULT_INTERNAL_BATCH_SIZE, Objective, Output

SQUARES = 16


def infidelity(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    seed: int = 0,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Tensor:
    """Infidelity of maps (B, C, H, W) or (S, B, C, H, W) of images (B, C, H, W), float64, (B,) or (S, B).

    From `SQUARES + 1` forward passes an image, whatever the number of maps. Raises ValueError for images,
    targets and maps that do not fit.
    """
    check_model(model)
    check_images(images)
    check_targets(targets, images, model)
    check_maps(maps, images)
    check_positive(internal_batch_size, "internal_batch_size")
    objective = Objective(model, targets, output, internal_batch_size)
    f_input = objective.values(images).double()
    stacked = maps.reshape(-1, *images.shape).double()
    total = stacked.new_zeros(stacked.shape[:2])
    for number in range(SQUARES):
        removed = squares(images, seed + number)
        foretold = (stacked * removed).sum((2, 3, 4))
        total += (foretold - (f_input - objective.values(images * ~removed).double())).square()
    return (total / SQUARES).view(maps.shape[:-3])


def squares(images: Tensor, seed: int) -> Tensor:
    """A random square of each image, of up to half its shorter side, anywhere in it: bool (B, 1, H, W)."""
    height, width = images.shape[2:]
    masks = images.new_zeros(len(images), 1, height, width, dtype=torch.bool)
    for mask, image in zip(masks, images.float().cpu(), strict=True):
        content = zlib.crc32(image.contiguous().numpy().tobytes())
        random = np.random.default_rng([seed, content])
        side = int(random.integers(1, max(1, min(height, width) // 2), endpoint=True))
        top, left = random.integers(0, (height - side, width - side), endpoint=True)
        mask[:, top : top + side, left : left + side] = True
    return masks


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    values = infidelity(
        batch.model,
        batch.images,
        batch.targets,
        batch.maps,
        seed=batch.seed,
        output=batch.output,
        internal_batch_size=batch.internal_batch_size,
    )
    return {"infidelity": values}


INFIDELITY = Metric(
    name="infidelity",
    columns=(Column("infidelity", "f squared", "lower"),),
    summaries=(Summary("infidelity_mean", "mean", ("infidelity",), "lower"),),
    compute=_compute,
    passes_an_image=SQUARES + 1,
    against_controls="infidelity",
)

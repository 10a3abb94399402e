"""ROAD (Rong et al., ICML 2022): f while the pixels that a map ranks highest are filled in from the others.

A black pixel tells where it was taken out, a filled one does not. Missing pixels are the solution of linear
equations: each is the weighted mean of its eight neighbours, those beside it counting 1/6 and those across a
corner 1/12, and a little noise. Noise is seeded by the image's content: the same for all maps.
"""

import numpy as np
import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images
from riemannopt_dist.metrics.insertion import Curve, check_maps, pixel_ranks, pixel_saliency
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary
from riemannopt_dist.metrics.seeds import content_seeds
from riemannopt_dist.objective import Objective, micro_batches
from riemannopt_dist.precision import ieee_float32, sum_type

STEPS = 10
NOISE = 0.01
"""Its standard deviation, as the authors' code has it."""
NEIGHBOURS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
CHECKED = 8
"""Rounds of conjugate gradients between looks at the residual, each of which waits for the device."""


def road(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    noise: float = NOISE,
    seed: int = 0,
    f_input: Tensor | None = None,
) -> Curve:
    """f with 0, 10, …, 90 % of each image's pixels filled in, most relevant first; lower is better.

    Images are (B, C, H, W), `maps` (B, C, H, W) or (S, B, C, H, W). Pixels are ranked as in `insertion`. f at
    the image, `f_input` (B,), spares a forward pass if known. Raises ValueError for images, targets and maps
    that do not fit.
    """
    check_images(images)
    objective.check(images)
    check_maps(maps, images)
    f_input = objective.values(images) if f_input is None else f_input
    ranks = pixel_ranks(pixel_saliency(maps).flatten(0, -3))
    rows = torch.arange(len(images), device=images.device).repeat(len(ranks) // len(images))
    pixels = images.shape[-2] * images.shape[-1]
    counts = torch.tensor([pixels * step // STEPS for step in range(1, STEPS)], device=images.device)
    speckle = noise * _noise(images, seed)
    weights = torch.tensor(NEIGHBOURS, device=images.device, dtype=sum_type(images.dtype))
    # Step by step: the equations of as many missing pixels are solved in about as many rounds.
    job_maps = torch.arange(len(ranks), device=images.device).repeat(len(counts))
    job_counts = counts.repeat_interleave(len(ranks))
    values, rounds = [], 0
    for part in micro_batches(len(job_maps), objective.internal_batch_size):
        row = rows[job_maps[part]]
        missing = (ranks[job_maps[part]] < job_counts[part, None, None])[:, None]
        filled, rounds = _imputed(images[row], missing, weights, rounds - CHECKED)
        filled = filled + torch.where(missing, speckle[row], 0.0)
        values.append(objective.of(row).values(filled.to(images.dtype)))
    curve = torch.cat([f_input[rows, None], torch.cat(values).view(-1, len(ranks)).T], dim=1)
    fractions = torch.cat([counts.new_zeros(1), counts]).to(curve.dtype) / pixels
    curve = curve.view(*maps.shape[:-3], STEPS)
    return Curve(fractions, curve, curve[..., 0], objective.output, objective.rounding_type(curve.dtype))


def impute(images: Tensor, missing: Tensor) -> Tensor:
    """Images (N, C, H, W) whose pixels `missing`, bool (N, 1, H, W), are the means of their neighbours.

    Float32 or wider. By conjugate gradients, whose equations are symmetric: beyond the border is nothing, and
    what a pixel has of neighbours weighs 1 in sum. Zeros where no pixel is known.
    """
    weights = torch.tensor(NEIGHBOURS, device=images.device, dtype=sum_type(images.dtype))
    return _imputed(images, missing, weights)[0]


@ieee_float32()
def _imputed(images: Tensor, missing: Tensor, weights: Tensor, unlooked: int = 0) -> tuple[Tensor, int]:
    """`impute`, and the rounds that it took, before `unlooked` of which none looks at the residual."""
    images, here = images.to(weights.dtype), missing.to(weights.dtype)
    own = _around(torch.ones_like(here[:1]), weights)
    unknown = torch.zeros_like(images)
    residual = here * _around((1 - here) * images, weights)
    direction, size = residual, residual.square().sum((1, 2, 3), keepdim=True)
    enough = size * torch.finfo(images.dtype).eps ** 1.4
    tiny = torch.finfo(images.dtype).tiny
    for rounds in range(here[0].numel()):
        if rounds >= unlooked and rounds % CHECKED == 0 and bool((size <= enough).all()):
            break
        image = here * (own * direction - _around(direction, weights))
        step = size / (direction * image).sum((1, 2, 3), keepdim=True).clamp_min(tiny)
        unknown = unknown + step * direction
        residual = residual - step * image
        before, size = size, residual.square().sum((1, 2, 3), keepdim=True)
        direction = residual + size / before.clamp_min(tiny) * direction
    return torch.where(missing, unknown, images), rounds


def _around(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted sums of the neighbours of each value (N, C, H, W)."""
    channels = values.shape[1]
    return nn.functional.conv2d(values, weights.expand(channels, 1, -1, -1), padding=1, groups=channels)


def _noise(images: Tensor, seed: int) -> Tensor:
    """Gaussian noise of the images' shape, by their content."""
    fields = [
        np.random.default_rng([seed, content]).standard_normal(images.shape[1:])
        for content in content_seeds(images)
    ]
    return torch.from_numpy(np.stack(fields)).to(images.device, sum_type(images.dtype))


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    result = road(batch.objective, batch.images, batch.maps, seed=batch.seed, f_input=batch.f_input)
    return {"road": result.score, "road_normalized": result.normalized, "road_curve": result.curve}


ROAD = Metric(
    name="road",
    columns=(
        Column("road", "mean of f", "lower", meaning="the mean of road_curve by the trapezoid"),
        Column(
            "road_normalized",
            "mean of f over f(x)",
            "lower",
            undefined="where f(x) is 0 or less",
            meaning="road over f at the image",
        ),
        Column(
            "road_curve",
            "f",
            kind="list",
            meaning="f as pixels are filled in from their neighbours, those of most attribution first; x is "
            "their share",
            x=tuple(step / STEPS for step in range(STEPS)),
        ),
    ),
    summaries=(
        Summary("road_mean", "mean", ("road",), "lower"),
        Summary("road_normalized_mean", "mean", ("road_normalized",), "lower"),
    ),
    compute=_compute,
    passes_a_map=STEPS - 1,
    against_controls="road",
    of_channel_sums=True,
)

"""Sensitivity-n (Ancona et al., ICLR 2018): whether a map foretells what taking n pixels out of x does to f.

For each n, the correlation over random sets of n pixels of Σ_i∈set a_i with f(x) − f(x with x′ in the set),
x′ being where the map's path begins: 1 for a map that tells every set's part in f. Sets are seeded by the
image's content: the same in any batch, and for all maps. Bhatt et al. (2020) call it faithfulness
correlation.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary
from riemannopt_dist.metrics.reference import correlation
from riemannopt_dist.metrics.seeds import content_seeds
from riemannopt_dist.metrics.starts import Start, on_one_start
from riemannopt_dist.objective import Objective

SHARES = (0.01, 0.03, 0.1, 0.3, 0.8)
"""n in shares of the pixels."""
SETS = 25
UNDEFINED = "where f or the map's sums are the same for all sets"


def sensitivity_n(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    baselines: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """The correlations of maps (B, C, H, W) or (S, B, C, H, W) with f, float64: (…, B, K), K as `SHARES`.

    `baselines` (B, C, H, W) are where the maps' paths begin, black unless given. From
    `SETS · len(SHARES) + 1` forward passes an image, whatever the number of maps. NaN where f or the map's
    sums are the same for all sets. Raises ValueError for images, baselines, targets and maps that do not fit.
    """
    several, start = on_one_start(objective, images, maps, baselines)
    curve = _sensitivity(objective, images, several, [start], objective.values(images), seed)
    return curve.view(*maps.shape[:-3], len(SHARES))


def _sensitivity(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    starts: Sequence[Start],
    f_input: Tensor,
    seed: int,
) -> Tensor:
    curve = maps.new_empty((*maps.shape[:2], len(SHARES)), dtype=torch.float64)
    for number, removed in enumerate(pixel_sets(images, seed)):
        for start in starts:
            found = set_correlation(objective, images, maps, start, f_input, removed)
            start.put(curve[..., number], found)
    return curve


def set_correlation(
    objective: Objective, images: Tensor, maps: Tensor, start: Start, f_input: Tensor, removed: Tensor
) -> Tensor:
    """The correlation over sets `removed`, bool (R, B, 1, H, W), of maps' sums and f's losses: (s, B).

    Of the maps (S, B, C, H, W) those are taken whose paths begin at the start.
    """
    saliency = start.of(maps).sum(2, dtype=torch.float64).flatten(2).transpose(0, 1)
    losses = [f_input.double() - objective.values(start.without(images, one)).double() for one in removed]
    foretold = saliency @ removed.flatten(2).permute(1, 2, 0).double()
    loss = torch.stack(losses, dim=1)[:, None].expand_as(foretold)
    return correlation(foretold, loss).T


def pixel_sets(images: Tensor, seed: int) -> Iterator[Tensor]:
    """`SETS` random sets of pixels of each image for each of `SHARES`: bool (SETS, B, 1, H, W)."""
    height, width = images.shape[2:]
    pixels = height * width
    randoms = [np.random.default_rng([seed, content]) for content in content_seeds(images)]
    for share in SHARES:
        count = min(max(1, round(share * pixels)), pixels - 1)
        sets = np.zeros((SETS, len(images), pixels), dtype=bool)
        for column, random in enumerate(randoms):
            chosen = random.random((SETS, pixels), dtype=np.float32).argpartition(count, axis=1)[:, :count]
            np.put_along_axis(sets[:, column], chosen, True, axis=1)
        yield torch.from_numpy(sets).view(SETS, len(images), 1, height, width).to(images.device)


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    curve = _sensitivity(batch.objective, batch.images, batch.maps, batch.starts, batch.f_input, batch.seed)
    return {"sensitivity_n": curve.nanmean(-1), "sensitivity_n_by_share": curve}


SENSITIVITY_N = Metric(
    name="sensitivity_n",
    columns=(
        Column(
            "sensitivity_n",
            "correlation in [-1, 1]",
            "higher",
            undefined=UNDEFINED,
            meaning="the mean of sensitivity_n_by_share",
        ),
        Column(
            "sensitivity_n_by_share",
            "correlation in [-1, 1]",
            kind="list",
            undefined=UNDEFINED,
            meaning="of a set's attributions and what f loses with it, the start of the map's path (of "
            "several draws their mean; black of a control) in its place; x is the set's share of the pixels",
            x=SHARES,
        ),
    ),
    summaries=(Summary("sensitivity_n_mean", "mean", ("sensitivity_n",), "higher"),),
    compute=_compute,
    passes_a_start=SETS * len(SHARES),
    against_controls="sensitivity_n",
    of_channel_sums=True,
)

"""Sparseness (Chalasani et al., ICML 2020): the Gini index of a map, 0 where all pixels have the same.

With |channel sums| in rising order, Σ_i (2 i − n − 1) v_i / (n Σ_i v_i): (n − 1) / n for a single pixel of n.
"""

import torch
from torch import Tensor

from riemannopt_dist.metrics.insertion import pixel_saliency
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary


def sparseness(maps: Tensor) -> Tensor:
    """The Gini index of maps (…, C, H, W), float64 in [0, 1]: (…), NaN for a map of zeros."""
    values = pixel_saliency(maps).flatten(-2).double().sort(-1).values
    pixels = values.shape[-1]
    ranks = torch.arange(1, pixels + 1, dtype=torch.float64, device=values.device)
    return ((2 * ranks - pixels - 1) * values).sum(-1) / (pixels * values.sum(-1))


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    return {"sparseness": sparseness(batch.maps)}


SPARSENESS = Metric(
    name="sparseness",
    columns=(
        Column(
            "sparseness",
            "Gini index in [0, 1]",
            "higher",
            undefined="for a map of zeros",
            meaning="how few pixels hold the map's magnitude",
        ),
    ),
    summaries=(Summary("sparseness_mean", "mean", ("sparseness",), "higher"),),
    compute=_compute,
    against_controls="sparseness",
    of_channel_sums=True,
)

"""The true error of a map: its distance from the converged map of the same path.

Completeness looks at a map's sum alone. Here every feature counts, against a reference whose own error
is known: it is computed twice, the second time with half of the intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.estimators.converged import Reference, relative_distance
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary

UNCOMPARED = "without a converged map, or where that is zero"
"""When a distance is not defined; angles and ranks are not of further maps."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How near maps are to a reference, each (…, B), float64, NaN where it is not defined.

    `error` ≥ 0 is ‖a − a_ref‖₁ / ‖a_ref‖₁ over all features; NaN for a zero reference. `cosine` and
    `rank_correlation` (Spearman's, equal values sharing their mean rank), in [−1, 1], compare the maps
    summed over channels; NaN if one of the two is zero, or constant for ranks.
    """

    error: Tensor
    cosine: Tensor
    rank_correlation: Tensor


def compare(maps: Tensor, reference: Tensor) -> Agreement:
    """Maps (B, C, H, W), or (S, B, C, H, W) for S maps an image, against a reference (B, C, H, W).

    Raises ValueError for maps of another shape or with NaN or infinity, and for such a reference.
    """
    check_images(reference, "reference")
    check_maps(maps, reference)
    return _agreement(maps, reference)


def _agreement(maps: Tensor, reference: Tensor) -> Agreement:
    """`compare`, without a look at the values, which would wait for the device."""
    target = _summed(reference)
    target_ranks = average_ranks(target)
    agreements = []
    for one in maps.reshape(-1, *reference.shape):
        summed = _summed(one)
        agreements.append(
            (
                relative_distance(one, reference),
                _cosine(summed, target),
                correlation(average_ranks(summed), target_ranks),
            )
        )
    shape = maps.shape[:-3]
    return Agreement(*(torch.stack(values).view(shape) for values in zip(*agreements, strict=True)))


def reference_columns(maps: Tensor, references: Sequence[Reference | None]) -> dict[str, Tensor]:
    """The columns of REFERENCE, each (S, B), float64, for maps (S, B, C, H, W).

    `references` holds one of each of the S maps' paths; NaN where there is none.
    """
    nowhere = torch.full(maps.shape[:2], torch.nan, dtype=torch.float64, device=maps.device)
    columns = {column.name: nowhere.clone() for column in REFERENCE.columns}
    for row, (one, reference) in enumerate(zip(maps, references, strict=True)):
        if reference is not None:
            agreement = _agreement(one, reference.maps)
            columns["reference_error"][row] = agreement.error
            columns["reference_cosine"][row] = agreement.cosine
            columns["reference_rank"][row] = agreement.rank_correlation
            columns["reference_residual"][row] = reference.residual
    return columns


def average_ranks(values: Tensor) -> Tensor:
    """The rank of each value in its row (N, P), 1 for the least, equal ones sharing their mean: float64."""
    values = values.contiguous()
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).double() / 2


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of rows (B, P): (B,), NaN where one of them is constant."""
    return correlation(average_ranks(a), average_ranks(b))


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of rows (…, P): (…), NaN where one of them is constant."""
    return _cosine(_centred(a), _centred(b))


def _summed(maps: Tensor) -> Tensor:
    """The channel sums of maps (B, C, H, W), float64: (B, H · W)."""
    return maps.sum(1, dtype=torch.float64).flatten(1)


def _centred(values: Tensor) -> Tensor:
    """Values less their mean over the last axis: zeros of constants, whatever the rounding of the mean."""
    constant = values.amax(-1, keepdim=True) == values.amin(-1, keepdim=True)
    return torch.where(constant, 0.0, values - values.mean(-1, keepdim=True))


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of the angle between rows (…, P): (…), NaN where one of them is zero."""
    # Scaled first: squares of small attributions would vanish.
    a, b = (row / row.abs().amax(-1, keepdim=True) for row in (a, b))
    return (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    return reference_columns(batch.maps, batch.references or [None] * len(batch.maps))


REFERENCE = Metric(
    name="reference",
    columns=(
        Column(
            "reference_error",
            "share of the converged map's L1 norm",
            "lower",
            undefined=UNCOMPARED,
            meaning="the true error: the L1 distance from the path's converged map",
        ),
        Column(
            "reference_cosine",
            "cosine in [-1, 1]",
            "higher",
            undefined=f"{UNCOMPARED} or the map is, both summed over channels",
            meaning="how the map points where the converged one does",
        ),
        Column(
            "reference_rank",
            "rank correlation in [-1, 1]",
            "higher",
            undefined=f"{UNCOMPARED}, and where one of the two is constant, both summed over channels",
            meaning="how pixels are in the order of the converged map",
        ),
        Column(
            "reference_residual",
            "share of the converged map's L1 norm",
            undefined=UNCOMPARED,
            meaning="how far the converged map is from that of half as many intervals",
        ),
    ),
    summaries=(
        Summary("reference_error_mean", "mean", ("reference_error",), "lower"),
        Summary("reference_error_median", "median", ("reference_error",), "lower"),
        Summary("reference_cosine_mean", "mean", ("reference_cosine",), "higher"),
        Summary("reference_rank_mean", "mean", ("reference_rank",), "higher"),
        Summary("reference_residual_median", "median", ("reference_residual",), "lower"),
    ),
    compute=_compute,
    needs_references=True,
)

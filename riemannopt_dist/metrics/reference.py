"""The true error of a map: its distance from the converged map of the same path.

Completeness looks at a map's sum alone. Here every feature counts, against a reference whose own error
is known: it is computed twice, the second time with half of the intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images
from riemannopt_dist.attribution import integrate_path
from riemannopt_dist.gradients import DEFAULT_INTERNAL_BATCH_SIZE, Output, value_and_gradient
from riemannopt_dist.guided_path import DEFAULT_WALK, Walk, guided_walk
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary
from riemannopt_dist.paths import Path, StraightPath
from riemannopt_dist.precision import sum_type
from riemannopt_dist.schedule import Array, linear_partition, schedule_from_partition

UNCOMPARED = "without a converged map, or where that or the map is zero or constant"
"""When a comparison is not defined."""
WALK_PIECES = 8
"""Into how many intervals each step of a guided walk is divided: 8 times its samples in all."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Converged maps (B, C, H, W), float32 or wider, how far they are from converged, and their cost.

    `residual` (B,), float64, is ‖a − a_half‖₁ / ‖a‖₁, with a_half from every other edge of the partition;
    NaN where the map is zero. The map's own error is nearly as large if errors fall like 1/n, as they do on
    networks with ReLUs, and a third of it if like 1/n². `gradient_evaluations` (B,), int64, pay for both.
    """

    maps: Tensor
    residual: Tensor
    gradient_evaluations: Tensor

    def spread(self, places: list[int], size: int) -> "Reference":
        """These as those at `places` of a batch of `size`; zero maps, without a residual, at the others."""
        maps = self.maps.new_zeros(size, *self.maps.shape[1:])
        residual = self.residual.new_full((size,), torch.nan)
        evaluations = self.gradient_evaluations.new_zeros(size)
        maps[places], residual[places] = self.maps, self.residual
        evaluations[places] = self.gradient_evaluations
        return Reference(maps, residual, evaluations)


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


def converge(
    model: nn.Module,
    path: Path,
    targets: Tensor,
    intervals: int,
    *,
    partition: Callable[[int], Array] = linear_partition,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Reference:
    """The trapezoid's maps with `intervals` intervals of the path, for intervals + 1 gradients an image.

    `partition` places the edges: equal intervals, unless a density's are given. Take at least 8 times
    the samples of the maps that will be compared. Raises ValueError for an odd number of intervals, which
    cannot be halved, and where `partition` gives another number than it is asked for.
    """
    if intervals < 2 or intervals % 2:
        raise ValueError(f"intervals: expected an even number of at least 2, got {intervals}")
    edges = partition(intervals)
    if len(edges) != intervals + 1:
        raise ValueError(f"partition: expected {intervals + 1} edges, got {len(edges)}")
    schedules = [schedule_from_partition(every, "trapezoid") for every in (edges, edges[::2])]
    fine, coarse = integrate_path(
        model, path, targets, schedules, output=output, internal_batch_size=internal_batch_size
    )
    return Reference(fine.maps, _relative_distance(coarse.maps, fine.maps), fine.gradient_evaluations)


def converge_walk(
    model: nn.Module,
    path: StraightPath,
    targets: Tensor,
    partition: Array,
    *,
    pieces: int = WALK_PIECES,
    walk: Walk = DEFAULT_WALK,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Reference:
    """The converged integral along the guided walk that `partition` (n + 1,) leads.

    The walk's corners stay those that its n steps found; each straight line between them is integrated by the
    trapezoid with `pieces` intervals. Raises ValueError for an odd number of them, which cannot be halved.
    """
    if pieces < 2 or pieces % 2:
        raise ValueError(f"pieces: expected an even number of at least 2, got {pieces}")
    settings: dict[str, Any] = {"output": output, "internal_batch_size": internal_batch_size}
    place = path.baselines.double()
    fine, coarse = torch.zeros_like(place), torch.zeros_like(place)
    for step, following in pairwise(guided_walk(model, path, targets, partition, walk=walk, **settings)):
        between = [(place + step.move * (j / pieces)).to(path.images.dtype) for j in range(1, pieces)]
        _, gradients = value_and_gradient(model, torch.cat(between), targets.repeat(pieces - 1), **settings)
        inner = gradients.view(pieces - 1, *place.shape).double()
        ends = (step.gradients.double() + following.gradients) / 2
        fine += (ends + inner.sum(0)) / pieces * step.move
        coarse += (ends + inner[1::2].sum(0)) / (pieces // 2) * step.move
        place = place + step.move
    wide = sum_type(path.images.dtype)
    fine, coarse = fine.to(wide), coarse.to(wide)
    evaluations = torch.full_like(targets, pieces * (len(partition) - 1) + 1)
    return Reference(fine, _relative_distance(coarse, fine), evaluations)


def compare(maps: Tensor, reference: Tensor) -> Agreement:
    """Maps (B, C, H, W), or (S, B, C, H, W) for S maps an image, against a reference (B, C, H, W).

    Raises ValueError for maps of another shape or with NaN or infinity, and for such a reference.
    """
    check_images(reference, "reference")
    check_maps(maps, reference)
    target = _summed(reference)
    target_ranks = _centred(average_ranks(target))
    found = []
    for one in maps.reshape(-1, *reference.shape):
        summed = _summed(one)
        found.append(
            (
                _relative_distance(one, reference),
                _cosine(summed, target),
                _cosine(_centred(average_ranks(summed)), target_ranks),
            )
        )
    shape = maps.shape[:-3]
    return Agreement(*(torch.stack(values).view(shape) for values in zip(*found, strict=True)))


def reference_columns(maps: Tensor, references: Sequence[Reference | None]) -> dict[str, Tensor]:
    """The columns of REFERENCE, each (S, B), float64, for maps (S, B, C, H, W).

    `references` holds one of each of the S maps' paths; NaN where there is none.
    """
    nowhere = torch.full(maps.shape[:2], torch.nan, dtype=torch.float64, device=maps.device)
    columns = {column.name: nowhere.clone() for column in REFERENCE.columns}
    for row, (one, reference) in enumerate(zip(maps, references, strict=True)):
        if reference is not None:
            found = compare(one, reference.maps)
            columns["reference_error"][row] = found.error
            columns["reference_cosine"][row] = found.cosine
            columns["reference_rank"][row] = found.rank_correlation
            columns["reference_residual"][row] = reference.residual
    return columns


def average_ranks(values: Tensor) -> Tensor:
    """The rank of each value in its row (N, P), 1 for the least, equal ones sharing their mean: float64."""
    values = values.contiguous()
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).double() / 2


def _relative_distance(maps: Tensor, reference: Tensor) -> Tensor:
    """‖a − b‖₁ / ‖b‖₁ of maps (B, C, H, W), summed in float64: (B,), NaN where b is zero."""
    maps, reference = (part.to(sum_type(part.dtype)) for part in (maps, reference))
    distance = (maps - reference).abs().flatten(1).sum(1, dtype=torch.float64)
    norm = reference.abs().flatten(1).sum(1, dtype=torch.float64)
    return torch.where(norm == 0, torch.nan, distance / norm)


def _summed(maps: Tensor) -> Tensor:
    """The channel sums of maps (B, C, H, W), float64: (B, H · W)."""
    return maps.sum(1, dtype=torch.float64).flatten(1)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of the angle between rows (B, P): (B,), NaN where one of them is zero."""
    # Scaled first: squares of small attributions would vanish.
    a, b = (row / row.abs().amax(1, keepdim=True) for row in (a, b))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    return reference_columns(batch.maps, batch.references or [None] * len(batch.maps))


REFERENCE = Metric(
    name="reference",
    cost="intervals + 1 gradients an image and path",
    columns=(
        Column("reference_error", "share of the converged map's L1 norm", "lower", undefined=UNCOMPARED),
        Column("reference_cosine", "cosine in [-1, 1]", "higher", undefined=UNCOMPARED),
        Column("reference_rank", "rank correlation in [-1, 1]", "higher", undefined=UNCOMPARED),
        Column("reference_residual", "share of the converged map's L1 norm", undefined=UNCOMPARED),
    ),
    summaries=(
        Summary("reference_error_mean", "mean", ("reference_error",), "lower"),
        Summary("reference_error_median", "median", ("reference_error",), "lower"),
        Summary("reference_cosine_mean", "mean", ("reference_cosine",), "higher"),
        Summary("reference_rank_mean", "mean", ("reference_rank",), "higher"),
        Summary("reference_residual_median", "median", ("reference_residual",), "lower"),
    ),
    compute=_compute,
)

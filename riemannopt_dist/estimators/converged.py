"""Converged maps: what a path's sums tend to, with an estimate of how far they are from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from riemannopt_dist.estimators.passes import sums_along
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.draws import Draws
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.table import WALK_PIECES
from riemannopt_dist.precision import sum_type
from riemannopt_dist.quadrature.rules import linear_partition, partition_of, schedule_from_partition
from riemannopt_dist.quadrature.schedule import Array, Schedule


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


def converge(
    objective: Objective,
    path: Path,
    intervals: int,
    *,
    partition: Callable[[int], Array] = linear_partition,
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
    return trapezoid(path, objective, edges)


def references(
    path: Path | GuidedPath | Draws,
    objective: Objective,
    schedules: Sequence[Schedule | None],
    edges: Array,
) -> list[Reference]:
    """The converged maps that those of each schedule are compared with; None is for points per image.

    Of a path that is known beforehand they are the same for all, by the trapezoid on `edges`. A guided walk
    is integrated as each schedule leads it. Of several draws of a baseline they are the mean over them.
    """
    if isinstance(path, Draws):
        of_draws = [references(member, objective, schedules, edges) for member in path.members]
        means: dict[tuple[int, ...], Reference] = {}
        for members in zip(*of_draws, strict=True):
            means.setdefault(tuple(map(id, members)), _mean(members))
        return [means[tuple(map(id, members))] for members in zip(*of_draws, strict=True)]
    if not isinstance(path, GuidedPath):
        return [trapezoid(path, objective, edges)] * len(schedules)
    walks: dict[tuple[float, ...], Reference] = {}
    converged = []
    for schedule in schedules:
        partition = edges if schedule is None else partition_of(schedule)[0]
        key = tuple(partition.tolist())
        if key not in walks:
            walks[key] = converge_walk(path, objective, partition)
        converged.append(walks[key])
    return converged


def _mean(members: Sequence[Reference]) -> Reference:
    """The mean of the converged maps of several draws, with the mean of their residuals."""
    return Reference(
        torch.stack([one.maps for one in members]).mean(0),
        torch.stack([one.residual for one in members]).mean(0),
        torch.stack([one.gradient_evaluations for one in members]).sum(0),
    )


def trapezoid(path: Path, objective: Objective, edges: Array) -> Reference:
    """The trapezoid's maps on `edges` (n + 1,) from 0 to 1, n even."""
    schedules = [schedule_from_partition(every, "trapezoid") for every in (edges, edges[::2])]
    fine, coarse = sums_along(path, objective, [(RiemannSums, schedule) for schedule in schedules])
    return Reference(fine.maps, relative_distance(coarse.maps, fine.maps), fine.gradient_evaluations)


def converge_walk(
    path: GuidedPath, objective: Objective, partition: Array, *, pieces: int = WALK_PIECES
) -> Reference:
    """The converged integral along the guided walk that `partition` (n + 1,) leads.

    The walk's corners stay those that its n steps found; each straight line between them is integrated by the
    trapezoid with `pieces` intervals. Raises ValueError for an odd number of them, which cannot be halved.
    """
    if pieces < 2 or pieces % 2:
        raise ValueError(f"pieces: expected an even number of at least 2, got {pieces}")
    targets, dtype = objective.targets, path.images.dtype
    inside = objective.of(torch.arange(len(targets), device=targets.device).repeat(pieces - 1))
    place = path.line.baselines.double()
    fine, coarse = torch.zeros_like(place), torch.zeros_like(place)
    for step, following in pairwise(path.steps(objective, partition)):
        between = [(place + step.move * (j / pieces)).to(dtype) for j in range(1, pieces)]
        _, gradients = inside.gradients(torch.cat(between))
        inner = gradients.view(pieces - 1, *place.shape).double()
        ends = (step.gradients.double() + following.gradients) / 2
        fine += (ends + inner.sum(0)) / pieces * step.move
        coarse += (ends + inner[1::2].sum(0)) / (pieces // 2) * step.move
        place = place + step.move
    wide = sum_type(dtype)
    fine, coarse = fine.to(wide), coarse.to(wide)
    evaluations = torch.full_like(targets, pieces * (len(partition) - 1) + 1)
    return Reference(fine, relative_distance(coarse, fine), evaluations)


def relative_distance(maps: Tensor, reference: Tensor) -> Tensor:
    """‖a − b‖₁ / ‖b‖₁ of maps (B, C, H, W), summed in float64: (B,), NaN where b is zero."""
    maps, reference = (part.to(sum_type(part.dtype)) for part in (maps, reference))
    distance = (maps - reference).abs().flatten(1).sum(1, dtype=torch.float64)
    norm = reference.abs().flatten(1).sum(1, dtype=torch.float64)
    return torch.where(norm == 0, torch.nan, distance / norm)

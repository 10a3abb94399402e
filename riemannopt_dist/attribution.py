"""Path attributions: Riemann sums of the gradient along a path, for a batch of images at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images, check_model, check_targets
from riemannopt_dist.end_weights import EndWeightedSums
from riemannopt_dist.gradients import (
    DEFAULT_INTERNAL_BATCH_SIZE,
    Output,
    PathSamples,
    micro_batches,
    sample_path,
    target_output,
)
from riemannopt_dist.important_direction import IdgiSums
from riemannopt_dist.paths import Path, StraightPath
from riemannopt_dist.precision import ieee_float32, sum_type
from riemannopt_dist.schedule import Array, Schedule


@dataclass(frozen=True, eq=False)
class Attribution:
    """Attribution maps (B, C, H, W) and what it takes to judge them.

    f_input and f_baseline (B,) are the explained output at the path's two ends, gradient_evaluations (B,)
    (int64) the number of gradients that each map alone costs. Maps and f are of the images' type, but of
    float32 for float16 and bfloat16, which would round away what the sums know. What rounding f has tell
    `output`, what f is, and `computed_in`, the type that the model computes in: that of f unless given.
    """

    maps: Tensor
    f_input: Tensor
    f_baseline: Tensor
    gradient_evaluations: Tensor
    output: Output = "probability"
    computed_in: torch.dtype | None = None


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    schedule: Schedule,
    *,
    baselines: Tensor | None = None,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Integrated Gradients (Sundararajan et al., 2017) of images (B, C, H, W), RGB in [0, 1].

    Σ_k w_k ∂f/∂γ(α_k) · (x − x′) along the straight path from `baselines` (black unless given) for class
    indices `targets` (B,). `internal_batch_size` bounds the memory and changes nothing beyond rounding.
    Raises ValueError for images that are not a finite floating-point batch and for targets that do not fit.
    """
    check_images(images)
    path = StraightPath(images, torch.zeros_like(images) if baselines is None else baselines)
    (result,) = integrate_path(
        model, path, targets, [schedule], output=output, internal_batch_size=internal_batch_size
    )
    return result


def integrate_path(
    model: nn.Module,
    path: Path,
    targets: Tensor,
    schedules: Sequence[Schedule],
    *,
    idgi: Sequence[Schedule] = (),
    end_weighted: Sequence[Schedule] = (),
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> list[Attribution]:
    """Sums along the same path under several schedules: Riemann sums, IDGI, and sums with end weights.

    An Attribution for each of `schedules`, `idgi` and `end_weighted`, in order. Every distinct point is
    evaluated once however many schedules hold it: linear left 16, 32 and 64 cost nothing beside 128. Those of
    `end_weighted` give their points only, the last of which must be 1; see end_weights.py.
    """
    images = path.images
    check_model(model)
    check_targets(targets, images, model)
    asked = [*schedules, *idgi, *end_weighted]
    points, weights = union_of_points(asked)
    wide = sum_type(images.dtype)
    maps = images.new_zeros((len(images), len(schedules), *images.shape[1:]), dtype=wide)
    values = images.new_empty((len(images), len(points)), dtype=wide)
    # IDGI needs f at both ends before it has come by the samples there, end weights at the start.
    early = {0.0: bool(idgi or end_weighted), 1.0: bool(idgi)}
    unsampled = [end for end in (0.0, 1.0) if early[end] or end not in points]
    ends = {end: _value_at(end, model, path, targets, output, internal_batch_size) for end in unsampled}
    further: list[IdgiSums | EndWeightedSums] = []
    if idgi:
        further.append(IdgiSums(idgi, points, images, ends[0.0], ends[1.0]))
    if end_weighted:
        starts, _ = path.at(*_everywhere(path, 0.0))
        further.append(EndWeightedSums(end_weighted, points, starts, ends[0.0], output))
    positions = np.broadcast_to(points, (len(images), len(points)))
    for samples in sample_path(
        model, path, targets, positions, output=output, internal_batch_size=internal_batch_size
    ):
        add_weighted(maps, samples, weights[: len(schedules), samples.columns])
        values[samples.rows, samples.columns] = samples.values.to(values)
        for sums in further:
            sums.add(samples)
    f_baseline, f_input = ends.get(0.0, values[:, 0]), ends.get(1.0, values[:, -1])
    made = [*maps.unbind(1), *(result for sums in further for result in sums.maps.unbind(1))]
    return [
        Attribution(
            result, f_input, f_baseline, torch.full_like(targets, len(schedule)), output, images.dtype
        )
        for result, schedule in zip(made, asked, strict=True)
    ]


def union_of_points(schedules: Sequence[Schedule]) -> tuple[Array, Array]:
    """The distinct points (K,) of several schedules in order, and each schedule's weights on them (S, K)."""
    if not schedules:
        raise ValueError("schedules: expected at least one, got none")
    points = np.unique(np.concatenate([schedule.points for schedule in schedules]))
    weights = np.zeros((len(schedules), len(points)))
    for row, schedule in zip(weights, schedules, strict=True):
        np.add.at(row, np.searchsorted(points, schedule.points), schedule.weights)
    return points, weights


@ieee_float32()
def add_weighted(maps: Tensor, samples: PathSamples, weights: Array) -> None:
    """Add a micro-batch's samples, weighted by `weights` (S, N), onto its images' maps (B, S, C, H, W).

    One matrix product an image for all schedules: its order of summation is fixed, which scattered additions
    on a GPU would not be, and it adds in place.
    """
    integrand = samples.integrand.flatten(1).to(maps)
    factors = torch.from_numpy(np.ascontiguousarray(weights)).to(maps)
    for row in range(int(samples.rows[0]), int(samples.rows[-1]) + 1):
        first, last = np.searchsorted(samples.rows, [row, row + 1]).tolist()
        maps[row].flatten(1).addmm_(factors[:, first:last], integrand[first:last])


def _value_at(
    end: float, model: nn.Module, path: Path, targets: Tensor, output: Output, internal_batch_size: int
) -> Tensor:
    """f at one end of the path, (B,)."""
    rows, positions = _everywhere(path, end)
    parts = []
    for part in micro_batches(len(targets), internal_batch_size):
        points, _ = path.at(rows[part], positions[part])
        parts.append(target_output(model, points, targets[part], output=output))
    return torch.cat(parts)


def _everywhere(path: Path, alpha: float) -> tuple[Tensor, Tensor]:
    """The rows of all images and the position α, as `Path.at` takes them."""
    count, device = len(path.images), path.images.device
    return (
        torch.arange(count, device=device),
        torch.full((count,), alpha, dtype=torch.float64, device=device),
    )

"""The front door of audits: the true error of maps, whatever tool they are from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.audit.needed import RULES, samples_needed
from riemannopt_dist.estimators.converged import converge, relative_distance
from riemannopt_dist.metrics.completeness import beyond_rounding
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path, PathFamily, begins_at_several
from riemannopt_dist.paths.draws import Draws
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.table import path_family
from riemannopt_dist.precision import sum_type

INTERVALS = 1024
"""Those of the converged maps."""
SHARE = 4
"""Sums are tried with at most one in so many of them: they are to be far coarser."""


@dataclass(frozen=True, eq=False)
class Audit:
    """How good maps are, each (…, B) as the maps are, but `residual` (B,); float64 but for the samples.

    `error` ≥ 0 is ‖a − a_ref‖₁ / ‖a_ref‖₁, of channel sums if the maps are summed over channels. `residual`
    is the converged map's own, see `Reference`: smaller errors than that are not known.

    `completeness_delta` is Σ_i a_i − (f(x) − f(x′)), and `relative_error` its size as a share of
    |f(x) − f(x′)|, NaN where f does not change.

    `samples` has for each of RULES how many samples on equal intervals it takes to be off by no more: the
    least number tried, int64, and 0 where that takes more than `most` intervals.
    """

    error: Tensor
    residual: Tensor
    completeness_delta: Tensor
    relative_error: Tensor
    samples: dict[str, Tensor]
    most: int


def audit_maps(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    path: str | PathFamily = "ig",
    intervals: int = INTERVALS,
) -> Audit:
    """Compare maps (B, C, H, W), or (S, B, C, H, W), of images (B, C, H, W) with the converged map of a path.

    The maps may be summed over channels, C being 1; they explain the `objective`. The converged map is the
    trapezoid's on `intervals` equal intervals of `path`, a name in PATHS or a family with its parameters.

    Attributions do not change when the input is scaled and shifted: a baseline of zero in a normalised input
    is that of the mean colour here.

    Raises ValueError for a path that is found step by step, images, targets and maps that do not fit, and an
    odd number of intervals.
    """
    check_images(images)
    expected = (
        images[:, :1] if isinstance(maps, Tensor) and maps.ndim in (4, 5) and maps.shape[-3] == 1 else images
    )
    check_maps(maps, expected)
    objective.check(images)
    stacked = maps.reshape(-1, *expected.shape)
    audits = [
        audit_image(objective.of([place]), images[place : place + 1], stacked[:, place], path, intervals)
        for place in range(len(images))
    ]
    return _together(audits, maps.shape[:-3])


def audit_image(
    objective: Objective, image: Tensor, maps: Tensor, path: str | PathFamily, intervals: int = INTERVALS
) -> Audit:
    """The audit of S maps (S, C, H, W), C possibly 1, of one image (1, C, H, W): its values are (S, 1)."""
    line = fixed_path(path).through(image)
    assert not isinstance(line, GuidedPath | Draws)
    reference = converge(objective, line, intervals)
    if not bool(reference.maps.isfinite().all()):
        raise ValueError("path: the converged map is not finite: the model's gradients are not")
    converged = _as_summed(reference.maps, maps)

    def error_of(others: Tensor) -> Tensor:
        return relative_distance(_as_summed(others, maps), converged)

    errors = error_of(maps.to(image.device, sum_type(maps.dtype)))
    most = most_intervals(intervals)
    needed = samples_needed(objective, line, errors, most, error_of)
    f_input, f_baseline = _ends(objective, line)
    change = beyond_rounding(f_input, f_baseline, image.dtype, objective.output)
    delta = maps.flatten(1).sum(1, dtype=torch.float64).to(image.device) - (f_input - f_baseline).double()
    relative = torch.where(change == 0, torch.nan, delta.abs() / change.abs())
    columns = (part[:, None] for part in (errors, delta, relative))
    error, completeness, gap = columns
    samples = {rule: count[:, None] for rule, count in needed.items()}
    return Audit(error, reference.residual, completeness, gap, samples, most)


def fixed_path(path: str | PathFamily) -> PathFamily:
    """The family of a path. Raises ValueError for one whose maps depend on the number of its steps."""
    family = path_family(path) if isinstance(path, str) else path
    if family.walked:
        raise ValueError(
            f"path: the converged map of {family.label} depends on the steps of its walk: expected a path "
            "that is known beforehand, such as ig or blur_ig"
        )
    if begins_at_several(family):
        raise ValueError(f"path: expected one from a single baseline, got {family.label}")
    return family


def most_intervals(intervals: int) -> int:
    """Those of the largest sum that is tried beside a converged map of so many."""
    return max(1, intervals // SHARE)


def _ends(objective: Objective, path: Path) -> tuple[Tensor, Tensor]:
    """f at the image and at the path's start, (1,) each."""
    start = path.images.new_zeros(1, dtype=torch.float64)
    baseline, _ = path.at(torch.zeros_like(objective.targets), start)
    return objective.values(path.images), objective.values(baseline)


def _as_summed(values: Tensor, maps: Tensor) -> Tensor:
    """Maps (N, C, H, W), summed over channels if `maps` are."""
    return values if values.shape[1] == maps.shape[1] else values.sum(1, keepdim=True)


def _together(audits: Sequence[Audit], shape: torch.Size) -> Audit:
    """The audits of B images as one, whose values are of `shape`, (B,) or (S, B)."""

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=1).reshape(shape)

    return Audit(
        joined([audit.error for audit in audits]),
        torch.cat([audit.residual for audit in audits]),
        joined([audit.completeness_delta for audit in audits]),
        joined([audit.relative_error for audit in audits]),
        {rule: joined([audit.samples[rule] for audit in audits]) for rule in RULES},
        audits[0].most,
    )

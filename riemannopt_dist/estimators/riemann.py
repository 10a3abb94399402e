"""Riemann sums Σ_k w_k g(α_k) of the integrand along a path, under any number of schedules at once."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from riemannopt_dist.estimators.passes import Pass
from riemannopt_dist.objective import Output, PathSamples, by_image
from riemannopt_dist.paths.guided import WalkStep
from riemannopt_dist.precision import ieee_float32, sum_type
from riemannopt_dist.quadrature.schedule import Array, Schedule
from riemannopt_dist.transfer import on_device


class RiemannSums:
    """The maps (B, S, C, H, W) of S schedules, built from a path's samples as they come."""

    early: tuple[float, ...] = ()

    def __init__(self, schedules: Sequence[Schedule], along: Pass) -> None:
        images = along.path.images
        shape = (len(images), len(schedules), *images.shape[1:])
        self.maps = images.new_zeros(shape, dtype=sum_type(images.dtype))
        self._weights = on_device(weights_at(along.points, schedules), images.device).to(self.maps)

    def add(self, samples: PathSamples) -> None:
        """Take in a micro-batch."""
        add_weighted(self.maps, samples, self._weights.index_select(1, samples.index[1]))

    @staticmethod
    def of_step(step: WalkStep, following: WalkStep, rule: str, output: Output) -> Tensor:
        """A walk's move, weighted with the gradient at its start, or the mean of those at both ends."""
        gradients = step.gradients
        if rule == "trapezoid":
            gradients = (gradients + following.gradients) / 2
        return gradients * step.move


def weights_at(points: Array, schedules: Sequence[Schedule]) -> Array:
    """The weights (S, K) of S schedules at points (K,) that hold all of theirs."""
    weights = np.zeros((len(schedules), len(points)))
    for row, schedule in zip(weights, schedules, strict=True):
        np.add.at(row, np.searchsorted(points, schedule.points), schedule.weights)
    return weights


@ieee_float32()
def add_weighted(maps: Tensor, samples: PathSamples, weights: Tensor) -> None:
    """Add a micro-batch's integrand, weighted by `weights` (S, N), onto its images' maps (B, S, C, H, W).

    One matrix product an image for all schedules: its order of summation is fixed, which scattered additions
    on a GPU would not be, and it adds in place.
    """
    integrand, factors = samples.integrand.flatten(1).to(maps), weights.to(maps)
    for row, part in by_image(samples.rows):
        maps[row].flatten(1).addmm_(factors[:, part], integrand[part])

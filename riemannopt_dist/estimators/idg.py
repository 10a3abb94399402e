"""Integrated Decision Gradients (Walker et al., AAAI 2024): gradients weighted by the rise of the output.

∫ ∂f/∂γ · dγ/dα · df/dα dα along a path: where f is flat, as where it is saturated, a gradient counts for
nothing. df/dα at a sample is (f_k − f_{k−1}) / (α_k − α_{k−1}), and 0 at the first, as in the authors' code
(github.com/chasewalker26/Integrated-Decision-Gradients), which divides maps by the number of samples besides.
The maps do not sum to f(x) − f(x′).
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from riemannopt_dist.estimators.passes import Pass
from riemannopt_dist.estimators.riemann import add_weighted, weights_at
from riemannopt_dist.objective import Index, Output, PathSamples
from riemannopt_dist.paths.guided import WalkStep
from riemannopt_dist.precision import sum_type
from riemannopt_dist.quadrature.schedule import Array, Schedule
from riemannopt_dist.transfer import on_device


class IdgSums:
    """IDG's maps of several schedules, built from a path's samples as they come: (B, S, C, H, W)."""

    early: tuple[float, ...] = ()

    def __init__(self, schedules: Sequence[Schedule], along: Pass) -> None:
        images, points = along.path.images, along.points
        wide = sum_type(images.dtype)
        before, gaps = _previous(schedules, points)
        self._before = on_device(before, images.device)
        self._weights = on_device(weights_at(points, schedules) / gaps, images.device).to(wide)
        self._values = images.new_zeros((len(images), len(points)), dtype=wide)
        self.maps = images.new_zeros((len(images), len(schedules), *images.shape[1:]), dtype=wide)

    def add(self, samples: PathSamples) -> None:
        """Take in a micro-batch; samples come image by image, in order of position."""
        rows, columns = samples.index
        self._values[rows, columns] = samples.values.to(self._values)
        rises = self._values[rows, columns] - self._values[rows, self._before[:, columns]]
        add_weighted(self.maps, samples, self._weights[:, columns] * rises)

    @staticmethod
    def of_step(step: WalkStep, following: WalkStep, rule: str, output: Output) -> Tensor:
        """ValueError: a walk's step does not tell f at the one before."""
        raise ValueError("path: Integrated Decision Gradients need a path that is known beforehand")


def _previous(schedules: Sequence[Schedule], points: Array) -> tuple[Index, Array]:
    """The column of the point before each of a schedule's own, and how far it is: (S, K) each.

    Infinitely far for the first, and for points that a schedule does not hold.
    """
    before = np.zeros((len(schedules), len(points)), dtype=np.int64)
    gaps = np.full(before.shape, np.inf)
    for row, schedule in enumerate(schedules):
        columns = np.searchsorted(points, np.unique(schedule.points))
        before[row, columns[1:]] = columns[:-1]
        gaps[row, columns[1:]] = np.diff(points[columns])
    return before, gaps

"""Path-weighted Integrated Gradients (Kamalov et al., arXiv 2509.17491): some of the path counts more.

∫ w(α) ∂f/∂γ · dγ/dα dα, the weighting w being known beforehand: late, early or in the middle of the path. As
in the authors' code (github.com/malfalasi1017/Weighted-Integrated-Gradients) a sum takes the mean of the
gradients at both ends of an interval, weighted by w at its right end times its length; the weights are scaled
to sum to 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from riemannopt_dist.estimators.passes import Pass, Sums
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.objective import Output
from riemannopt_dist.paths.guided import WalkStep
from riemannopt_dist.quadrature.rules import partition_of
from riemannopt_dist.quadrature.schedule import Array, Schedule


def weighted(schedule: Schedule, weighting: Callable[[Array], Array]) -> Schedule:
    """A trapezoid's schedule with its intervals weighted. ValueError where these weigh nothing together."""
    edges, _ = partition_of(schedule)
    weights = np.diff(edges) * weighting(edges[1:])
    if not weights.sum() > 0:
        raise ValueError(f"schedule: expected an interval whose weight is not 0, got edges {edges}")
    halves = weights / weights.sum() / 2
    return replace(schedule, weights=tuple(np.append(halves, 0) + np.insert(halves, 0, 0)))


class _PathWeightedSums(RiemannSums):
    def __init__(self, schedules: Sequence[Schedule], along: Pass) -> None:
        super().__init__([weighted(schedule, self.weighting) for schedule in schedules], along)

    @staticmethod
    def weighting(alphas: Array) -> Array:
        """The weight of the path at positions."""
        raise NotImplementedError

    @staticmethod
    def of_step(step: WalkStep, following: WalkStep, rule: str, output: Output) -> Tensor:
        """ValueError: a walk's step does not tell where it is."""
        raise ValueError("path: a weighted path has to be known beforehand")


class LateSums(_PathWeightedSums):
    """w(α) = α: near the image."""

    @staticmethod
    def weighting(alphas: Array) -> Array:
        """The position itself."""
        return alphas


class EarlySums(_PathWeightedSums):
    """w(α) = 1 − α: near the baseline."""

    @staticmethod
    def weighting(alphas: Array) -> Array:
        """How far the image is."""
        return 1 - alphas


class MiddleSums(_PathWeightedSums):
    """w(α) = 6 α (1 − α): half way, as Beta(2, 2)."""

    @staticmethod
    def weighting(alphas: Array) -> Array:
        """A parabola that is 0 at both ends."""
        return 6 * alphas * (1 - alphas)


PATH_WEIGHTED: dict[str, type[Sums]] = {
    "path_weighted_late": LateSums,
    "path_weighted_early": EarlySums,
    "path_weighted_middle": MiddleSums,
}
"""The sums of each estimator."""

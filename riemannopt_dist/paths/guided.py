"""Guided Integrated Gradients (Kapishnikov et al., CVPR 2021): a path that moves insensitive features first.

The path is not known beforehand: the gradient at the end of each step decides which features the next one
moves.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import Guided
from riemannopt_dist.quadrature.schedule import Array

DEFAULT_WALK = Guided()


@dataclass(frozen=True)
class WalkStep:
    """One step of B walks: f (B,) and ∂f/∂x (B, C, H, W) where it starts, its move (B, C, H, W), float64.

    `remaining` counts the steps to the image, this one included.
    """

    values: Tensor
    gradients: Tensor
    move: Tensor
    remaining: int


@dataclass(frozen=True)
class GuidedPath:
    """The guided walks of B images, near the straight `line` of each."""

    line: StraightPath
    walk: Guided = DEFAULT_WALK

    @property
    def images(self) -> Tensor:
        """The walks' ends, (B, C, H, W)."""
        return self.line.images

    def steps(self, objective: Objective, partition: Array) -> Iterator[WalkStep]:
        """The n steps of the walks along a partition (n + 1,), then a step of no move at the image.

        The partition 0 = b_0 < … < b_n = 1 sets how far each step goes: step k ends where the L1 distance to
        the image is (1 − b_k) of the whole. Each step costs one gradient when it is asked for, so a consumer
        that stops before the last saves one. The moves of a walk sum to x − x′. The state is float64, as in
        the original.
        """
        objective.check(self.images)
        start = self.line.baselines.double()
        difference = self.images.double() - start
        progress = torch.zeros_like(difference)
        goals = [*partition[1:].tolist(), None]
        for number, goal in enumerate(goals):
            place = (start + progress * difference).to(self.images.dtype)
            values, gradients = objective.gradients(place)
            reached = progress if goal is None else self._reached(progress, gradients, difference, goal)
            yield WalkStep(values, gradients, (reached - progress) * difference, len(goals) - 1 - number)
            progress = reached

    def _reached(self, progress: Tensor, gradients: Tensor, difference: Tensor, goal: float) -> Tensor:
        """The progress after a step towards `goal`, all (B, C, H, W)."""
        sensitivity, distance = gradients.flatten(1).abs(), difference.flatten(1).abs()
        return advance(progress.flatten(1), sensitivity, distance, goal, self.walk).view_as(progress)


def advance(progress: Tensor, sensitivity: Tensor, distance: Tensor, goal: float, walk: Guided) -> Tensor:
    """Each feature's progress (B, d) from 0 at the baseline to 1 at the image after one step towards `goal`.

    `sensitivity` (B, d) is |∂f/∂x| and `distance` (B, d) is |x − x′|. Features that lag more than `max_dist`
    behind the goal catch up. Then the least sensitive `fraction` of all features go to `max_dist` ahead, and
    the next ones, until the distance left is (1 − goal) of the whole; the last ones go part of the way.
    """
    low, high = max(goal - walk.max_dist, 0.0), min(goal + walk.max_dist, 1.0)
    features = distance.shape[1]
    rank = math.floor(walk.fraction * (features - 1)) + 1
    progress = progress.clamp_min(low)
    room = distance * (high - progress)
    left = (distance * (1 - progress)).sum(1, keepdim=True)
    target = distance.sum(1, keepdim=True) * (1 - goal)
    share = torch.zeros_like(progress)  # of the way from `progress` to `high`
    candidates = sensitivity.masked_fill((distance == 0) | (progress == high), math.inf)
    # Every pass that does not finish an image takes at least `rank` of its candidates all the way.
    for number in range(math.ceil(features / rank)):
        going = (left - target).abs() > walk.closeness * torch.maximum(left, target).clamp_min(1)
        if _is_checked(number, progress.device) and not going.any():
            break
        threshold = _kth_smallest(candidates, rank)
        chosen = going & (candidates <= threshold) & (candidates < math.inf)
        within_reach = torch.where(chosen, room, 0.0).sum(1, keepdim=True)
        part = torch.where(within_reach > 0, (left - target) / within_reach, 1.0).clamp_max(1)
        share = torch.where(chosen, part, share)
        left = left - part * within_reach
        candidates = candidates.masked_fill(chosen, math.inf)
    return torch.lerp(progress, progress.new_full((), high), share)


def _is_checked(number: int, device: torch.device) -> bool:
    """Whether pass `number` is made only if an image needs it; else it changes nothing for those that do not.

    On the CPU alone every one. Elsewhere a look waits for all that the device has yet to do, and the passes
    are checked that begin the second half of 4, 8, 16, …: once a step that has up to four.
    """
    return device.type == "cpu" or (number > 1 and number.bit_count() == 1)


def _kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest, counted from 1, of each row (B, d): (B, 1)."""
    if values.device.type == "cpu":  # NumPy's selection is vectorised, and twice as fast
        return torch.from_numpy(np.partition(values.numpy(), k - 1, axis=1)[:, k - 1 : k])
    return values.kthvalue(k, dim=1, keepdim=True).values

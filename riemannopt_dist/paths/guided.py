"""Guided Integrated Gradients (Kapishnikov et al., CVPR 2021): a path that moves insensitive features first.

The path is not known beforehand: the gradient at the end of each step decides which features the next one
moves.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.ranks import ranked
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import Guided
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.transfer import on_device

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

    def repeated(self, times: int) -> "GuidedPath":
        """The walks of all images, and again: those of (times · B) images."""
        images, baselines = (part.repeat(times, 1, 1, 1) for part in (self.line.images, self.line.baselines))
        return self if times == 1 else replace(self, line=StraightPath(images, baselines))

    def steps(self, objective: Objective, partition: Array) -> Iterator[WalkStep]:
        """The n steps of the walks along a partition, then a step of no move at the image.

        The partition 0 = b_0 < … < b_n = 1, (n + 1,) for all images or (B, n + 1), sets how far each step
        goes: step k ends where the L1 distance to the image is (1 − b_k) of the whole. Each step costs one
        gradient when it is asked for, so a consumer that stops before the last saves one. The moves of a walk
        sum to x − x′. The state is float64, as in the original.
        """
        objective.check(self.images)
        start = self.line.baselines.double()
        difference = self.images.double() - start
        distance, progress = difference.abs(), torch.zeros_like(difference)
        goals = [*torch.split(on_device(np.atleast_2d(partition)[:, 1:], start.device), 1, dim=1), None]
        for number, goal in enumerate(goals):
            place = torch.addcmul(start, progress, difference).to(self.images.dtype)
            values, gradients = objective.gradients(place)
            reached = progress if goal is None else self._reached(progress, gradients, distance, goal)
            yield WalkStep(values, gradients, (reached - progress) * difference, len(goals) - 1 - number)
            progress = reached

    def _reached(self, progress: Tensor, gradients: Tensor, distance: Tensor, goal: Tensor) -> Tensor:
        """The progress after a step towards `goal` (B or 1, 1), all others (B, C, H, W)."""
        flat = progress.flatten(1), gradients.flatten(1), distance.flatten(1), goal.expand(len(progress), 1)
        # A CPU's caches hold what one image needs, not a batch.
        size = 1 if progress.device.type == "cpu" else len(progress)
        parts = [torch.split(part, size) for part in flat]
        reached = [advance(a, g, d, end, self.walk) for a, g, d, end in zip(*parts, strict=True)]
        return torch.cat(reached).view_as(progress)


def advance(progress: Tensor, gradients: Tensor, distance: Tensor, goal: Tensor, walk: Guided) -> Tensor:
    """Each feature's progress (B, d) from 0 at the baseline to 1 at the image after one step towards `goal`.

    `gradients` (B, d) are ∂f/∂x, `distance` (B, d) is |x − x′|, and `goal` (B or 1, 1) is in [0, 1].
    Features that lag more than `max_dist` behind the goal catch up. Then the least sensitive `fraction` of
    all features go to `max_dist` ahead, and the next ones, until the distance left is (1 − goal) of the
    whole; the last ones go part of the way.
    """
    low, high = (goal - walk.max_dist).clamp_min(0), (goal + walk.max_dist).clamp_max(1)
    features = distance.shape[1]
    rank = math.floor(walk.fraction * (features - 1)) + 1
    progress = torch.maximum(progress, low)
    room = distance * (high - progress)
    total = distance.sum(1, keepdim=True)
    left, target = total - torch.linalg.vecdot(distance, progress)[:, None], total * (1 - goal)
    # Those that have nowhere to go come last. Masks are multiplied: on a CPU that takes a tenth of `where`.
    highest = torch.finfo(gradients.dtype).max
    candidates = torch.add(gradients.abs(), (room == 0).to(gradients), alpha=highest)
    of_rank = ranked(candidates)
    last = torch.full_like(candidates[:, :1], -math.inf)  # up to it features go, `part` of the way,
    whole, part = last, torch.ones_like(left)  # and those up to `whole` go all of it
    chosen = torch.zeros_like(room)  # 1 for those up to `last`
    taken = reach = torch.zeros_like(left)  # how many they are, and what room they have
    # Every pass that does not finish an image takes at least `rank` of its candidates all the way.
    for number in range(math.ceil(features / rank)):
        going = (left - target).abs() > walk.closeness * torch.maximum(left, target).clamp_min(1)
        if _is_checked(number, progress.device) and not going.any():
            break
        sought = (taken + rank).clamp_max(features).long() - 1
        threshold = torch.where(going, of_rank(sought).clamp_max(highest), last)
        chosen = (candidates <= threshold).to(room)
        further = torch.linalg.vecdot(room, chosen)[:, None]
        within_reach = further - reach
        part = torch.where(within_reach > 0, ((left - target) / within_reach).clamp_max(1), part)
        left = left - part * within_reach
        whole, last = torch.where(going, last, whole), threshold
        taken, reach = chosen.sum(1, keepdim=True), further
    share = (chosen * part).addcmul_((candidates <= whole).to(room), 1 - part)
    return torch.lerp(progress, high, share)


def _is_checked(number: int, device: torch.device) -> bool:
    """Whether pass `number` is made only if an image needs it; else it changes nothing for those that do not.

    On the CPU alone every one. Elsewhere a look waits for all that the device has yet to do, and the passes
    are checked that begin the second half of 4, 8, 16, …: once a step that has up to four.
    """
    return device.type == "cpu" or (number > 1 and number.bit_count() == 1)

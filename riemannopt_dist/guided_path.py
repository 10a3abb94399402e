"""Guided Integrated Gradients (Kapishnikov et al., CVPR 2021): a path that moves insensitive features first.

The path is not known beforehand: the gradient at the end of each step decides which features the next one
moves. `guided_walk` is the path; attributions are sums over its steps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images, check_model, check_targets
from riemannopt_dist.attribution import Attribution
from riemannopt_dist.choices import CLOSENESS, FRACTION, MAX_DIST
from riemannopt_dist.end_weights import end_weights
from riemannopt_dist.gradients import (
    DEFAULT_INTERNAL_BATCH_SIZE,
    Output,
    target_output,
    value_and_gradient,
)
from riemannopt_dist.important_direction import squared_shares
from riemannopt_dist.paths import StraightPath
from riemannopt_dist.precision import sum_type
from riemannopt_dist.schedule import Array, Schedule, partition_of


@dataclass(frozen=True)
class Walk:
    """How a walk goes, by the original's defaults.

    `fraction` in (0, 1] of the features, those with the smallest gradients, move at a time; none strays from
    the straight line by more than `max_dist` in [0, 1], in units of α. `closeness` is how near, relative or
    absolute, the L1 distance must come to a step's goal: the original's ε. `baseline` in [0, 1] is the colour
    that a walk starts from where no image is given: one value, or one a channel.

    RiemannOpt's authors take 0.5 for the fraction, 1e-4 for ε, and the mean colour of ImageNet.
    """

    fraction: float = FRACTION
    max_dist: float = MAX_DIST
    closeness: float = CLOSENESS
    baseline: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: expected a number above 0 and at most 1, got {self.fraction!r}")
        if not 0 <= self.max_dist <= 1:
            raise ValueError(f"max_dist: expected a number in [0, 1], got {self.max_dist!r}")
        if not 0 <= self.closeness < 1:
            raise ValueError(
                f"closeness: expected a number of at least 0 and below 1, got {self.closeness!r}"
            )
        if not self.baseline or not all(0 <= value <= 1 for value in self.baseline):
            raise ValueError(f"baseline: expected numbers in [0, 1], got {self.baseline!r}")

    def line(self, images: Tensor) -> StraightPath:
        """The straight line from the baseline's colour to images (B, C, H, W)."""
        colour = images.new_tensor(self.baseline)[:, None, None]
        return StraightPath(images, colour.expand_as(images))


DEFAULT_WALK = Walk()


@dataclass(frozen=True)
class WalkStep:
    """One step of B walks: f (B,) and ∂f/∂x (B, C, H, W) where it starts, its move (B, C, H, W), float64.

    `remaining` counts the steps to the image, this one included.
    """

    values: Tensor
    gradients: Tensor
    move: Tensor
    remaining: int


def guided_ig(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    schedule: Schedule,
    *,
    baselines: Tensor | None = None,
    fraction: float = FRACTION,
    max_dist: float = MAX_DIST,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Guided IG of images (B, C, H, W), RGB in [0, 1], from `baselines` (black unless given).

    The schedule's partition 0 = b_0 < … < b_n = 1 sets how far each step goes: step k ends where the L1
    distance to the image is (1 − b_k) of the whole. A left schedule weights each move with the gradient at
    its start, as the original does; a trapezoid schedule with the mean of the gradients at its two ends.
    `fraction` and `max_dist` are those of `Walk`.

    Raises ValueError for a schedule of another rule, and for arguments outside these ranges.
    """
    check_images(images)
    path = StraightPath(images, torch.zeros_like(images) if baselines is None else baselines)
    return guided_sums(
        model,
        path,
        targets,
        schedule,
        walk=Walk(fraction, max_dist),
        output=output,
        internal_batch_size=internal_batch_size,
    ).riemann


@dataclass(frozen=True)
class GuidedSums:
    """The three kinds of sum along one walk; end weights need both ends, which the left rule lacks."""

    riemann: Attribution
    idgi: Attribution
    end_weighted: Attribution | None


def guided_sums(
    model: nn.Module,
    path: StraightPath,
    targets: Tensor,
    schedule: Schedule,
    *,
    walk: Walk = DEFAULT_WALK,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> GuidedSums:
    """Guided IG, IDGI and end weights along the same walk, paid for once. Arguments as for `guided_ig`.

    The walk is along `path`, whatever the baseline of `walk`.
    """
    partition, rule = partition_of(schedule)
    if rule == "right":
        raise ValueError("schedule: a guided walk takes the left or the trapezoid rule, got the right rule")
    images = path.images
    steps = guided_walk(
        model,
        path,
        targets,
        partition,
        walk=walk,
        output=output,
        internal_batch_size=internal_batch_size,
    )
    first = step = next(steps)
    riemann, idgi, end_weighted = (torch.zeros_like(step.move) for _ in range(3))
    for _ in range(len(partition) - 1):
        if rule == "left" and step.remaining == 1:
            # Nothing is asked of the gradient at the image, which is then not computed.
            at_image = target_output(
                model, images, targets, output=output, internal_batch_size=internal_batch_size
            )
            following = replace(step, values=at_image)
        else:
            following = next(steps)
        change = (following.values - step.values).double()[:, None, None, None]
        gradients, shares = step.gradients, squared_shares(step.gradients)
        if rule == "trapezoid":
            gradients = (gradients + following.gradients) / 2
            shares = (shares + squared_shares(following.gradients)) / 2
            weights = end_weights(step.values, following.values, output)[..., None, None, None]
            average = weights[:, 0] * step.gradients + weights[:, 1] * following.gradients
            end_weighted += average * step.move
        riemann += gradients * step.move
        idgi += shares * change
        step = following
    evaluations = torch.full_like(targets, len(schedule))
    made = (
        Attribution(
            maps.to(sum_type(images.dtype)), step.values, first.values, evaluations, output, images.dtype
        )
        for maps in (riemann, idgi, end_weighted)
    )
    found = GuidedSums(*made)
    return found if rule == "trapezoid" else replace(found, end_weighted=None)


def guided_variation(
    model: nn.Module,
    path: StraightPath,
    targets: Tensor,
    alphas: Array,
    *,
    walk: Walk = DEFAULT_WALK,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Array:
    """`path_variation` along the walk that `alphas` (k,), from 0 to 1, lead: (B, k − 1).

    The integrand at α is ∂f/∂γ · dγ/dα, with the step's mean speed, move / Δα, for dγ/dα. The last interval
    has no step after it to compare with and repeats the value before. Raises ValueError for fewer than three
    positions.
    """
    if len(alphas) < 3:
        raise ValueError(f"samples: expected at least 3, for two steps to compare, got {len(alphas)}")
    steps = guided_walk(
        model, path, targets, alphas, walk=walk, output=output, internal_batch_size=internal_batch_size
    )
    widths = np.diff(alphas)
    # The widths first: once they are used up, no further step is asked for.
    integrands = (step.gradients * step.move / width for width, step in zip(widths, steps, strict=False))
    changes = [(b - a).abs().flatten(1).mean(1).cpu().numpy() for a, b in pairwise(integrands)]
    variation = np.stack(changes, axis=1) / widths[:-1]
    return np.concatenate([variation, variation[:, -1:]], axis=1)


def guided_walk(
    model: nn.Module,
    path: StraightPath,
    targets: Tensor,
    partition: Array,
    *,
    walk: Walk = DEFAULT_WALK,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Iterator[WalkStep]:
    """The n steps of B guided walks along a partition (n + 1,), then a step of no move at the image.

    Each step costs one gradient when it is asked for, so a consumer that stops before the last saves one.
    The moves of a walk sum to x − x′. The state is float64, as in the original.
    """
    check_model(model)
    check_targets(targets, path.images, model)
    start = path.baselines.double()
    difference = path.images.double() - start
    progress = torch.zeros_like(difference)
    goals = [*partition[1:].tolist(), None]
    for number, goal in enumerate(goals):
        values, gradients = value_and_gradient(
            model,
            (start + progress * difference).to(path.images.dtype),
            targets,
            output=output,
            internal_batch_size=internal_batch_size,
        )
        reached = (
            progress
            if goal is None
            else advance(
                progress.flatten(1),
                gradients.flatten(1).abs(),
                difference.flatten(1).abs(),
                goal,
                walk,
            ).view_as(progress)
        )
        yield WalkStep(values, gradients, (reached - progress) * difference, len(goals) - 1 - number)
        progress = reached


def advance(progress: Tensor, sensitivity: Tensor, distance: Tensor, goal: float, walk: Walk) -> Tensor:
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
    for _ in range(math.ceil(features / rank)):
        going = (left - target).abs() > walk.closeness * torch.maximum(left, target).clamp_min(1)
        if not going.any():
            break
        threshold = _kth_smallest(candidates, rank)
        chosen = going & (candidates <= threshold) & (candidates < math.inf)
        within_reach = torch.where(chosen, room, 0.0).sum(1, keepdim=True)
        part = torch.where(within_reach > 0, (left - target) / within_reach, 1.0).clamp_max(1)
        share = torch.where(chosen, part, share)
        left = left - part * within_reach
        candidates = candidates.masked_fill(chosen, math.inf)
    return torch.lerp(progress, progress.new_tensor(high), share)


def _kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest, counted from 1, of each row (B, d): (B, 1)."""
    if values.device.type == "cpu":  # NumPy's selection is vectorised, and twice as fast
        return torch.from_numpy(np.partition(values.numpy(), k - 1, axis=1)[:, k - 1 : k])
    return values.kthvalue(k, dim=1, keepdim=True).values

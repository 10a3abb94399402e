"""Path attributions with points placed for each image: where its own sum is least certain.

The sum over an interval [a, b] of the path, with gradients G_a and G_b there, is the softmax-weighted
trapezoid's.
Gradients of a network with kinks are rough: between two samples they
behave like a random walk, which leaves an error of ‖(G_b − G_a) (γ(b) − γ(a))‖₁ / √12 in expectation,
independent of the other intervals'. The error is at least the gap between f(γ(b)) − f(γ(a)) and the sum over
features, which shows a rise between two samples that agree. The larger of the two is the interval's error.
The intervals with the largest are bisected, in the coordinate in which the data set's profile is even; every
evaluation is kept. At a path's start the softmax mostly is flat, which its value tells: a gradient there is
taken as zero and not spent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.arguments import check_positive
from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.base import Placed
from riemannopt_dist.estimators.softmax_trapezoid import end_weights, interval_sums
from riemannopt_dist.objective import (
    Objective,
    Output,
    micro_batches,
    output_rounding,
)
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.precision import sum_type
from riemannopt_dist.quadrature.placement.equidistribution import density_coordinate
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.transfer import on_device

START = 6
AT_A_TIME = 1
"""Tuned on images of a fit subset: one interval at a time, each chosen with all that is known by then."""

SAFETY = 1.6
"""What the expected error is multiplied by: true errors of EfficientNet-Lite0's maps (Integrated Gradients
and Blur IG, ImageNet photos) were 0.8 to 1.6 times the expected one from 16 samples on."""

FLAT = 0.01
"""Where p (1 − p) is less, the gradient at a path's start is taken as zero: it reaches 1/4 on a rise."""


def adaptive_attribution(
    objective: Objective,
    path: Path,
    profile: Profile,
    samples: int,
    *,
    start: int = START,
    at_a_time: int = AT_A_TIME,
) -> Attribution:
    """The attribution of each image from `samples` gradient evaluations, placed where its map needs them.

    The first `start` points (or `samples`, if fewer) share the profile's ∫|g′|^½ evenly; the path's end is
    among them, and its start unless f is flat there. Then `at_a_time` intervals of every image are bisected
    in each round. Probabilities take one forward pass more, at the start. Images are refined together in
    groups of ⌈internal_batch_size / at_a_time⌉, so that a round fills a micro-batch. Memory: every gradient
    of a group and its place on the path, 2 · samples · (C, H, W) an image.

    Raises ValueError unless samples and start are at least 2, and for targets that do not fit the images.
    """
    _check_ends(samples, "samples")
    return _refine(_Sampler(objective, path, profile), start, at_a_time, samples, lambda _: False)


def adaptive_to_tolerance(
    objective: Objective,
    path: Path,
    profile: Profile,
    tolerance: float,
    *,
    maximum: int = 256,
    start: int = START,
    at_a_time: int = AT_A_TIME,
) -> Attribution:
    """The attribution of each image, refined until its estimated error is at most `tolerance`.

    The error is ‖a − a*‖₁ / ‖a*‖₁ with a* the converged map. The estimate is `SAFETY` √(Σ error²) / ‖a‖₁ over
    the intervals: no bound, and like every estimate blind to what comes and goes between two samples.

    `gradient_evaluations` says what each image took, `maximum` at most. An image that is done makes room for
    the next one. Memory grows as images need it, to that of `adaptive_attribution` with `maximum` samples.

    Raises ValueError unless tolerance is positive and finite and maximum and start are at least 2, and for
    targets that do not fit the images.
    """
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance: expected a positive finite number, got {tolerance!r}")
    _check_ends(maximum, "maximum")

    def is_good_enough(image_sum: _Sum) -> bool:
        return SAFETY * image_sum.error <= tolerance * image_sum.magnitude

    return _refine(_Sampler(objective, path, profile), start, at_a_time, maximum, is_good_enough)


def refined_where_needed(objective: Objective, path: Path | GuidedPath, placed: Placed) -> Attribution:
    """The attribution from points of each image's own. Raises ValueError for a walk."""
    if isinstance(path, GuidedPath):
        raise ValueError("path: points per image need a path that is known beforehand")
    profile = placed.known_profile
    if placed.tolerance is None:
        return adaptive_attribution(objective, path, profile, placed.samples)
    return adaptive_to_tolerance(objective, path, profile, placed.tolerance, maximum=placed.samples)


class _Point(NamedTuple):
    """A place on one image's path, by its share u of the profile, with f (), γ (C, H, W) and ∂f/∂γ there."""

    share: float
    value: Tensor
    place: Tensor
    gradient: Tensor


Ends = tuple[_Point, _Point]


class _Interval(NamedTuple):
    left: _Point
    right: _Point
    error: float

    @property
    def urgency(self) -> tuple[float, float]:
        """Largest for the interval to bisect next: the widest among those with the same error."""
        return self.error, self.right.share - self.left.share


@dataclass(eq=False)
class _Sum:
    """One image's sum in the making: its intervals, those that are being bisected, and the `total`.

    `row` is the image's index, `origin` the path's start where its gradient is taken as zero, `ends` are f at
    the path's two ends, magnitude is ‖total‖₁.
    """

    row: int
    total: Tensor
    origin: _Point | None
    intervals: list[_Interval] = field(default_factory=list)
    opened: list[_Interval] = field(default_factory=list)
    ends: tuple[float, float] = (math.nan, math.nan)
    magnitude: float = math.nan

    @property
    def evaluations(self) -> int:
        return len(self.intervals) + (self.origin is None)

    @property
    def error(self) -> float:
        """The expected ‖error‖₁ of `total`."""
        return math.sqrt(math.fsum(interval.error**2 for interval in self.intervals))

    def open(self, start: int, count: int) -> list[float]:
        """Where to evaluate next: `start` even shares at first, then in `count` most urgent intervals."""
        if not self.intervals:
            known = int(self.origin is not None)
            return [float(share) for share in np.linspace(0.0, 1.0, start + known)[known:]]
        ordered = sorted(self.intervals, key=lambda interval: interval.urgency, reverse=True)
        self.opened, self.intervals = ordered[:count], ordered[count:]
        return [(interval.left.share + interval.right.share) / 2 for interval in self.opened]

    def add(self, points: list[_Point], output: Output) -> tuple[list[Ends], Tensor]:
        """Take in the points that `open` asked for: the ends of the N new intervals, and numbers (4 N + 1,).

        These are each interval's ‖(G_b − G_a) (γ(b) − γ(a))‖₁, Σ over features, and f at its ends, and
        ‖total‖₁. They stay on the device, so that all images' travel to the host at once.
        """
        if self.opened:
            halves = zip(self.opened, points, strict=True)
            new = [ends for old, middle in halves for ends in ((old.left, middle), (middle, old.right))]
        else:
            points = points if self.origin is None else [self.origin, *points]
            new = list(pairwise(points))
        changed = [*new, *((old.left, old.right) for old in self.opened)]
        before, after = (torch.stack([ends[side].value for ends in changed]) for side in (0, 1))
        weights = end_weights(before, after, output)
        weights[len(new) :] *= -1
        left, right = (torch.stack([ends[side].gradient for ends in changed]) for side in (0, 1))
        step = torch.stack([b.place.to(left) - a.place.to(left) for a, b in changed])
        parts = interval_sums(weights, left, right, step)
        self.total = self.total + parts.sum(0)
        distances = ((right - left) * step)[: len(new)].abs().flatten(1).sum(1)
        sums = parts[: len(new)].flatten(1).sum(1)
        values = before[: len(new)], after[: len(new)]
        return new, torch.cat([distances, sums, *values, self.total.abs().sum()[None]])

    def settle(self, new: list[Ends], numbers: list[float], rounding: Callable[[Tensor], Tensor]) -> None:
        """Take in what `add` returned, once the numbers have come to the host.

        `rounding` says how far f of given sizes may be off.
        """
        self.magnitude = numbers[-1]
        distances, sums, before, after = torch.tensor(numbers[:-1], dtype=torch.float64).view(4, len(new))
        if not self.opened:
            self.ends = float(before[0]), float(after[-1])
        slack = rounding(torch.maximum(before.abs(), after.abs()))
        errors = torch.maximum(distances / math.sqrt(12), (after - before - sums).abs() - slack)
        self.intervals += [_Interval(*ends, error) for ends, error in zip(new, errors.tolist(), strict=True)]
        self.opened = []


@dataclass(frozen=True, eq=False)
class _Sampler:
    """f and its gradient along the paths of a batch, at positions given as shares of a profile."""

    objective: Objective
    path: Path
    profile: Profile

    def __post_init__(self) -> None:
        self.objective.check(self.path.images)

    @property
    def output(self) -> Output:
        return self.objective.output

    @cached_property
    def _coordinate(self) -> tuple[Array, Array]:
        alphas, shares, _ = density_coordinate(self.profile)
        return shares, alphas

    def origins(self) -> list[_Point | None]:
        """Each image's start of the path where f is flat there, with a gradient of zero; else None."""
        images = self.path.images
        if self.output == "logit":
            return [None] * len(images)
        everyone = torch.arange(len(images), device=images.device)
        places, _ = self.path.at(everyone, images.new_zeros(len(images), dtype=torch.float64))
        values = self.objective.values(places)
        flat = (values.double() * (1 - values.double()) < FLAT).tolist()
        return [
            _Point(0.0, value, place, self.zeros(place)) if is_flat else None
            for is_flat, value, place in zip(flat, values.unbind(), places.unbind(), strict=True)
        ]

    def zeros(self, images: Tensor) -> Tensor:
        """Zeros of the images' shape (…, C, H, W), float32 or wider."""
        return torch.zeros_like(images, dtype=sum_type(images.dtype))

    def rounding(self, sizes: Tensor) -> Tensor:
        """How far f of sizes |f| (N,) may be off: as in float32 at least, for less moves no point."""
        dtype = self.objective.rounding_type(self.path.images.dtype)
        return output_rounding(sizes, torch.float32 if dtype == torch.float64 else dtype, self.output)

    def points(self, rows: list[int], shares: list[float]) -> list[_Point]:
        """A point for each image index of `rows` (N,) and share (N,), in full micro-batches."""
        device = self.path.images.device
        alphas = on_device(np.interp(shares, *self._coordinate), device)
        index = on_device(np.array(rows), device)
        values: list[Tensor] = []
        places: list[Tensor] = []
        gradients: list[Tensor] = []
        for part in micro_batches(len(rows), self.objective.internal_batch_size):
            inputs, _ = self.path.at(index[part], alphas[part])
            value, gradient = self.objective.of(index[part]).gradients(inputs)
            values.append(value)
            places += inputs.unbind()
            gradients += gradient.unbind()
        return list(map(_Point, shares, torch.cat(values).unbind(), places, gradients))


def _refine(
    sampler: _Sampler, start: int, at_a_time: int, most: int, good_enough: Callable[[_Sum], bool]
) -> Attribution:
    """Every image's sum, refined until it is good enough or has `most` evaluations."""
    check_positive(at_a_time, "at_a_time")
    _check_ends(start, "start")
    images = sampler.path.images
    group = math.ceil(sampler.objective.internal_batch_size / at_a_time)
    maps, evaluations = sampler.zeros(images), torch.empty_like(sampler.objective.targets)
    ends = np.empty((len(images), 2))
    waiting = (
        _Sum(row, sampler.zeros(image), origin)
        for row, (image, origin) in enumerate(zip(images, sampler.origins(), strict=True))
    )
    active: list[_Sum] = []
    while active := [*active, *islice(waiting, group - len(active))]:
        shares_of = [
            image_sum.open(min(start, most), min(at_a_time, most - image_sum.evaluations))
            for image_sum in active
        ]
        rows = [image_sum.row for image_sum, shares in zip(active, shares_of, strict=True) for _ in shares]
        points = iter(sampler.points(rows, list(chain.from_iterable(shares_of))))
        added = [
            image_sum.add(list(islice(points, len(shares))), sampler.output)
            for image_sum, shares in zip(active, shares_of, strict=True)
        ]
        numbers = iter(torch.cat([numbers for _, numbers in added]).tolist())
        for image_sum, (new, _) in zip(active, added, strict=True):
            image_sum.settle(new, list(islice(numbers, 4 * len(new) + 1)), sampler.rounding)
        done = [image_sum for image_sum in active if image_sum.evaluations >= most or good_enough(image_sum)]
        active = [image_sum for image_sum in active if image_sum not in done]
        for image_sum in done:
            maps[image_sum.row] = image_sum.total
            ends[image_sum.row] = image_sum.ends
            evaluations[image_sum.row] = image_sum.evaluations
    f_baseline, f_input = torch.from_numpy(ends.T).to(maps)
    dtype = sampler.objective.rounding_type(images.dtype)
    return Attribution(maps, f_input, f_baseline, evaluations, sampler.output, dtype)


def _check_ends(count: int, name: str) -> None:
    """Raise ValueError unless `count` leaves room for the path's two ends."""
    check_positive(count, name)
    if count < 2:
        raise ValueError(f"{name}: both ends of the path are sampled, expected at least 2, got {count}")

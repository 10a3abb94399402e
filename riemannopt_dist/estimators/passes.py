"""One pass along a path for all sums that are made of the same samples.

Riemann sums, IDGI and the softmax-weighted trapezoid take f and its gradient at points of the path, and share
them where they coincide: equal intervals with the left rule at 16, 32 and 64 cost nothing beside 128.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.objective import Objective, Output, PathSamples, micro_batches, sample_path
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.guided import GuidedPath, WalkStep
from riemannopt_dist.precision import sum_type
from riemannopt_dist.quadrature.rules import partition_of
from riemannopt_dist.quadrature.schedule import Array, Schedule


@dataclass(frozen=True, eq=False)
class Pass:
    """A pass along the paths of B images: `points` (K,) of the samples, and f (B,) at `ends` known before."""

    path: Path
    points: Array
    output: Output
    ends: Mapping[float, Tensor]


class Sums(Protocol):
    """Maps (B, S, C, H, W) of S schedules, built from samples as they come: image by image, in order.

    `early` are the ends of the path, 0 and 1, at which f is needed before the samples there. Sums are in
    float32 or wider.
    """

    early: tuple[float, ...]
    maps: Tensor

    def __init__(self, schedules: Sequence[Schedule], along: Pass) -> None: ...

    def add(self, samples: PathSamples) -> None:
        """Take in a micro-batch."""
        ...

    @staticmethod
    def of_step(step: WalkStep, following: WalkStep, rule: str, output: Output) -> Tensor:
        """What a step of B guided walks adds to the maps, (B, C, H, W), under the rule left or trapezoid."""
        ...


Request = tuple[type[Sums], Schedule]
"""A kind of sum, and the schedule that it is taken under."""


def sums_along(
    path: Path | GuidedPath, objective: Objective, requests: Sequence[Request]
) -> list[Attribution]:
    """An Attribution for each request, in order, of the images of `path`.

    Every distinct point of a path that is known beforehand is evaluated once, however many schedules hold it;
    schedules share a guided walk if they are equal. Raises ValueError without a request, and as
    `Objective.check` does.
    """
    if not requests:
        raise ValueError("schedules: expected at least one, got none")
    if isinstance(path, GuidedPath):
        return _sums_of_walks(path, objective, requests)
    images = path.images
    objective.check(images)
    points = np.unique(np.concatenate([schedule.points for _, schedule in requests]))
    early = {end for kind, _ in requests for end in kind.early}
    unsampled = [end for end in (0.0, 1.0) if end in early or end not in points]
    ends = {end: values_at(end, path, objective) for end in unsampled}
    along = Pass(path, points, objective.output, ends)
    kinds = list(dict.fromkeys(kind for kind, _ in requests))
    sums = [kind([s for other, s in requests if other is kind], along) for kind in kinds]
    values = images.new_empty((len(images), len(points)), dtype=sum_type(images.dtype))
    for samples in sample_path(objective, path, np.broadcast_to(points, values.shape)):
        values[samples.index] = samples.values.to(values)
        for one in sums:
            one.add(samples)
    f_baseline, f_input = ends.get(0.0, values[:, 0]), ends.get(1.0, values[:, -1])
    results = {kind: iter(one.maps.unbind(1)) for kind, one in zip(kinds, sums, strict=True)}
    return [
        _attribution(next(results[kind]), f_input, f_baseline, schedule, objective, images.dtype)
        for kind, schedule in requests
    ]


def _sums_of_walks(path: GuidedPath, objective: Objective, requests: Sequence[Request]) -> list[Attribution]:
    objective.check(path.images)
    kinds: dict[Schedule, list[type[Sums]]] = {}
    for kind, schedule in requests:
        if kind not in kinds.setdefault(schedule, []):
            kinds[schedule].append(kind)
    walked: dict[tuple[Schedule, type[Sums]], Attribution] = {}
    for schedules in _together(kinds, max(1, objective.internal_batch_size // len(path.images))):
        walked |= _sums_of_walk(path, objective, schedules, kinds[schedules[0]])
    return [walked[schedule, kind] for kind, schedule in requests]


def _together(kinds: Mapping[Schedule, Sequence[type[Sums]]], most: int) -> Iterator[Sequence[Schedule]]:
    """Schedules whose walks go side by side: of equal length and rule and the same sums, `most` at once."""
    alike: dict[object, list[Schedule]] = {}
    for schedule, members in kinds.items():
        partition, rule = partition_of(schedule)
        alike.setdefault((len(partition), rule, *members), []).append(schedule)
    for schedules in alike.values():
        yield from (schedules[start : start + most] for start in range(0, len(schedules), most))


def _sums_of_walk(
    path: GuidedPath, objective: Objective, schedules: Sequence[Schedule], kinds: Sequence[type[Sums]]
) -> dict[tuple[Schedule, type[Sums]], Attribution]:
    """The sums of several kinds along the walks that schedules of n steps and one rule lead side by side."""
    partitions, rules = zip(*map(partition_of, schedules), strict=True)
    rule, images = rules[0], len(path.images)
    if rule == "right":
        raise ValueError("schedule: a guided walk takes the left or the trapezoid rule, got the right rule")
    every = objective.of(torch.arange(images, device=path.images.device).repeat(len(schedules)))
    walks = path.repeated(len(schedules))
    steps = walks.steps(every, np.repeat(partitions, images, axis=0))
    first = step = next(steps)
    maps = {kind: torch.zeros_like(step.move) for kind in kinds}
    for _ in range(len(partitions[0]) - 1):
        if rule == "left" and step.remaining == 1:
            # Nothing is asked of the gradient at the image, which is then not computed.
            following = replace(step, values=every.values(walks.images))
        else:
            following = next(steps)
        for kind in kinds:
            maps[kind] += kind.of_step(step, following, rule, objective.output)
        step = following
    dtype = path.images.dtype
    ends = [torch.split(values, images) for values in (step.values, first.values)]
    return {
        (schedule, kind): _attribution(one, f_input, f_baseline, schedule, objective, dtype)
        for kind, values in maps.items()
        for schedule, one, f_input, f_baseline in zip(
            schedules, torch.split(values.to(sum_type(dtype)), images), *ends, strict=True
        )
    }


def _attribution(
    maps: Tensor,
    f_input: Tensor,
    f_baseline: Tensor,
    schedule: Schedule,
    objective: Objective,
    dtype: torch.dtype,
) -> Attribution:
    evaluations = torch.full_like(objective.targets, len(schedule))
    rounded = objective.rounding_type(dtype)
    return Attribution(maps, f_input, f_baseline, evaluations, objective.output, rounded)


def values_at(position: float, path: Path, objective: Objective) -> Tensor:
    """f at one position of the paths of B images, (B,)."""
    count, device = len(path.images), path.images.device
    rows = torch.arange(count, device=device)
    alphas = torch.full((count,), position, dtype=torch.float64, device=device)
    size = objective.internal_batch_size
    parts = [
        objective.of(rows[part]).values(path.at(rows[part], alphas[part])[0])
        for part in micro_batches(count, size)
    ]
    return torch.cat(parts)

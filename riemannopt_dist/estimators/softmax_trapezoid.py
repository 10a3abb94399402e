"""The softmax-weighted trapezoid: each interval's two gradients weighted by the rise of the output between.

Over an interval [a, b] of the path, with gradients G_a and G_b there, a sum takes
(w_a G_a + w_b G_b) (γ(b) − γ(a)): along the path itself, so that how fast γ moves costs no accuracy. The
weights are those of `end_weights`. Up to the first sample the gradient is that of the first sample: at the
start of a path, where the softmax is flat, one of its own would be wasted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.arguments import check_choice
from riemannopt_dist.estimators.passes import Pass
from riemannopt_dist.objective import OUTPUTS, Index, Output, PathSamples
from riemannopt_dist.paths.guided import WalkStep
from riemannopt_dist.precision import sum_type
from riemannopt_dist.quadrature.nodes import gauss_legendre_on
from riemannopt_dist.quadrature.schedule import Schedule
from riemannopt_dist.transfer import on_device

PROBABILITY_FLOOR = 1e-6
"""Probabilities are kept this far from 0 and 1, where float32 no longer tells their log-odds."""


def end_weights(left: Tensor, right: Tensor, output: Output = "probability") -> Tensor:
    """The weights (N, 2), float64, of the gradients at the ends of N intervals with values `left`, `right`.

    1/2 each for logits: the trapezoid. A probability's gradient is ∇p = p (1 − p) ∇z, z being its log-odds;
    the factor, which makes most of the change where the softmax rises, is known from the values alone. With z
    and ∇z linear over the interval, t from 0 to 1, the left end's weight is
    ∫ p(t) (1 − p(t)) (1 − t) dt / (p(0) (1 − p(0))), and 1/2 where the ends' values are equal.
    """
    check_choice(output, OUTPUTS, "output")
    ends = torch.stack([left, right], dim=1).double()
    if output == "logit":
        return torch.full_like(ends, 0.5)
    nodes, weights = (values[:, None] for values in gauss_legendre_on(32, ends.device, ends.dtype))
    hats = torch.cat([1 - nodes, nodes], dim=1)
    bounded = ends.clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    probabilities = torch.sigmoid(torch.logit(bounded) @ hats.T)
    envelope = probabilities * (1 - probabilities)
    return envelope @ (weights * hats) / (bounded * (1 - bounded))


def opening_weight(start: Tensor, first: Tensor, output: Output = "probability") -> Tensor:
    """The weight (N,), float64, of the gradient at an interval's right end where there is none at its left.

    From the values at both ends; 1 for logits. With ∇z constant it is ∫ p (1 − p) dt / (p(1) (1 − p(1))).
    """
    weights = end_weights(start, first, output)
    if output == "logit":
        return weights.sum(1)
    bounded = torch.stack([start, first], dim=1).double().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    envelope = bounded * (1 - bounded)
    return (weights * envelope).sum(1) / envelope[:, 1]


def interval_sums(weights: Tensor, left: Tensor, right: Tensor, step: Tensor) -> Tensor:
    """(w_a G_a + w_b G_b) (γ(b) − γ(a)) for N intervals: (N, C, H, W).

    `weights` is (N, 2); the gradients `left` and `right` and the `step` are (N, C, H, W).
    """
    opening, closing = weights.T.to(left)[..., None, None, None]
    sums: Tensor = (opening * left + closing * right) * step
    return sums


@dataclass(frozen=True)
class _Last:
    """The last sample that a schedule has taken: its image, f, γ and ∂f/∂γ, each with a leading 1."""

    row: int
    value: Tensor
    place: Tensor
    gradient: Tensor


class SoftmaxTrapezoidSums:
    """Maps of several schedules, built from a path's samples as they come.

    One sample a schedule is kept: memory does not grow with the samples. Raises ValueError for a schedule
    without a point at 1.
    """

    early: tuple[float, ...] = (0.0,)

    def __init__(self, schedules: Sequence[Schedule], along: Pass) -> None:
        for schedule in schedules:
            if schedule.points[-1] != 1:
                raise ValueError(
                    f"schedule: the softmax-weighted trapezoid needs a point at 1, got {schedule.points}"
                )
        self._held = [np.isin(along.points, schedule.points) for schedule in schedules]
        self._opens_late = [schedule.points[0] > 0 for schedule in schedules]
        self._last: list[_Last | None] = [None] * len(schedules)
        images = along.path.images
        self._held_there = [on_device(held, images.device) for held in self._held]
        everyone = torch.arange(len(images), device=images.device)
        starts, _ = along.path.at(everyone, images.new_zeros(len(images), dtype=torch.float64))
        self._starts, self._f_baseline = starts.to(sum_type(starts.dtype)), along.ends[0.0]
        self._output: Output = along.output
        self.maps = self._starts.new_zeros((len(starts), len(schedules), *starts.shape[1:]))

    @staticmethod
    def of_step(step: WalkStep, following: WalkStep, rule: str, output: Output) -> Tensor:
        """A walk's move, weighted with the gradients at both ends. ValueError for the left rule."""
        if rule != "trapezoid":
            raise ValueError(
                f"schedule: the softmax-weighted trapezoid needs both ends of a step, got the {rule} rule"
            )
        weights = end_weights(step.values, following.values, output)
        return interval_sums(weights, step.gradients.double(), following.gradients, step.move)

    def add(self, samples: PathSamples) -> None:
        """Take in a micro-batch; samples come image by image, in order of position."""
        for schedule, held in enumerate(self._held):
            rows = samples.rows[held[samples.columns]]
            if len(rows):
                self._extend(schedule, samples, rows)

    def _extend(self, schedule: int, samples: PathSamples, rows: Index) -> None:
        """Add the intervals between the samples of one schedule, and up to its last one before.

        `rows` are those of its samples.
        """
        held = self._held_there[schedule][samples.index[1]]
        # Where it is true, in order; `nonzero` would wait for the device to count them.
        index = held.argsort(descending=True, stable=True)[: len(rows)]
        values, places, gradients = (
            part_of[index] for part_of in (samples.values, samples.inputs.to(self.maps), samples.gradients)
        )
        last = self._last[schedule]
        if last is not None:
            rows = np.append(last.row, rows)
            values = torch.cat([last.value, values])
            places = torch.cat([last.place, places])
            gradients = torch.cat([last.gradient, gradients])
        weights = end_weights(values[:-1], values[1:], self._output)
        for row in np.unique(rows).tolist():
            first, end = np.searchsorted(rows, [row, row + 1]).tolist()
            if self._opens_late[schedule] and (last is None or last.row != row):
                weight = opening_weight(self._f_baseline[row, None], values[first, None], self._output)
                step = places[first] - self._starts[row]
                self.maps[row, schedule] += weight.to(step) * gradients[first] * step
            if end - first > 1:
                ends, steps = gradients[first:end], places[first:end].diff(dim=0)
                self.maps[row, schedule] += interval_sums(
                    weights[first : end - 1], ends[:-1], ends[1:], steps
                ).sum(0)
        last_sample = (
            part_of[-1:].clone() for part_of in (values, places, gradients)
        )  # not a view of the micro-batch
        self._last[schedule] = _Last(int(rows[-1]), *last_sample)

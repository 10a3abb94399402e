"""IDGI (Yang, Wang & Bilgic, CVPR 2023): each step's change of the output, shared out by squared gradients.

Σ_j (f_{j+1} − f_j) · g_j² / Σ g_j² along a path: gradients decide how a change of the output is divided among
features, but not how large it is. The sum over features is f(x) − f(x′) under every schedule, less the
changes of steps whose gradient is zero: nothing tells how to share those out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.estimators.passes import Pass
from riemannopt_dist.objective import Index, Output, PathSamples, by_image
from riemannopt_dist.paths.guided import WalkStep
from riemannopt_dist.precision import ieee_float32, sum_type
from riemannopt_dist.quadrature.rules import partition_of
from riemannopt_dist.quadrature.schedule import Array, Schedule
from riemannopt_dist.transfer import on_device


def squared_shares(gradients: Tensor) -> Tensor:
    """g² / Σ g² of each gradient (N, C, H, W) over its features; 0 where it is 0, NaN unless it is finite."""
    largest = gradients.abs().flatten(1).amax(1)[:, None, None, None]
    squares = (gradients / largest).square()  # scaled first: squares of small gradients would vanish
    totals = squares.flatten(1).sum(1)[:, None, None, None]
    return torch.where(largest == 0, 0.0, squares / totals)


@dataclass(frozen=True)
class _Differences:
    """What a sample's shares are multiplied with: here·f(point) + after·f(next point) + before·f(previous).

    (S, K) each for S schedules on K points; `next_point` and `previous_point` are columns of the values,
    K being the path's end and K + 1 its start. All zero for points that a schedule does not hold.
    """

    here: Array
    after: Array
    before: Array
    next_point: Index
    previous_point: Index

    @classmethod
    def of(cls, schedules: Sequence[Schedule], points: Array) -> "_Differences":
        shape = (len(schedules), len(points))
        differences = cls(
            here=np.zeros(shape),
            after=np.zeros(shape),
            before=np.zeros(shape),
            next_point=np.full(shape, len(points)),
            previous_point=np.full(shape, len(points) + 1),
        )
        for s, schedule in enumerate(schedules):
            _, rule = partition_of(schedule)
            columns = np.searchsorted(points, np.unique(schedule.points))
            differences.next_point[s, columns[:-1]] = columns[1:]
            differences.previous_point[s, columns[1:]] = columns[:-1]
            # Each interval's change goes to the sample at its left end, at its right end, or half to both.
            opening = {"left": 1.0, "right": 0.0, "trapezoid": 0.5}[rule]
            differences.after[s, columns] += opening
            differences.here[s, columns] -= opening
            differences.here[s, columns] += 1 - opening
            differences.before[s, columns] -= 1 - opening
            if rule == "trapezoid":  # no interval before the first point, none after the last
                differences.here[s, columns[0]], differences.before[s, columns[0]] = -0.5, 0.0
                differences.here[s, columns[-1]], differences.after[s, columns[-1]] = 0.5, 0.0
        return differences

    def on(self, device: torch.device) -> list[Tensor]:
        """They all, on a device."""
        return [on_device(getattr(self, field.name), device) for field in fields(self)]


class IdgiSums:
    """IDGI maps of several schedules, built from a path's samples as they come: (B, S, C, H, W).

    A sample waits until f at the next point of its schedule is known: one waiting sample a schedule, so
    that memory does not grow with the samples.
    """

    early: tuple[float, ...] = (0.0, 1.0)

    def __init__(self, schedules: Sequence[Schedule], along: Pass) -> None:
        images, points = along.path.images, along.points
        self._differences = _Differences.of(schedules, points)
        wide, there = sum_type(images.dtype), self._differences.on(images.device)
        self._factors, self._neighbours = [part.to(wide) for part in there[:3]], there[3:]
        self._values = images.new_zeros((len(images), len(points) + 2), dtype=wide)
        self._values[:, -2], self._values[:, -1] = along.ends[1.0], along.ends[0.0]
        self._waiting: dict[int, tuple[int, int, float, Tensor]] = {}
        self.maps = images.new_zeros((len(images), len(schedules), *images.shape[1:]), dtype=wide)

    @staticmethod
    def of_step(step: WalkStep, following: WalkStep, rule: str, output: Output) -> Tensor:
        """The change of f over a walk's step, shared out by the gradient at its start, or at both ends."""
        shares = squared_shares(step.gradients)
        if rule == "trapezoid":
            shares = (shares + squared_shares(following.gradients)) / 2
        return shares * (following.values - step.values).double()[:, None, None, None]

    @ieee_float32()
    def add(self, samples: PathSamples) -> None:
        """Take in a micro-batch; samples come image by image, in order of position."""
        rows, columns = samples.index
        self._values[rows, columns] = samples.values.to(self._values)
        self._release(samples.rows, samples.columns)
        shares = squared_shares(samples.gradients)
        known = self._values[rows]  # points not yet sampled count as 0 here and are made up for later
        here, after, before = (part.index_select(1, columns) for part in self._factors)
        around = [known.gather(1, part.index_select(1, columns).T).T for part in self._neighbours]
        factors = here * samples.values.to(known) + after * around[0] + before * around[1]
        flat = shares.flatten(1).to(self.maps)
        for row, part in by_image(samples.rows):
            self.maps[row].flatten(1).addmm_(factors[:, part], flat[part])
        self._keep(samples.rows, samples.columns, shares)

    def _release(self, rows: Index, columns: Index) -> None:
        """Make up for the waiting samples whose next point is among those just sampled."""
        for schedule, (row, column, factor, share) in list(self._waiting.items()):
            if np.any((rows == row) & (columns == column)):
                self.maps[row, schedule] += factor * self._values[row, column] * share
                del self._waiting[schedule]

    def _keep(self, rows: Index, columns: Index, shares: Tensor) -> None:
        """Let the last sample of each schedule wait if its next point is still to come."""
        differences, row = self._differences, int(rows[-1])
        points = differences.here.shape[1]
        for schedule in range(len(differences.here)):
            factors, following = (
                differences.after[schedule, columns],
                differences.next_point[schedule, columns],
            )
            late = (rows == row) & (factors != 0) & (following > columns[-1]) & (following < points)
            for sample in np.flatnonzero(late):
                waiting = (row, int(following[sample]), float(factors[sample]), shares[sample])
                self._waiting[schedule] = waiting

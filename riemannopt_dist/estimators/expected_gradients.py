"""Expected gradients: samples on many paths instead of many samples on each (Erion et al., 2021).

The mean attribution over baselines is an integral over the path and a mean over baselines at once, and a sum
may take each of its samples from a baseline of its own: n samples cost n gradients, however many baselines
there are. Erion et al. (Nature Machine Intelligence 3, 2021) draw both at random. Here positions are a
schedule's, which leaves the variance between baselines alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.passes import sums_along, values_at
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath, between
from riemannopt_dist.quadrature.schedule import Schedule
from riemannopt_dist.transfer import on_device


def expected_gradients(
    objective: Objective, lines: Sequence[StraightPath], schedule: Schedule
) -> Attribution:
    """Σ_k w_k g_{d(k)}(α_k), with a line d(k) to the images for each sample: maps (B, C, H, W).

    Lines take turns, in a seeded order for every round, so that none is bound to a part of the way. Of fewer
    samples than lines some are not used. f_baseline is the mean over those that are.
    """
    turns = turns_of(len(schedule), len(lines))
    (result,) = sums_along(_Turns.on(lines, schedule.points, turns), objective, [(RiemannSums, schedule)])
    starts = [values_at(0.0, lines[number], objective) for number in sorted(set(turns))]
    return replace(result, f_baseline=torch.stack(starts).mean(0))


def turns_of(samples: int, paths: int) -> list[int]:
    """The number of the path that each of `samples` is taken on."""
    order = random.Random(0)
    turns: list[int] = []
    while len(turns) < samples:
        turns += order.sample(range(paths), paths)
    return turns[:samples]


@dataclass(frozen=True, eq=False)
class _Turns:
    """Lines to the same images, of which each is followed at positions of its own: `points` (K,).

    At the k-th of them an image's line begins at the one of all `baselines` (M, C, H, W) with the number
    `firsts[k]`, plus the image's own where `steps[k]` is 1; 0 says that images share the baseline.
    """

    images: Tensor
    baselines: Tensor
    points: Tensor
    firsts: Tensor
    steps: Tensor

    @classmethod
    def on(cls, lines: Sequence[StraightPath], points: Sequence[float], turns: Sequence[int]) -> "_Turns":
        """Those of lines that take turns (K,), each at its point."""
        # A baseline that images share is a view of one picture, of which one is enough.
        parts = [one.baselines if one.baselines.stride(0) else one.baselines[:1] for one in lines]
        sizes = np.array([len(part) for part in parts])
        device, order = lines[0].images.device, list(turns)
        firsts, steps = (np.cumsum(sizes) - sizes)[order], (sizes > 1).astype(np.int64)[order]
        there = (on_device(values, device) for values in (np.array(points), firsts, steps))
        return cls(lines[0].images, torch.cat(parts), *there)

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """γ(α) and dγ/dα on the line whose turn it is there; between the points on that of the next one."""
        places = torch.searchsorted(self.points, alphas).clamp_max(len(self.points) - 1)
        baselines = self.firsts[places] + self.steps[places] * rows
        return between(self.baselines[baselines], self.images[rows], alphas)

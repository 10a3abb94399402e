"""Expected gradients: samples on many paths instead of many samples on each (Erion et al., 2021).

The mean attribution over baselines is an integral over the path and a mean over baselines at once, and a sum
may take each of its samples from a baseline of its own: n samples cost n gradients, however many baselines
there are. Erion et al. (Nature Machine Intelligence 3, 2021) draw both at random. Here positions are a
schedule's, which leaves the variance between baselines alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.passes import sums_along, values_at
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path
from riemannopt_dist.quadrature.schedule import Schedule


def expected_gradients(objective: Objective, paths: Sequence[Path], schedule: Schedule) -> Attribution:
    """Σ_k w_k g_{d(k)}(α_k), with a path d(k) to the images for each sample: maps (B, C, H, W).

    Paths take turns, in a seeded order for every round, so that none is bound to a part of the way. Of fewer
    samples than paths some are not used. f_baseline is the mean over those that are.
    """
    turns = turns_of(len(schedule), len(paths))
    path = _Turns(paths, schedule.points, turns)
    (result,) = sums_along(path, objective, [(RiemannSums, schedule)])
    starts = [values_at(0.0, paths[number], objective) for number in sorted(set(turns))]
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
    """Paths to the same images, of which each is followed at positions of its own."""

    paths: Sequence[Path]
    points: Sequence[float]
    turns: Sequence[int]

    @property
    def images(self) -> Tensor:
        """Their ends."""
        return self.paths[0].images

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """γ(α) and dγ/dα on the path whose turn it is there; between the points on that of the next one."""
        places = torch.searchsorted(alphas.new_tensor(self.points), alphas).clamp_max(len(self.points) - 1)
        turns = torch.tensor(self.turns, device=places.device)[places]
        numbers = sorted({self.turns[place] for place in places.tolist()})
        groups = [(turns == number).nonzero().flatten() for number in numbers]
        parts = [
            self.paths[number].at(rows[group], alphas[group])
            for number, group in zip(numbers, groups, strict=True)
        ]
        back = torch.cat(groups).argsort()
        inputs, velocity = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        return inputs, velocity

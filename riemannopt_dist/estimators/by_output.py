"""Sums on points of each image's own, placed by its output at some points of its path."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.passes import Sums, sums_along
from riemannopt_dist.objective import Objective, micro_batches
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.quadrature.placement.output import PointsByOutput
from riemannopt_dist.quadrature.schedule import Array


@dataclass(frozen=True)
class _PathOfOne:
    """The path of one image of many."""

    paths: Path
    row: int

    @property
    def images(self) -> Tensor:
        return self.paths.images[self.row : self.row + 1]

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        return self.paths.at(rows + self.row, alphas)


def sums_by_output(
    objective: Objective, path: Path | GuidedPath, kind: type[Sums], points: PointsByOutput
) -> Attribution:
    """A sum of a kind for each image, on the schedule that f at `points.asked` makes for it.

    The samples of an image share micro-batches with no other's. Raises ValueError for a walk.
    """
    if isinstance(path, GuidedPath):
        raise ValueError("path: points by the output need a path that is known beforehand")
    objective.check(path.images)
    results = []
    for row, values in enumerate(values_along(objective, path, points.asked)):
        request = (kind, points.schedule(values))
        results += sums_along(_PathOfOne(path, row), objective.of([row]), [request])
    parts = {
        field.name: torch.cat([getattr(result, field.name) for result in results])
        for field in fields(Attribution)
        if isinstance(getattr(results[0], field.name), Tensor)
    }
    dtype = objective.rounding_type(path.images.dtype)
    return Attribution(**parts, output=objective.output, computed_in=dtype)


def values_along(objective: Objective, path: Path, positions: Array) -> Iterator[Array]:
    """f at `positions` (k,) of the path of each image: (k,), float64."""
    count, device = len(path.images), path.images.device
    rows = torch.arange(count, device=device).repeat_interleave(len(positions))
    alphas = torch.from_numpy(np.tile(positions, count)).to(device)
    parts = [
        objective.of(rows[part]).values(path.at(rows[part], alphas[part])[0])
        for part in micro_batches(len(rows), objective.internal_batch_size)
    ]
    yield from torch.cat(parts).view(count, -1).double().cpu().numpy()

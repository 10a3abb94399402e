"""What stands where a metric takes pixels out of an image: the start of the map's path.

A map shares out f(x) − f(x′), so that what a pixel did is seen with the pixel of x′ in its place. Of several
draws of a baseline that is the mean of their starts, of Blur IG the image at its widest blur, and black of a
map without a path, as a control's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path, PathFamily
from riemannopt_dist.paths.draws import Draws
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.precision import sum_type


@dataclass(frozen=True, eq=False)
class Start:
    """The start of paths to B images, (B, C, H, W), and the places of the maps whose paths begin there."""

    images: Tensor
    places: list[int]

    def of(self, maps: Tensor) -> Tensor:
        """Those of maps (S, …) whose paths begin there: not a copy where all do."""
        return maps if len(self.places) == len(maps) else maps[self.places]

    def put(self, values: Tensor, found: Tensor) -> None:
        """Write what was found of them into the values (S, …) of all maps."""
        values[slice(None) if len(self.places) == len(values) else self.places] = found

    def without(self, images: Tensor, removed: Tensor) -> Tensor:
        """Images with the start where they are `removed`, bool (B, 1, H, W)."""
        return torch.where(removed, self.images, images)


def start_of(path: Path | GuidedPath | Draws) -> Tensor:
    """γ(0) of each image, (B, C, H, W); the mean over several draws of a baseline."""
    if isinstance(path, Draws):
        wide = sum_type(path.images.dtype)
        total = sum((start_of(one).to(wide) for one in path.members), torch.zeros((), dtype=wide))
        return (total / len(path.members)).to(path.images)
    if isinstance(path, GuidedPath):
        return path.line.baselines
    rows = torch.arange(len(path.images), device=path.images.device)
    return path.at(rows, torch.zeros(len(rows), dtype=torch.float64, device=rows.device))[0]


def distinct_starts(paths: Sequence[PathFamily | None], images: Tensor) -> list[Start]:
    """The different starts of S maps of images (B, C, H, W), by the paths that the maps are along."""
    labels = [None if path is None else path.label for path in paths]
    starts: list[Start] = []
    for label, path in dict(zip(labels, paths, strict=True)).items():
        start = torch.zeros_like(images) if path is None else start_of(path.through(images))
        places = [place for place, one in enumerate(labels) if one == label]
        same = next((one for one in starts if torch.equal(one.images, start)), None)
        if same is None:
            starts.append(Start(start, places))
        else:
            same.places.extend(places)
    return starts


def on_one_start(
    objective: Objective, images: Tensor, maps: Tensor, baselines: Tensor | None
) -> tuple[Tensor, Start]:
    """Maps (…, B, C, H, W) of images (B, C, H, W) as (S, B, C, H, W), and where the paths of all begin.

    That is at `baselines`, as a straight line takes them, or at black without. Raises ValueError for images,
    baselines, targets and maps that do not fit.
    """
    check_images(images)
    objective.check(images)
    check_maps(maps, images)
    several = maps.reshape(-1, *images.shape)
    start = torch.zeros_like(images) if baselines is None else StraightPath(images, baselines).baselines
    return several, Start(start, [*range(len(several))])

"""Left-IG (Miglani et al., 2020): the part of the integral before the output saturates.

A sum takes the samples before the first at which f has made more than `SATURATED` of its way from f(x′) to
f(x), as in the authors' notebook (github.com/vivekmig/captum-1, ImageNetSplitIG-Basic). Where that is the
first sample, it is taken all the same, for a map of zeros says nothing. The gradients beyond, where f hardly
changes, make much of Integrated Gradients' maps and little of f.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.estimators.passes import Pass
from riemannopt_dist.estimators.riemann import add_weighted, weights_at
from riemannopt_dist.objective import Output, PathSamples, by_image
from riemannopt_dist.paths.guided import WalkStep
from riemannopt_dist.precision import sum_type
from riemannopt_dist.quadrature.schedule import Schedule
from riemannopt_dist.transfer import on_device

SATURATED = 0.9


class LeftSums:
    """Left-IG's maps of several schedules, built from a path's samples as they come: (B, S, C, H, W)."""

    early: tuple[float, ...] = (0.0, 1.0)

    def __init__(self, schedules: Sequence[Schedule], along: Pass) -> None:
        images, points = along.path.images, along.points
        self._weights = on_device(weights_at(points, schedules), images.device)
        held = np.stack([np.isin(points, schedule.points) for schedule in schedules])
        self._held = on_device(held, images.device)
        self._first = on_device(held.argmax(1)[:, None], images.device)
        start, end = along.ends[0.0].double(), along.ends[1.0].double()
        self._threshold = SATURATED * (end - start).abs()
        self._start, self._sense = start, (end - start).sign()
        shape = (len(images), len(schedules), *images.shape[1:])
        self._saturated = torch.zeros(shape[:2], dtype=torch.bool, device=images.device)
        self.maps = images.new_zeros(shape, dtype=sum_type(images.dtype))

    def add(self, samples: PathSamples) -> None:
        """Take in a micro-batch; samples come image by image, in order of position."""
        rows, columns = samples.index
        way = (samples.values.double() - self._start[rows]) * self._sense[rows]
        beyond = (way > self._threshold[rows]) & self._held[:, columns]
        beyond &= columns > self._first
        for row, part in by_image(samples.rows):
            before = self._saturated[row, :, None]
            beyond[:, part] = before | (beyond[:, part].cumsum(1) > 0)
            self._saturated[row] = beyond[:, part.stop - 1]
        add_weighted(self.maps, samples, torch.where(beyond, 0.0, self._weights[:, columns]))

    @staticmethod
    def of_step(step: WalkStep, following: WalkStep, rule: str, output: Output) -> Tensor:
        """ValueError: a walk's step does not tell f at the image."""
        raise ValueError("path: Left-IG needs a path that is known beforehand")

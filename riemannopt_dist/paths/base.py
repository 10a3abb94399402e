"""Paths γ(α) from a baseline (α = 0) to the image (α = 1), and the families that they come in.

A path is asked for any mixture of images and positions at once: `rows` says which image each position belongs
to, so that one micro-batch can hold one image at many α or many images at one α.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from riemannopt_dist.paths.draws import Draws
    from riemannopt_dist.paths.guided import GuidedPath
    from riemannopt_dist.quadrature.schedule import Schedule

SIGMA_MAX = 50.0
"""The blur that Blur IG starts from and the baseline "blurred" has, in pixels."""


class Path(Protocol):
    """A path for each of B images that is known beforehand."""

    @property
    def images(self) -> Tensor:
        """The path's ends γ(1), (B, C, H, W)."""
        ...

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """γ(α) and dγ/dα, each (N, C, H, W), of images `rows` (N,) at positions `alphas` (N,) in float64.

        γ is in the images' type, as a model takes it, and dγ/dα in float32 or wider.
        """
        ...


class Sampling(NamedTuple):
    """What samples along a path cost an image: gradients, and forward passes beside them."""

    gradients: int
    passes: int


class PathFamily(Protocol):
    """How paths lead from a baseline to images, with its parameters: an entry of PATHS."""

    @property
    def label(self) -> str:
        """Its name in tables, which tells the parameters that are not its defaults."""
        ...

    @property
    def walked(self) -> bool:
        """Whether a path is found step by step, by the gradients taken on it, as Guided IG's is."""
        ...

    def through(self, images: Tensor) -> Path | GuidedPath | Draws:
        """The paths to images (B, C, H, W)."""
        ...

    def sampling(self, schedules: Sequence[Schedule], early: Collection[float]) -> Sampling:
        """The cost of samples under several schedules, with f at the ends `early` of the path asked first.

        Of a path from several baselines that of one of them, here as below.
        """
        ...

    def profile_gradients(self, samples: int) -> int:
        """What a pass over the path costs that a profile is estimated from, at so many positions."""
        ...

    def reference_gradients(self, schedules: Sequence[Schedule | None], intervals: int) -> int:
        """What the converged maps for these schedules cost, with `intervals` where all share one."""
        ...


def paths_an_image(family: PathFamily) -> int:
    """The paths of a family to each image: more than one from several baselines (`count`)."""
    count: int = getattr(family, "count", 1)
    return count


def begins_at_several(family: PathFamily) -> bool:
    """Whether a family has paths from several baselines (`several`), without counting them."""
    return bool(getattr(family, "several", False))

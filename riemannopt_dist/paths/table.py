"""The paths by name: what a configuration may ask for. A new one is a file, and an entry here.

An entry makes a family from the parameters given with it. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from riemannopt_dist.paths.base import PathFamily, Sampling
from riemannopt_dist.quadrature.rules import partition_of
from riemannopt_dist.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from riemannopt_dist.paths.base import Path
    from riemannopt_dist.paths.guided import GuidedPath
    from riemannopt_dist.quadrature.schedule import Schedule

Colour = tuple[float, ...]
"""One value in [0, 1], or one a channel."""
Baseline = str | float | Sequence[float]
"""A colour's name, a grey, or a value for each channel."""
BLACK: Colour = (0.0,)
WHITE: Colour = (1.0,)
COLOURS: Mapping[str, Colour] = {"black": BLACK, "white": WHITE}

SIGMA_MAX = 50.0
"""The blur that Blur IG starts from, in pixels."""
WALK_PIECES = 8
"""Into how many intervals each step of a guided walk is divided for its converged integral."""


def colour_of(baseline: Baseline) -> Colour:
    """A baseline's colour: "black", "white", a grey, or a value in [0, 1] for each channel.

    Raises ValueError for anything else.
    """
    if isinstance(baseline, str):
        if baseline in COLOURS:
            return COLOURS[baseline]
        raise ValueError(f"baseline: expected {', '.join(COLOURS)} or numbers in [0, 1], got {baseline!r}")
    try:
        colour = tuple(map(float, [baseline] if isinstance(baseline, int | float) else baseline))
    except (TypeError, ValueError):
        raise ValueError(f"baseline: expected numbers in [0, 1], got {baseline!r}") from None
    if not colour or not all(0 <= value <= 1 for value in colour):
        raise ValueError(f"baseline: expected numbers in [0, 1], got {baseline!r}")
    return colour


def label_of(name: str, family: Any) -> str:
    """`name` with those parameters of a family, a dataclass, that are not its defaults."""
    values = ((field, getattr(family, field.name)) for field in fields(family))
    told = [f"{field.name}={_shown(value)}" for field, value in values if value != field.default]
    return f"{name}({', '.join(told)})" if told else name


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        named = {colour: name for name, colour in COLOURS.items()}
        return named.get(value) or " ".join(f"{number:g}" for number in value)
    return f"{value:g}"


class _Fixed:
    """What families of paths have in common that are known beforehand."""

    walked = False

    def sampling(self, schedules: Sequence[Schedule], early: Collection[float]) -> Sampling:
        """The distinct points, and f at an end that is none of them, or asked before."""
        points = {point for schedule in schedules for point in schedule.points}
        passes = sum(end in early or end not in points for end in (0.0, 1.0)) if points else 0
        return Sampling(len(points), passes)

    def reference_gradients(self, schedules: Sequence[Schedule | None], intervals: int) -> int:
        """Those of one trapezoid, which serves all."""
        return intervals + 1 if schedules else 0


@dataclass(frozen=True)
class Straight(_Fixed):
    """The straight line from a colour, the path of Integrated Gradients (Sundararajan et al., 2017)."""

    baseline: Baseline = BLACK

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", colour_of(self.baseline))

    @property
    def label(self) -> str:
        """Its name in tables."""
        return label_of("ig", self)

    def through(self, images: Tensor) -> Path:
        """The lines to images (B, C, H, W)."""
        from riemannopt_dist.paths.straight import StraightPath

        return StraightPath.from_colour(images, colour_of(self.baseline))


@dataclass(frozen=True)
class Blur(_Fixed):
    """From a blurred image to the sharp one (Xu et al., CVPR 2020); `sigma_max` in pixels."""

    sigma_max: float = SIGMA_MAX

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < np.inf:
            raise ValueError(f"sigma_max: expected a positive number of pixels, got {self.sigma_max!r}")

    @property
    def label(self) -> str:
        """Its name in tables."""
        return label_of("blur_ig", self)

    def through(self, images: Tensor) -> Path:
        """The paths to images (B, C, H, W)."""
        from riemannopt_dist.paths.blur import BlurPath

        return BlurPath(images, self.sigma_max)


@dataclass(frozen=True)
class Guided:
    """What Guided IG's walk (Kapishnikov et al., CVPR 2021) is given and costs, by the original's defaults.

    The walk itself is `paths.guided.GuidedPath`.

    `fraction` in (0, 1] of the features, those with the smallest gradients, move at a time; none strays from
    the straight line by more than `max_dist` in [0, 1], in units of α. `closeness` is how near, relative or
    absolute, the L1 distance must come to a step's goal: the original's ε.

    RiemannOpt's authors take 0.5 for the fraction, 1e-4 for ε, and the mean colour of ImageNet.
    """

    fraction: float = 0.25
    max_dist: float = 0.02
    closeness: float = 1e-9
    baseline: Baseline = BLACK
    walked = True

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: expected a number above 0 and at most 1, got {self.fraction!r}")
        if not 0 <= self.max_dist <= 1:
            raise ValueError(f"max_dist: expected a number in [0, 1], got {self.max_dist!r}")
        if not 0 <= self.closeness < 1:
            raise ValueError(
                f"closeness: expected a number of at least 0 and below 1, got {self.closeness!r}"
            )
        object.__setattr__(self, "baseline", colour_of(self.baseline))

    @property
    def label(self) -> str:
        """Its name in tables."""
        return label_of("guided_ig", self)

    def through(self, images: Tensor) -> GuidedPath:
        """The walks to images (B, C, H, W)."""
        from riemannopt_dist.paths.guided import GuidedPath
        from riemannopt_dist.paths.straight import StraightPath

        return GuidedPath(StraightPath.from_colour(images, colour_of(self.baseline)), self)

    def sampling(self, schedules: Sequence[Schedule], early: Collection[float]) -> Sampling:
        """The points of every schedule, which leads a walk of its own; f at its start comes with the first.

        One of the left rule ends one step before the image, at which f takes a forward pass.
        """
        distinct = set(schedules)
        passes = sum(schedule.points[-1] < 1 for schedule in distinct)
        return Sampling(sum(map(len, distinct)), passes)

    def reference_gradients(self, schedules: Sequence[Schedule | None], intervals: int) -> int:
        """Those of every walk's own, whatever the `intervals` of other paths."""
        distinct = {tuple(partition_of(schedule)[0].tolist()) for schedule in schedules if schedule}
        return sum(WALK_PIECES * (len(partition) - 1) + 1 for partition in distinct)


PATHS: Registry[Callable[..., PathFamily]] = Registry(
    "path",
    "riemannopt_dist.paths",
    {"ig": Straight, "blur_ig": Blur, "guided_ig": Guided},
    renamed={
        f"{path}_idgi": f"'{path}, with the estimator idgi' now" for path in ("ig", "blur_ig", "guided_ig")
    },
)


def path_family(name: str, parameters: Mapping[str, Any] | None = None) -> PathFamily:
    """The family called `name`. Raises ValueError for an unknown one, and for parameters that it lacks."""
    make = PATHS[name]
    try:
        return make(**(parameters or {}))
    except TypeError as error:
        known = getattr(make, "__dataclass_fields__", {})
        expected = f"expected some of {', '.join(known)}" if known else "it takes none of these"
        raise ValueError(f"path {name}: {expected}, got {dict(parameters or {})} ({error})") from None

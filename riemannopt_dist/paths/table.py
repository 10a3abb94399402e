"""The paths by name: what a configuration may ask for. A new one is a file, and an entry here.

An entry makes a family from the parameters given with it, and a family knows what its samples, profiles and
converged maps cost. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from riemannopt_dist.choices import check_positive
from riemannopt_dist.entries import function_of, like
from riemannopt_dist.paths.base import SIGMA_MAX, PathFamily, Sampling
from riemannopt_dist.paths.baselines import BLACK, Baseline, baseline_of
from riemannopt_dist.quadrature.rules import partition_of
from riemannopt_dist.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from riemannopt_dist.paths.base import Path
    from riemannopt_dist.paths.draws import Draws
    from riemannopt_dist.paths.guided import GuidedPath
    from riemannopt_dist.paths.straight import StraightPath
    from riemannopt_dist.quadrature.schedule import Schedule

WALK_PIECES = 8
"""Into how many intervals each step of a guided walk is divided for its converged integral."""


def label_of(name: str, family: Any) -> str:
    """`name` with those parameters of a family, a dataclass, that are not its defaults."""
    values = ((field, getattr(family, field.name)) for field in fields(family))
    told = [f"{field.name}={_shown(value)}" for field, value in values if value != field.default]
    return f"{name}({', '.join(told)})" if told else name


def _shown(value: Any) -> str:
    return str(value.name) if hasattr(value, "name") else f"{value:g}"


class _Fixed:
    """What families of paths have in common that are known beforehand."""

    walked = False

    def sampling(self, schedules: Sequence[Schedule], early: Collection[float]) -> Sampling:
        """The distinct points, and f at an end that is none of them, or asked before."""
        points = {point for schedule in schedules for point in schedule.points}
        passes = sum(end in early or end not in points for end in (0.0, 1.0)) if points else 0
        return Sampling(len(points), passes)

    def profile_gradients(self, samples: int) -> int:
        """One at each position."""
        return samples

    def reference_gradients(self, schedules: Sequence[Schedule | None], intervals: int) -> int:
        """Those of one trapezoid, which serves all."""
        return intervals + 1 if schedules else 0


class _FromBaseline:
    """What families have in common whose paths begin at a baseline, or at each of several draws of one."""

    baseline: Any
    draws: int | None

    def check_baseline(self) -> None:
        """Take the baseline for what it stands for. Raises ValueError where that is nothing."""
        if self.draws is not None:
            check_positive(self.draws, "draws")
        object.__setattr__(self, "baseline", baseline_of(self.baseline))
        self.baseline.several(self.draws)  # files are read when they are needed

    @property
    def count(self) -> int:
        """The paths to each image. Raises ValueError for more draws than there are."""
        counted: int = self.baseline.count(self.draws)
        return counted

    @property
    def several(self) -> bool:
        """Whether it begins, or may begin, at more than one baseline: of pictures without reading them."""
        may: bool = self.baseline.several(self.draws)
        return may

    def digest(self) -> str | None:
        """That of what the baseline is read from, None where it is read from nowhere."""
        digest: str | None = self.baseline.digest()
        return digest

    def lines(self, images: Tensor) -> list[StraightPath]:
        """The straight lines to images (B, C, H, W), those of a draw after those of another."""
        from riemannopt_dist.arguments import check_images
        from riemannopt_dist.paths.straight import StraightPath

        check_images(images)
        return [StraightPath(images, self.baseline.of(images, draw)) for draw in range(self.count)]


@dataclass(frozen=True)
class Straight(_FromBaseline, _Fixed):
    """The straight line from a baseline, the path of Integrated Gradients (Sundararajan et al., 2017).

    `baseline` is "black", "white", a grey or a value in [0, 1] for each channel, the image's own colour
    "mean", "blurred", "noise", where pictures are, a file or a folder, or a `Baseline` of one's own, such as
    "package.module:name". Of noise and pictures maps are averaged over `draws` of them, as Sturmfels et al.
    (Distill, 2020) and expected gradients do.
    """

    baseline: Baseline | str | float | Sequence[float] = BLACK
    draws: int | None = None

    def __post_init__(self) -> None:
        self.check_baseline()

    @property
    def label(self) -> str:
        """Its name in tables."""
        return label_of("ig", self)

    def through(self, images: Tensor) -> Path | Draws:
        """The lines to images (B, C, H, W)."""
        from riemannopt_dist.paths.draws import one_or_draws

        return one_or_draws(self.lines(images))


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
class Guided(_FromBaseline):
    """What Guided IG's walk (Kapishnikov et al., CVPR 2021) is given and costs, by the original's defaults.

    The walk itself is `paths.guided.GuidedPath`.

    `fraction` in (0, 1] of the features, those with the smallest gradients, move at a time; none strays from
    the straight line by more than `max_dist` in [0, 1], in units of α. `closeness` is how near, relative or
    absolute, the L1 distance must come to a step's goal: the original's ε.

    `baseline` and `draws` are as of `Straight`. RiemannOpt's authors take 0.5 for the fraction, 1e-4 for ε,
    and the mean colour of ImageNet.
    """

    fraction: float = 0.25
    max_dist: float = 0.02
    closeness: float = 1e-9
    baseline: Baseline | str | float | Sequence[float] = BLACK
    draws: int | None = None
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
        self.check_baseline()

    @property
    def label(self) -> str:
        """Its name in tables."""
        return label_of("guided_ig", self)

    def through(self, images: Tensor) -> GuidedPath | Draws:
        """The walks to images (B, C, H, W)."""
        from riemannopt_dist.paths.draws import one_or_draws
        from riemannopt_dist.paths.guided import GuidedPath

        return one_or_draws([GuidedPath(line, self) for line in self.lines(images)])

    def sampling(self, schedules: Sequence[Schedule], early: Collection[float]) -> Sampling:
        """The points of every schedule, which leads a walk of its own; f at its start comes with the first.

        One of the left rule ends one step before the image, at which f takes a forward pass.
        """
        distinct = set(schedules)
        passes = sum(schedule.points[-1] < 1 for schedule in distinct)
        return Sampling(sum(map(len, distinct)), passes)

    def profile_gradients(self, samples: int) -> int:
        """One where each step begins, none at the image."""
        return samples - 1

    def reference_gradients(self, schedules: Sequence[Schedule | None], intervals: int) -> int:
        """Those of every walk's own, whatever the `intervals` of other paths."""
        distinct = {tuple(partition_of(schedule)[0].tolist()) for schedule in schedules if schedule}
        return sum(WALK_PIECES * (len(partition) - 1) + 1 for partition in distinct)


PATHS: Registry[Callable[..., PathFamily]] = Registry(
    "path",
    "riemannopt_dist.paths",
    {"ig": Straight, "blur_ig": Blur, "guided_ig": Guided},
    function_of(makes="a family of paths"),
    renamed={
        f"{path}_idgi": f"'{path}, with the estimator idgi' now" for path in ("ig", "blur_ig", "guided_ig")
    },
)


def path_family(name: str, parameters: Mapping[str, Any] | None = None) -> PathFamily:
    """The family called `name`, which may be a label that tells parameters, such as "ig(baseline=white)".

    Raises ValueError for an unknown one, and for parameters that it lacks.
    """
    name, told = parsed_label(name)
    given = {**told, **(parameters or {})}
    make = PATHS[name]
    try:
        family = make(**given)
    except TypeError as error:
        known = getattr(make, "__dataclass_fields__", {})
        some = f"some of {', '.join(known)}, got {given}"
        makes = f"a function that makes a family of paths of {given or 'no parameters'}"
        raise ValueError(f"path {name}: expected {some if known else makes} ({error})") from None
    if fault := like(PathFamily)(family):
        raise ValueError(f"path {name}: {fault}")
    return family


def parsed_label(label: str) -> tuple[str, dict[str, Any]]:
    """A path's name and the parameters told with it: "ig(baseline=noise, draws=8)".

    Numbers are numbers, several of them a colour. Raises ValueError for a parameter without a value.
    """
    name, opened, rest = label.partition("(")
    if not (opened and rest.endswith(")")):
        return label, {}
    pairs = [part.partition("=") for part in rest[:-1].split(",")]
    for key, _, value in pairs:
        if not (key.strip() and value.strip()):
            raise ValueError(f"path: expected a name such as ig(baseline=white), got {label!r}")
    return name, {key.strip(): _parameter(value.strip()) for key, _, value in pairs}


def _parameter(text: str) -> Any:
    """A whole number, a number, a colour, or a word."""
    if text.isdecimal():
        return int(text)
    try:
        numbers = tuple(map(float, text.split()))
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers

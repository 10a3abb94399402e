"""Attribution methods by name. A new one is a family here, or an entry in the table.

A family is a way to take gradients: along a fixed path, or along Guided IG's walk. Each carries two methods
that share its gradients: the plain Riemann sum, and IDGI.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypedDict

from torch import Tensor, nn

from riemannopt_dist.adaptive import adaptive_attribution, adaptive_to_tolerance
from riemannopt_dist.adaptive_secant import adaptive_secant_attribution
from riemannopt_dist.arguments import check_choice, check_images
from riemannopt_dist.attribution import Attribution, integrate_path, union_of_points
from riemannopt_dist.blur_path import BlurPath
from riemannopt_dist.choices import AVERAGES, DEFAULT_AVERAGE, REFINE, Average, Refine
from riemannopt_dist.choices import METHODS as METHODS
from riemannopt_dist.choices import Method as Method
from riemannopt_dist.gradients import DEFAULT_INTERNAL_BATCH_SIZE, Output
from riemannopt_dist.guided_path import DEFAULT_WALK, Walk, guided_sums, guided_variation
from riemannopt_dist.metrics.reference import Reference, converge, converge_walk
from riemannopt_dist.paths import Path, StraightPath
from riemannopt_dist.profile import (
    PROFILE_SAMPLES,
    Profile,
    Variations,
    equispaced,
    path_variation,
)
from riemannopt_dist.refinement import merged, needs_refinement, refining_positions
from riemannopt_dist.schedule import Array, Schedule, partition_of
from riemannopt_dist.secant import secant_attribution


class Settings(TypedDict):
    """The options that all of the library's functions take."""

    output: Output
    internal_batch_size: int


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be explained: images (B, C, H, W), each one's class (B,), the model, and how it is asked.

    `walk` is how Guided IG goes, where it is the method.
    """

    model: nn.Module
    images: Tensor
    targets: Tensor
    output: Output = "probability"
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE
    walk: Walk = DEFAULT_WALK

    def __post_init__(self) -> None:
        check_images(self.images)

    @property
    def settings(self) -> Settings:
        """The question's options as keyword arguments."""
        return {"output": self.output, "internal_batch_size": self.internal_batch_size}


class Sums(NamedTuple):
    """The schedules of each kind of sum along a family's gradients; Guided IG's walk has no secants."""

    riemann: tuple[Schedule, ...] = ()
    idgi: tuple[Schedule, ...] = ()
    end_weighted: tuple[Schedule, ...] = ()
    secant: tuple[Schedule, ...] = ()

    @property
    def schedules(self) -> list[Schedule]:
        """All of them, kind by kind."""
        return [schedule for kind in self for schedule in kind]

    @property
    def sampled(self) -> list[Schedule]:
        """Those whose gradients are samples, which can be shared."""
        return [*self.riemann, *self.idgi, *self.end_weighted]


class Family(Protocol):
    """One way to take gradients between a baseline and an image."""

    def attributions(self, question: Question, sums: Sums) -> list[Attribution]:
        """A map for each of `sums.schedules`, in their order, with gradients shared."""
        ...

    def evaluations(self, sums: Sums) -> int:
        """The gradient evaluations an image that these sums cost together."""
        ...

    def variations(self, question: Question, alphas: Array) -> Array:
        """Mean over features of |Δg / Δα| between positions `alphas` (k,), for each image: (B, k − 1)."""
        ...

    def references(
        self, question: Question, schedules: Sequence[Schedule], edges: Array
    ) -> dict[Schedule, Reference]:
        """The converged maps of each schedule's path, from the trapezoid on `edges` where all share one.

        A path that depends on its schedule is integrated as that schedule leads it.
        """
        ...


@dataclass(frozen=True)
class FixedPath:
    """A path that is known beforehand: all schedules share the gradients at common points."""

    path: Callable[[Tensor], Path]

    def attributions(self, question: Question, sums: Sums) -> list[Attribution]:
        """A map for each schedule: from one pass along the path, but secants are each schedule's own."""
        given = (question.model, self.path(question.images), question.targets)
        made: list[Attribution] = []
        if sums.sampled:
            made += integrate_path(
                *given, sums.riemann, idgi=sums.idgi, end_weighted=sums.end_weighted, **question.settings
            )
        return made + [secant_attribution(*given, schedule, **question.settings) for schedule in sums.secant]

    def evaluations(self, sums: Sums) -> int:
        """The number of distinct points, and all secants."""
        points = len(union_of_points(sums.sampled)[0]) if sums.sampled else 0
        return points + sum(map(len, sums.secant))

    def variations(self, question: Question, alphas: Array) -> Array:
        """Algorithm 1's |Δg / Δα| along the path."""
        path = self.path(question.images)
        return path_variation(question.model, path, question.targets, alphas, **question.settings)

    def placed_per_image(
        self, question: Question, profile: Profile, samples: int, tolerance: float | None
    ) -> Attribution:
        """Maps from points of each image's own: `samples` of them, or at most so many for a tolerance."""
        given = (question.model, self.path(question.images), question.targets, profile)
        if tolerance is None:
            return adaptive_attribution(*given, samples, **question.settings)
        return adaptive_to_tolerance(*given, tolerance, maximum=samples, **question.settings)

    def secants_per_image(self, question: Question, profile: Profile, samples: int) -> Attribution:
        """Maps from `samples` secants over intervals of each image's own."""
        given = (question.model, self.path(question.images), question.targets, profile)
        return adaptive_secant_attribution(*given, samples, **question.settings)

    def references(
        self, question: Question, schedules: Sequence[Schedule], edges: Array
    ) -> dict[Schedule, Reference]:
        """The converged maps of the path, the same for all."""
        given = (question.model, self.path(question.images), question.targets, len(edges) - 1)
        return dict.fromkeys(schedules, converge(*given, partition=lambda _: edges, **question.settings))


@dataclass(frozen=True)
class GuidedWalk:
    """Guided IG's walk: each schedule leads its own, shared by the sum and IDGI."""

    def attributions(self, question: Question, sums: Sums) -> list[Attribution]:
        """A map for each schedule; kinds of sums with the same schedule share its walk."""
        path, walk = question.walk.line(question.images), question.walk
        walked = {
            schedule: guided_sums(
                question.model, path, question.targets, schedule, walk=walk, **question.settings
            )
            for schedule in dict.fromkeys(sums.schedules)
        }
        return [getattr(walked[schedule], kind) for kind in Sums._fields for schedule in getattr(sums, kind)]

    def evaluations(self, sums: Sums) -> int:
        """The points of all distinct schedules."""
        return sum(len(schedule) for schedule in set(sums.schedules))

    def variations(self, question: Question, alphas: Array) -> Array:
        """|Δg / Δα| along the walk that the positions themselves lead."""
        path, walk = question.walk.line(question.images), question.walk
        return guided_variation(
            question.model, path, question.targets, alphas, walk=walk, **question.settings
        )

    def references(
        self, question: Question, schedules: Sequence[Schedule], edges: Array
    ) -> dict[Schedule, Reference]:
        """The converged integral along each schedule's own walk."""
        path = question.walk.line(question.images)
        walks: dict[tuple[float, ...], Reference] = {}
        found = {}
        for schedule in dict.fromkeys(schedules):
            partition, _ = partition_of(schedule)
            key = tuple(partition.tolist())
            if key not in walks:
                given = (question.model, path, question.targets, partition)
                walks[key] = converge_walk(*given, walk=question.walk, **question.settings)
            found[schedule] = walks[key]
        return found


FAMILIES: dict[str, Family] = {
    "ig": FixedPath(StraightPath.from_black),
    "blur_ig": FixedPath(BlurPath),
    "guided_ig": GuidedWalk(),
}


def blur_ig(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    schedule: Schedule,
    *,
    path: BlurPath | None = None,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Blur IG (Xu et al., CVPR 2020) of images (B, C, H, W): the path leads from blurred to sharp images.

    `path` is `BlurPath(images)` unless given, with σ_max 50 pixels. Arguments, result and errors are else
    those of `integrated_gradients`.
    """
    chosen = BlurPath(images) if path is None else path
    (result,) = integrate_path(
        model, chosen, targets, [schedule], output=output, internal_batch_size=internal_batch_size
    )
    return result


def idgi(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    schedule: Schedule,
    *,
    family: str = "ig",
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """IDGI (Yang et al., CVPR 2023) of images (B, C, H, W) along the path of "ig", "blur_ig" or "guided_ig".

    The schedule's rule is left, right or trapezoid (ValueError otherwise; guided_ig has no right).
    """
    check_choice(family, tuple(FAMILIES), "family")
    question = Question(model, images, targets, output, internal_batch_size)
    (result,) = FAMILIES[family].attributions(question, Sums(idgi=(schedule,)))
    return result


def estimate_profile(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    method: str = "ig",
    samples: int = PROFILE_SAMPLES,
    refine: Refine = "auto",
    average: Average = DEFAULT_AVERAGE,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Profile:
    """The profile of a method's path over images (B, C, H, W), from `samples` equispaced points an image.

    `refine` "always" adds a second pass of as many points, placed by the first; "auto" does so where the
    profile lies in a part of the path, as Blur IG's does. `average`, of the images, is one of those of
    `profile_from_variations`.

    Raises ValueError for an unknown method or average, fewer than two samples (three for "guided_ig"), or
    images and targets that do not fit.
    """
    check_choice(method, tuple(METHODS), "method")
    check_choice(refine, REFINE, "refine")
    check_choice(average, AVERAGES, "average")
    family = FAMILIES[METHODS[method].family]
    question = Question(model, images, targets, output, internal_batch_size)

    def one_pass(alphas: Array) -> Variations:
        return Variations(alphas, family.variations(question, alphas))

    first = one_pass(equispaced(samples))
    profile = first.profile(average)
    if not needs_refinement(profile, refine):
        return profile
    return merged(first, one_pass(refining_positions(profile, samples)), average)

"""Attribution methods by name. A new one is a family here, or an entry in the table.

A family is a way to take gradients: along a fixed path, or along Guided IG's walk. Each carries two methods
that share its gradients: the plain Riemann sum, and IDGI.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from torch import Tensor, nn

from riemannopt_dist.adaptive import adaptive_attribution, adaptive_to_tolerance
from riemannopt_dist.arguments import check_choice, check_images
from riemannopt_dist.attribution import Attribution, integrate_path, union_of_points
from riemannopt_dist.blur_path import BlurPath
from riemannopt_dist.gradients import DEFAULT_INTERNAL_BATCH_SIZE, Output
from riemannopt_dist.guided_ig import guided_sums, guided_variation
from riemannopt_dist.metrics.reference import Reference, converge
from riemannopt_dist.paths import Path, StraightPath
from riemannopt_dist.profile import PROFILE_SAMPLES, Profile, ProfileSum, equispaced, path_variation
from riemannopt_dist.schedule import Array, Schedule


class Settings(TypedDict):
    """The options that all of the library's functions take."""

    output: Output
    internal_batch_size: int


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be explained: images (B, C, H, W), each one's class (B,), the model, and how it is asked."""

    model: nn.Module
    images: Tensor
    targets: Tensor
    output: Output = "probability"
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE

    def __post_init__(self) -> None:
        check_images(self.images)

    @property
    def settings(self) -> Settings:
        """The question's options as keyword arguments."""
        return {"output": self.output, "internal_batch_size": self.internal_batch_size}


class Family(Protocol):
    """One way to take gradients between a baseline and an image."""

    def attributions(
        self, question: Question, riemann: Sequence[Schedule], idgi: Sequence[Schedule]
    ) -> list[Attribution]:
        """Riemann sums and then IDGI maps, in the order of their schedules, with gradients shared."""
        ...

    def evaluations(self, schedules: Sequence[Schedule]) -> int:
        """The gradient evaluations an image that these schedules cost together."""
        ...

    def variations(self, question: Question, alphas: Array) -> Array:
        """Mean over features of |Δg / Δα| between positions `alphas` (k,), for each image: (B, k − 1)."""
        ...

    def reference(self, question: Question, edges: Array) -> Reference | None:
        """Converged maps from the trapezoid on `edges`; None where a path depends on its schedule."""
        ...


@dataclass(frozen=True)
class FixedPath:
    """A path that is known beforehand: all schedules share the gradients at common points."""

    path: Callable[[Tensor], Path]

    def attributions(
        self, question: Question, riemann: Sequence[Schedule], idgi: Sequence[Schedule]
    ) -> list[Attribution]:
        """Riemann sums and then IDGI maps, in the order of their schedules."""
        path = self.path(question.images)
        return integrate_path(question.model, path, question.targets, riemann, idgi=idgi, **question.settings)

    def evaluations(self, schedules: Sequence[Schedule]) -> int:
        """The number of distinct points."""
        return len(union_of_points(schedules)[0])

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

    def reference(self, question: Question, edges: Array) -> Reference:
        """Converged maps of the path."""
        given = (question.model, self.path(question.images), question.targets, len(edges) - 1)
        return converge(*given, partition=lambda _: edges, **question.settings)


@dataclass(frozen=True)
class GuidedWalk:
    """Guided IG's walk from black: each schedule leads its own, shared by the sum and IDGI."""

    def attributions(
        self, question: Question, riemann: Sequence[Schedule], idgi: Sequence[Schedule]
    ) -> list[Attribution]:
        """Riemann sums and then IDGI maps, in the order of their schedules."""
        path = StraightPath.from_black(question.images)
        walked = {
            schedule: guided_sums(question.model, path, question.targets, schedule, **question.settings)
            for schedule in dict.fromkeys([*riemann, *idgi])
        }
        return [walked[schedule][0] for schedule in riemann] + [walked[schedule][1] for schedule in idgi]

    def evaluations(self, schedules: Sequence[Schedule]) -> int:
        """The points of all distinct schedules."""
        return sum(len(schedule) for schedule in set(schedules))

    def variations(self, question: Question, alphas: Array) -> Array:
        """|Δg / Δα| along the walk that the positions themselves lead."""
        path = StraightPath.from_black(question.images)
        return guided_variation(question.model, path, question.targets, alphas, **question.settings)

    def reference(self, question: Question, edges: Array) -> None:
        """None: every schedule walks its own path, with an integral of its own."""
        return None


FAMILIES: dict[str, Family] = {
    "ig": FixedPath(StraightPath.from_black),
    "blur_ig": FixedPath(BlurPath),
    "guided_ig": GuidedWalk(),
}


@dataclass(frozen=True)
class Method:
    """A family, and which of its two sums is meant."""

    family: str
    idgi: bool = False


METHODS: dict[str, Method] = {name: Method(name) for name in FAMILIES} | {
    f"{name}_idgi": Method(name, idgi=True) for name in FAMILIES
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
    (result,) = FAMILIES[family].attributions(question, [], [schedule])
    return result


def estimate_profile(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    method: str = "ig",
    samples: int = PROFILE_SAMPLES,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Profile:
    """The profile of a method's path over images (B, C, H, W), from `samples` equispaced points an image.

    Raises ValueError for an unknown method, fewer than two samples, or images and targets that do not fit.
    """
    check_choice(method, tuple(METHODS), "method")
    alphas = equispaced(samples)
    question = Question(model, images, targets, output, internal_batch_size)
    return (
        ProfileSum.empty(alphas).add(FAMILIES[METHODS[method].family].variations(question, alphas)).profile()
    )

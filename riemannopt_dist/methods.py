"""The front door: attribution maps of images under a path, an estimator and a placement of its samples.

`attribute` has all of them by name; the other functions are calls of it for what people ask for by name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images
from riemannopt_dist.attribution import Attribution, mean_attributions
from riemannopt_dist.estimators.base import ADAPTIVE, LINEAR, Placed, attribute_together, refusal
from riemannopt_dist.estimators.idgi import IdgiSums
from riemannopt_dist.estimators.passes import Sums, sums_along
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.objective import DEFAULT_INTERNAL_BATCH_SIZE, Objective, Output
from riemannopt_dist.paths.base import Path, PathFamily
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.draws import Draws
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import path_family
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.placement.table import points_by_output
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.quadrature.schedule import Schedule


def attribute(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    path: str | PathFamily = "ig",
    estimator: str = "left",
    placement: str = LINEAR,
    samples: int = 16,
    tolerance: float | None = None,
    profile: Profile | None = None,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Attribution maps of images (B, C, H, W), RGB in [0, 1], for class indices `targets` (B,).

    `path` is a name in PATHS ("ig", "blur_ig", "guided_ig") or a family with its parameters, such as
    `Straight(baseline="white")`; `estimator` a name in ESTIMATORS ("left", "trapezoid", "idgi", "rescale");
    `placement` says where the `samples` are: "linear", by a `profile` of the path (`estimate_profile`)
    "riemannopt", "exact", "adaptive" and others, or by each image's output "non_uniform" and "idg". With a
    `tolerance`, which goes with the placement "adaptive" and the estimator "softmax_trapezoid", images take
    points of their own until their estimated error is at most that, `samples` at most.

    Raises ValueError for what does not go together, a placement without its profile, images that are not a
    finite floating-point batch, and targets that do not fit.
    """
    family = path_family(path) if isinstance(path, str) else path
    chosen = ESTIMATORS[estimator]
    if (reason := refusal(chosen, family, placement, samples, tolerance)) is not None:
        raise ValueError(f"{family.label}, {estimator}, {placement}, {samples} samples: {reason}")
    objective = Objective(model, targets, output, internal_batch_size)
    placed = _placed(placement, chosen.rule(family), samples, tolerance, profile)
    (result,) = attribute_together(objective, family.through(images), [(chosen, placed)])
    return result


def _placed(
    placement: str, rule: str, samples: int, tolerance: float | None, profile: Profile | None
) -> Placed:
    if (points := points_by_output(placement, rule, samples)) is not None:
        return Placed(samples, by_output=points)
    if placement == LINEAR:
        return Placed(samples, linear_schedule(samples, rule))
    if profile is None:
        raise ValueError(f"profile: the placement {placement} needs one of this path (estimate_profile)")
    if placement == ADAPTIVE:
        return Placed(samples, None, profile, tolerance)
    return Placed(samples, optimize_schedule(profile, samples, rule, placement))


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    schedule: Schedule,
    *,
    baselines: Tensor | None = None,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Integrated Gradients (Sundararajan et al., 2017) of images (B, C, H, W), RGB in [0, 1].

    Σ_k w_k ∂f/∂γ(α_k) · (x − x′) along the straight path from `baselines` (black unless given) for class
    indices `targets` (B,). `internal_batch_size` bounds the memory and changes nothing beyond rounding.
    Raises ValueError for images that are not a finite floating-point batch and for targets that do not fit.
    """
    check_images(images)
    path = StraightPath(images, torch.zeros_like(images) if baselines is None else baselines)
    objective = Objective(model, targets, output, internal_batch_size)
    return _sum(path, objective, RiemannSums, schedule)


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
    return _sum(chosen, Objective(model, targets, output, internal_batch_size), RiemannSums, schedule)


def guided_ig(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    schedule: Schedule,
    *,
    path: GuidedPath | None = None,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Guided IG of images (B, C, H, W), RGB in [0, 1].

    `path` is `GuidedPath(StraightPath.from_black(images))` unless given, by the original's defaults.

    The schedule's partition 0 = b_0 < … < b_n = 1 sets how far each step goes. A left schedule weights each
    move with the gradient at its start, as the original does; a trapezoid schedule with the mean of the
    gradients at its two ends.

    Raises ValueError for a schedule of another rule, and for arguments outside these ranges.
    """
    chosen = GuidedPath(StraightPath.from_black(images)) if path is None else path
    return _sum(chosen, Objective(model, targets, output, internal_batch_size), RiemannSums, schedule)


def idgi(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    schedule: Schedule,
    *,
    path: str = "ig",
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """IDGI (Yang et al., CVPR 2023) of images (B, C, H, W) along the path "ig", "blur_ig" or "guided_ig".

    The schedule's rule is left, right or trapezoid (ValueError otherwise; guided_ig has no right).
    """
    objective = Objective(model, targets, output, internal_batch_size)
    return _sum(path_family(path).through(images), objective, IdgiSums, schedule)


def integrate_path(objective: Objective, path: Path, schedules: Sequence[Schedule]) -> list[Attribution]:
    """Riemann sums along a path under several schedules, which share the gradients at common points."""
    return sums_along(path, objective, [(RiemannSums, schedule) for schedule in schedules])


def _sum(
    path: Path | GuidedPath | Draws, objective: Objective, kind: type[Sums], schedule: Schedule
) -> Attribution:
    members = path.members if isinstance(path, Draws) else (path,)
    (result,) = mean_attributions(sums_along(one, objective, [(kind, schedule)]) for one in members)
    return result

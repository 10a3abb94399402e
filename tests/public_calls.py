"""Every public function that asks a model something, as it is called on a batch of small images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.estimators.converged import converge_walk
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.testing.problems import RISING
from tests.sums import integrate

Call = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
"""Takes a model, images, targets and the size of a micro-batch."""

ENDS = ro.linear_schedule(7, "trapezoid")


def _straight(images: Tensor) -> ro.StraightPath:
    return ro.StraightPath(images, images.flip(3) / 4)


def _idgi(path: str) -> Call:
    return lambda model, x, t, size: ro.idgi(model, x, t, ENDS, path=path, internal_batch_size=size).maps


def _with_end_weights(model: nn.Module, x: Tensor, t: Tensor, size: int) -> Tensor:
    late = ro.linear_schedule(5, "right")
    made = integrate(model, _straight(x), t, [], softmax=[ENDS, late], internal_batch_size=size)
    return torch.stack([result.maps for result in made], dim=1)


def _profile(path: str) -> Call:
    def call(model: nn.Module, x: Tensor, t: Tensor, size: int) -> Tensor:
        found = ro.estimate_profile(ro.Objective(model, t, internal_batch_size=size), x, path=path, samples=7)
        return torch.tensor([found.magnitudes], dtype=torch.float64)

    return call


def _scaled(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Maps that take the model, and no gradient."""
    return x.float() * ro.Objective(model, t).values(x)[:, None, None, None]


def _placed(estimator: str, placement: str) -> Call:
    def call(model: nn.Module, x: Tensor, t: Tensor, size: int) -> Tensor:
        choice = {"estimator": estimator, "placement": placement, "samples": 7}
        return ro.attribute(model, x, t, **choice, internal_batch_size=size).maps

    return call


MAPS: dict[str, Call] = {
    "integrated_gradients": lambda model, x, t, size: (
        ro.integrated_gradients(model, x, t, ro.linear_schedule(9, "left"), internal_batch_size=size).maps
    ),
    "integrated_gradients gauss_legendre": lambda model, x, t, size: (
        ro.integrated_gradients(
            model, x, t, ro.linear_schedule(5, "gauss_legendre"), internal_batch_size=size
        ).maps
    ),
    "blur_ig": lambda model, x, t, size: (
        ro.blur_ig(model, x, t, ENDS, path=ro.BlurPath(x, 2.0), internal_batch_size=size).maps
    ),
    "guided_ig": lambda model, x, t, size: ro.guided_ig(model, x, t, ENDS, internal_batch_size=size).maps,
    "attribute": lambda model, x, t, size: (
        ro.attribute(model, x, t, estimator="trapezoid", samples=7, internal_batch_size=size).maps
    ),
    **{f"idgi {path}": _idgi(path) for path in PATHS},
    "attribute idg": _placed("idg", "idg"),
    "attribute left_ig": _placed("left_ig", "non_uniform"),
    "attribute path_weighted_late": _placed("path_weighted_late", "linear"),
    "integrate_path": _with_end_weights,
    "adaptive_attribution": lambda model, x, t, size: (
        ro.adaptive_attribution(
            ro.Objective(model, t, internal_batch_size=size), _straight(x), RISING, 9
        ).maps
    ),
    "adaptive_to_tolerance": lambda model, x, t, size: (
        ro.adaptive_to_tolerance(
            ro.Objective(model, t, internal_batch_size=size), _straight(x), RISING, 0.1, maximum=12
        ).maps
    ),
    "rescale_attribution": lambda model, x, t, size: (
        ro.rescale_attribution(
            ro.Objective(model, t, internal_batch_size=size), _straight(x), ro.linear_schedule(5, "left")
        ).maps
    ),
    "adaptive_rescale_attribution": lambda model, x, t, size: (
        ro.adaptive_rescale_attribution(
            ro.Objective(model, t, internal_batch_size=size), _straight(x), RISING, 6
        ).maps
    ),
    "converge": lambda model, x, t, size: (
        ro.converge(ro.Objective(model, t, internal_batch_size=size), _straight(x), 8).maps
    ),
    "converge_walk": lambda model, x, t, size: (
        converge_walk(
            ro.GuidedPath(_straight(x)),
            ro.Objective(model, t, internal_batch_size=size),
            linear_partition(3),
            pieces=4,
        ).maps
    ),
}
"""Maps (B, …) by the name of the function."""

SCORES: dict[str, Call] = {
    "estimate_profile": _profile("blur_ig"),
    "estimate_profile guided_ig": _profile("guided_ig"),
    "insertion": lambda model, x, t, size: (
        ro.insertion(ro.Objective(model, t, internal_batch_size=size), x, x).curve
    ),
    "insertion rise": lambda model, x, t, size: (
        ro.insertion(ro.Objective(model, t, internal_batch_size=size), x, x, convention="rise").curve
    ),
    "smoothed_insertion": lambda model, x, t, size: (
        ro.smoothed_insertion(ro.Objective(model, t, internal_batch_size=size), x, x).curve
    ),
    "deletion": lambda model, x, t, size: (
        ro.deletion(ro.Objective(model, t, internal_batch_size=size), x, x).curve
    ),
    "infidelity": lambda model, x, t, size: ro.infidelity(
        ro.Objective(model, t, internal_batch_size=size), x, x
    )[:, None],
    "sensitivity_n": lambda model, x, t, size: ro.sensitivity_n(
        ro.Objective(model, t, internal_batch_size=size), x, x
    ),
    "road": lambda model, x, t, size: ro.road(ro.Objective(model, t, internal_batch_size=size), x, x).curve,
    "randomisation_check": lambda model, x, t, size: ro.randomisation_check(model, x, t, _scaled).similarity,
    "random_logit_check": lambda model, x, t, size: ro.random_logit_check(model, x, t, _scaled).similarity,
    "audit_maps": lambda model, x, t, size: ro.audit_maps(
        ro.Objective(model, t, internal_batch_size=size), x, x, intervals=16
    ).error[:, None],
    "information_curve": lambda model, x, t, size: (
        ro.information_curve(
            ro.Objective(model, t, internal_batch_size=size), x, x, convention="fast", workers=1
        ).probability
    ),
}
"""What is no map: profiles (1, k − 1) and curves (B, K)."""

EXACT: dict[str, Call] = {
    "exact_integrated_gradients": lambda model, x, t, size: (
        ro.exact_integrated_gradients(model, x, t, internal_batch_size=size).maps
    ),
    "breakpoints": lambda model, x, t, size: torch.cat(
        [torch.from_numpy(one) for one in ro.breakpoints(model, _straight(x), internal_batch_size=size)]
    ),
}
"""Of piecewise-linear networks alone, in float64."""

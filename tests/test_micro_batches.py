"""Micro-batches bound the memory and change nothing beyond rounding, whatever the type and the counts."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.estimators.converged import converge_walk
from riemannopt_dist.objective import Output
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.precision import relative_rounding, sum_type
from riemannopt_dist.quadrature.rules import RULES, linear_partition
from riemannopt_dist.testing.problems import PROFILES
from tests.networks import OneByOne
from tests.sums import integrate

Estimator = Callable[..., Tensor]
"""Takes a model, images, targets and a count of at least 3, and the settings of all functions."""

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def network(dtype: torch.dtype) -> nn.Module:
    """A smooth network, (B, 3, 5, 5) → (B, 4), that sees one image at a time.

    So its gradient is the same to the last bit in any micro-batch, and what differs is our own sums.
    """
    layers = (nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 4))
    generator = torch.Generator().manual_seed(6)
    for parameter in (model := nn.Sequential(*layers)).parameters():
        nn.init.normal_(parameter, std=0.7, generator=generator)
    return OneByOne(model).eval().to(dtype)


def riemann(rule: str) -> Estimator:
    def estimator(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
        schedule = ro.linear_schedule(2 ** (count // 2), rule)
        return ro.integrated_gradients(model, x, t, schedule, **settings).maps

    return estimator


def idgi(path: str) -> Estimator:
    def estimator(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
        schedule = ro.linear_schedule(count, "trapezoid")
        return ro.idgi(model, x, t, schedule, path=path, **settings).maps

    return estimator


def blur(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    path = ro.BlurPath(x, 2.0)
    return ro.blur_ig(model, x, t, ro.linear_schedule(count, "right"), path=path, **settings).maps


def guided(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    return ro.guided_ig(model, x, t, ro.linear_schedule(count, "left"), **settings).maps


def end_weighted(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    schedules = [ro.linear_schedule(count, rule) for rule in ("trapezoid", "right")]
    path = ro.StraightPath.from_black(x)
    made = integrate(model, path, t, [], softmax=schedules, **settings)
    return torch.stack([result.maps for result in made], dim=1)


def adaptive(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    path = ro.BlurPath(x, 2.0)
    return ro.adaptive_attribution(ro.Objective(model, t, **settings), path, PROFILES["late"], count).maps


def to_tolerance(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    path, profile = ro.StraightPath(x, x.flip(2) / 2), PROFILES["rising"]
    return ro.adaptive_to_tolerance(
        ro.Objective(model, t, **settings), path, profile, 0.05, maximum=count
    ).maps


def secants(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    path = ro.StraightPath.from_black(x)
    return ro.rescale_attribution(
        ro.Objective(model, t, **settings), path, ro.linear_schedule(count, "left")
    ).maps


def adaptive_secants(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    path = ro.StraightPath.from_black(x)
    return ro.adaptive_rescale_attribution(
        ro.Objective(model, t, **settings), path, PROFILES["rising"], count
    ).maps


def converged(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    return ro.converge(ro.Objective(model, t, **settings), ro.StraightPath.from_black(x), 2 * count).maps


def converged_walk(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    path = ro.GuidedPath(ro.StraightPath.from_black(x))
    objective = ro.Objective(model, t, **settings)
    return converge_walk(path, objective, linear_partition(count), pieces=2).maps


def profile(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    found = ro.estimate_profile(ro.Objective(model, t, **settings), x, samples=count, refine="always")
    return torch.tensor([found.magnitudes], dtype=torch.float64)


def guided_profile(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    found = ro.estimate_profile(
        ro.Objective(model, t, **settings), x, path="guided_ig", samples=count, refine="never"
    )
    return torch.tensor([found.magnitudes], dtype=torch.float64)


def curves(model: nn.Module, x: Tensor, t: Tensor, count: int, **settings: object) -> Tensor:
    maps = torch.stack([x.roll(shift, 3) for shift in range(count)])
    objective = ro.Objective(model, t, **settings)
    return torch.cat([curve(objective, x, maps).curve for curve in (ro.insertion, ro.deletion)])


ESTIMATORS: dict[str, Estimator] = {
    **{f"ig {rule}": riemann(rule) for rule in RULES},
    **{f"idgi {path}": idgi(path) for path in PATHS},
    "blur_ig": blur,
    "guided_ig": guided,
    "end weights": end_weighted,
    "adaptive": adaptive,
    "tolerance": to_tolerance,
    "secants": secants,
    "adaptive secants": adaptive_secants,
    "converge": converged,
    "converge_walk": converged_walk,
    "profile": profile,
    "guided profile": guided_profile,
    "curves": curves,
}


@pytest.mark.parametrize("name", list(ESTIMATORS))
@settings(max_examples=8)
@given(
    dtype=st.sampled_from(DTYPES),
    images=st.integers(1, 3),
    count=st.integers(3, 8),
    sizes=st.tuples(st.integers(1, 9), st.integers(10, 40)),
    output=st.sampled_from(["probability", "logit"]),
    seed=st.integers(0, 99),
)
def test_micro_batches_change_nothing_beyond_rounding(
    name: str,
    dtype: torch.dtype,
    images: int,
    count: int,
    sizes: tuple[int, int],
    output: Output,
    seed: int,
) -> None:
    """Half precision is rounded where the model computes, which is the same: our sums are float32 there."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(images, 3, 5, 5, generator=generator).to(dtype)
    targets = torch.randint(4, (images,), generator=generator)
    # Secants need all samples of an interval in one call, whose rounding is the model's.
    secant = "secants" in name
    model = network(dtype).network if secant else network(dtype)
    few, many = (
        ESTIMATORS[name](model, x, targets, count, output=output, internal_batch_size=size) for size in sizes
    )
    assert few.dtype == many.dtype
    distance = (few - many).abs().flatten(1).sum(1)
    unit = relative_rounding(dtype if secant else sum_type(dtype))
    assert (distance <= unit * many.abs().flatten(1).sum(1)).all()

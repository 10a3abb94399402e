"""Paths take any tensors, and give what is no part of their graph."""

import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.estimators.adaptive import adaptive_attribution
from riemannopt_dist.estimators.adaptive_rescale import adaptive_rescale_attribution
from riemannopt_dist.estimators.converged import converge, converge_walk
from riemannopt_dist.estimators.exact_line import exact_integrated_gradients
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.methods import guided_ig
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.quadrature.estimation import estimate_profile
from riemannopt_dist.quadrature.rules import linear_partition, linear_schedule
from riemannopt_dist.testing.problems import RISING
from tests.sums import integrate


@pytest.fixture
def attached(images: Tensor) -> Tensor:
    """The images, as a leaf that gradients can be asked of."""
    return images.clone().requires_grad_()


@pytest.fixture(params=["straight", "blur"])
def path(request: pytest.FixtureRequest, attached: Tensor) -> Path:
    return BlurPath(attached, 3.0) if request.param == "blur" else StraightPath(attached, attached / 2)


def test_maps_are_no_part_of_the_images_graph(smooth_net: nn.Module, path: Path, targets: Tensor) -> None:
    objective = Objective(smooth_net, targets)
    schedules = [linear_schedule(4, "trapezoid")]
    results = [
        *integrate(smooth_net, path, targets, schedules, idgi=schedules, softmax=schedules),
        rescale_attribution(objective, path, schedules[0]),
        adaptive_attribution(objective, path, RISING, 8),
        adaptive_rescale_attribution(objective, path, RISING, 4),
        converge(objective, path, 4),
    ]
    assert not any(result.maps.requires_grad for result in results)


def test_maps_along_lines_and_walks_are_no_part_of_the_images_graph(
    smooth_net: nn.Module, linear_net: nn.Module, attached: Tensor, targets: Tensor
) -> None:
    walk = GuidedPath(StraightPath.from_black(attached))
    half = GuidedPath(StraightPath(attached, attached / 2))
    results = [
        guided_ig(smooth_net, attached, targets, linear_schedule(4), path=half),
        converge_walk(walk, Objective(smooth_net, targets), linear_partition(3)),
        exact_integrated_gradients(linear_net, attached, targets, baselines=attached / 2),
    ]
    assert not any(result.maps.requires_grad for result in results)


@pytest.mark.parametrize("name", PATHS)
def test_profiles_of_images_that_belong_to_a_graph(
    smooth_net: nn.Module, images: Tensor, attached: Tensor, targets: Tensor, name: str
) -> None:
    profile = estimate_profile(Objective(smooth_net, targets), attached, path=name, samples=5)
    assert profile == estimate_profile(Objective(smooth_net, targets), images, path=name, samples=5)


def test_baselines_of_another_type_or_device_are_refused(images: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"baselines: expected torch.float64 on cpu, .* got torch.float32 on cpu"
    ):
        StraightPath(images, torch.zeros_like(images).float())

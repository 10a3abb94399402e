"""Paths take any tensors, and give what is no part of their graph."""

import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.adaptive import adaptive_attribution
from riemannopt_dist.adaptive_secant import adaptive_secant_attribution
from riemannopt_dist.attribution import integrate_path
from riemannopt_dist.blur_path import BlurPath
from riemannopt_dist.exact_line import exact_integrated_gradients
from riemannopt_dist.guided_path import guided_ig
from riemannopt_dist.methods import METHODS, estimate_profile
from riemannopt_dist.metrics.reference import converge, converge_walk
from riemannopt_dist.paths import Path, StraightPath
from riemannopt_dist.schedule import linear_partition, linear_schedule
from riemannopt_dist.secant import secant_attribution
from tests.problems import RISING


@pytest.fixture
def attached(images: Tensor) -> Tensor:
    """The images, as a leaf that gradients can be asked of."""
    return images.clone().requires_grad_()


@pytest.fixture(params=["straight", "blur"])
def path(request: pytest.FixtureRequest, attached: Tensor) -> Path:
    return BlurPath(attached, 3.0) if request.param == "blur" else StraightPath(attached, attached / 2)


def test_maps_are_no_part_of_the_images_graph(smooth_net: nn.Module, path: Path, targets: Tensor) -> None:
    given = (smooth_net, path, targets)
    schedules = [linear_schedule(4, "trapezoid")]
    results = [
        *integrate_path(*given, schedules, idgi=schedules, end_weighted=schedules),
        secant_attribution(*given, schedules[0]),
        adaptive_attribution(*given, RISING, 8),
        adaptive_secant_attribution(*given, RISING, 4),
        converge(*given, 4),
    ]
    assert not any(result.maps.requires_grad for result in results)


def test_maps_along_lines_and_walks_are_no_part_of_the_images_graph(
    smooth_net: nn.Module, linear_net: nn.Module, attached: Tensor, targets: Tensor
) -> None:
    walk = StraightPath.from_black(attached)
    results = [
        guided_ig(smooth_net, attached, targets, linear_schedule(4), baselines=attached / 2),
        converge_walk(smooth_net, walk, targets, linear_partition(3)),
        exact_integrated_gradients(linear_net, attached, targets, baselines=attached / 2),
    ]
    assert not any(result.maps.requires_grad for result in results)


@pytest.mark.parametrize("method", METHODS)
def test_profiles_of_images_that_belong_to_a_graph(
    smooth_net: nn.Module, images: Tensor, attached: Tensor, targets: Tensor, method: str
) -> None:
    profile = estimate_profile(smooth_net, attached, targets, method=method, samples=5)
    assert profile == estimate_profile(smooth_net, images, targets, method=method, samples=5)


def test_baselines_of_another_type_or_device_are_refused(images: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"baselines: expected torch.float64 on cpu, .* got torch.float32 on cpu"
    ):
        StraightPath(images, torch.zeros_like(images).float())

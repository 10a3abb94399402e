"""Maps under torch.no_grad() and torch.inference_mode(): those that they are without."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.captum import IntegratedGradients
from riemannopt_dist.estimators.base import ADAPTIVE
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.testing.problems import RISING
from tests.public_calls import EXACT, MAPS, SCORES

MODES: tuple[Callable[[], Any], ...] = (torch.no_grad, torch.inference_mode)
CALLS = MAPS | SCORES | EXACT


def path_of(estimator: str) -> ro.Straight:
    return ro.Straight("noise", draws=3) if estimator == "expected_gradients" else ro.Straight("white")


PLACED = [
    (name, placement)
    for name in ESTIMATORS
    for placement in ("linear", "equidistribution", ADAPTIVE)
    if ESTIMATORS[name].refusal(path_of(name), placement, 9) is None
]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Small, piecewise linear, with all that a map may ask for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
        return nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_what_asks_a_model_something_does_so_everywhere(
    name: str, mode: Callable[[], Any], network: nn.Module, images: Tensor, targets: Tensor
) -> None:
    expected = CALLS[name](network, images, targets, 4)
    with mode():
        found = CALLS[name](network, images.clone(), targets.clone(), 4)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15, equal_nan=True)
    assert not found.requires_grad


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "placement"), PLACED)
def test_every_estimator_finds_its_gradients(
    name: str, placement: str, mode: Callable[[], Any], network: nn.Module, images: Tensor, targets: Tensor
) -> None:
    asked: dict[str, Any] = {"path": path_of(name), "estimator": name, "placement": placement, "samples": 9}
    expected = ro.attribute(network, images, targets, profile=RISING, **asked)
    with mode():
        found = ro.attribute(network, images.clone(), targets.clone(), profile=RISING, **asked)
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("settings", [{"estimator": "rescale"}, {"estimator": "rescale", "profile": RISING}])
def test_captums_noise_tunnel_takes_the_rescale_rule(
    settings: dict[str, Any], network: nn.Module, images: Tensor
) -> None:
    """It calls under no_grad. Noise so small changes little."""
    ig = IntegratedGradients(network)
    noisy = NoiseTunnel(ig).attribute(
        images, nt_samples=3, stdevs=1e-12, target=1, n_steps=8, nt_type="smoothgrad", **settings
    )
    torch.testing.assert_close(
        noisy, ig.attribute(images, target=1, n_steps=8, **settings), rtol=0, atol=1e-6
    )

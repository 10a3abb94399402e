"""The drop-in for captum's Integrated Gradients: its signature, its numbers, and other places for samples."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as Captums
from captum.attr import NoiseTunnel
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.captum import IntegratedGradients
from riemannopt_dist.quantus import explain_func
from riemannopt_dist.testing.problems import RISING


class TwoInputs(nn.Module):
    """Of two tensors, and a factor for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 5), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, a: Tensor, b: Tensor, factor: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.tanh(self.first(a) * self.second(b))) * factor[:, None]
        return logits


class Embedded(nn.Module):
    """Of word embeddings (B, T, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, words: Tensor) -> Tensor:
        logits: Tensor = self.last(self.recurrent(words)[0][:, -1])
        return logits


def _network(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A network, and what its attributions are asked with."""
    torch.manual_seed(3)
    classes = torch.tensor([1, 0, 1])
    if name == "MLP":
        return nn.Sequential(nn.Linear(4, 9), nn.Softplus(), nn.Linear(9, 2)).eval(), {
            "inputs": torch.randn(3, 4),
            "target": classes,
        }
    if name == "CNN":
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(64, 2))
        return network.eval(), {"inputs": torch.rand(3, 3, 6, 6), "target": 1, "baselines": 0.25}
    if name == "embedding":
        return Embedded().eval(), {"inputs": torch.randn(3, 7, 6), "target": classes}
    inputs = (torch.randn(3, 4), torch.randn(3, 3))
    return TwoInputs().eval(), {
        "inputs": inputs,
        "baselines": (torch.zeros(3, 4), 0.5),
        "target": classes,
        "additional_forward_args": torch.tensor([1.0, 2.0, -1.0]),
    }


NETWORKS = ("MLP", "CNN", "embedding", "two inputs")
RULES = {
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_middle": "midpoint",
    "gausslegendre": "gauss_legendre",
}


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_its_arguments_are_captums_and_more() -> None:
    captums = inspect.signature(Captums.attribute).parameters
    ours = inspect.signature(IntegratedGradients.attribute).parameters
    assert list(ours)[: len(captums)] == list(captums)
    assert all(ours[name].default == captums[name].default for name in captums)
    assert set(ours) - set(captums) == {"schedule", "estimator", "tolerance", "profile"}
    assert inspect.signature(IntegratedGradients) == inspect.signature(Captums)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", [*RULES, "riemann_trapezoid"])
@pytest.mark.parametrize("size", [None, 6])
def test_without_more_its_numbers_are_captums(name: str, method: str, size: int | None) -> None:
    network, asked = _network(name)
    settings = {"n_steps": 9, "method": method, "internal_batch_size": size, "return_convergence_delta": True}
    close(
        IntegratedGradients(network).attribute(**asked, **settings),
        Captums(network).attribute(**asked, **settings),
    )


def test_captums_tutorials_take_another_import() -> None:
    """Positional arguments, and an instance handed to NoiseTunnel, as captum's first tutorials have them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    inputs, baseline = torch.rand(2, 3), torch.zeros(2, 3)
    found = []
    for kind in (IntegratedGradients, Captums):
        ig = kind(model)
        maps, delta = ig.attribute(inputs, baseline, target=0, return_convergence_delta=True)
        torch.manual_seed(1)
        tunnel = NoiseTunnel(ig)
        noisy = tunnel.attribute(inputs, nt_type="smoothgrad_sq", nt_samples=5, stdevs=0.2, target=0)
        found.append((maps, delta, noisy))
    close(*found)
    torch.manual_seed(1)
    placed = NoiseTunnel(IntegratedGradients(model)).attribute(
        inputs, nt_samples=5, stdevs=0.2, target=0, schedule=ro.linear_schedule(50, "gauss_legendre")
    )
    torch.manual_seed(1)
    close(placed, NoiseTunnel(Captums(model)).attribute(inputs, nt_samples=5, stdevs=0.2, target=0))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("size", [None, 6, 1])
@pytest.mark.parametrize("multiplied", [True, False])
def test_a_linear_schedule_is_captums_method(
    name: str, method: str, size: int | None, multiplied: bool
) -> None:
    network, asked = _network(name)
    expected = Captums(network, multiplied).attribute(
        **asked, n_steps=9, method=method, return_convergence_delta=multiplied
    )
    found = IntegratedGradients(network, multiplied).attribute(
        **asked,
        schedule=ro.linear_schedule(9, RULES[method]),
        internal_batch_size=size,
        return_convergence_delta=multiplied,
    )
    close(found, expected)


def test_placed_samples_are_the_librarys() -> None:
    network, asked = _network("CNN")
    schedule = ro.optimize_schedule(RISING, 7, "trapezoid")
    found = IntegratedGradients(network).attribute(**asked, schedule=schedule)
    images, targets = asked["inputs"], torch.ones(3, dtype=torch.int64)
    expected = ro.integrated_gradients(
        network, images, targets, schedule, baselines=torch.full_like(images, 0.25), output="logit"
    )
    close(found, expected.maps)


ESTIMATED: dict[str, tuple[dict[str, Any], Callable[[ro.Objective, ro.StraightPath], ro.Attribution]]] = {
    "rescale": (
        {"estimator": "rescale"},
        lambda objective, path: ro.rescale_attribution(objective, path, ro.linear_schedule(8, "right")),
    ),
    "rescale placed": (
        {"estimator": "rescale", "profile": RISING},
        lambda objective, path: ro.adaptive_rescale_attribution(objective, path, RISING, 8),
    ),
    "adaptive": (
        {"estimator": "softmax_trapezoid", "profile": RISING},
        lambda objective, path: ro.adaptive_attribution(objective, path, RISING, 8),
    ),
    "tolerance": (
        {"tolerance": 0.01, "profile": RISING},
        lambda objective, path: ro.adaptive_to_tolerance(objective, path, RISING, 0.01, maximum=8),
    ),
}


@pytest.mark.parametrize("name", ESTIMATED)
def test_estimators_are_the_librarys(name: str) -> None:
    network, asked = _network("CNN")
    settings, function = ESTIMATED[name]
    found, delta = IntegratedGradients(network).attribute(
        **asked, n_steps=8, return_convergence_delta=True, **settings
    )
    images = asked["inputs"]
    objective = ro.Objective(network, torch.ones(3, dtype=torch.int64), "logit")
    expected = function(objective, ro.StraightPath(images, torch.full_like(images, 0.25)))
    close(found, expected.maps)
    close(delta, ro.completeness_delta(expected).to(delta))


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("two inputs", {"estimator": "rescale"}, "estimator: expected one tensor of images"),
        ("MLP", {"estimator": "left"}, r"inputs: expected a floating-point tensor \(B, C, H, W\)"),
        ("CNN", {"estimator": "rescale", "target": (0, 1)}, "target: expected a class index"),
        ("CNN", {"estimator": "rescale", "target": None}, "target: expected a class index"),
        ("CNN", {"tolerance": 0.1}, "profile: points per image need one"),
        ("CNN", {"tolerance": 0.1, "estimator": "rescale", "profile": RISING}, "tolerance: expected"),
        ("CNN", {"schedule": ro.linear_schedule(4, "left"), "tolerance": 0.1}, "schedule: expected alone"),
        ("CNN", {"profile": RISING}, "profile: expected an estimator or a tolerance"),
        ("CNN", {"profile": RISING, "schedule": ro.linear_schedule(4)}, "schedule: expected alone"),
        ("CNN", {"profile": RISING, "estimator": "left"}, "profile: expected an estimator that places"),
        ("CNN", {"estimator": "simpson"}, "estimator: expected one of"),
    ],
)
def test_what_does_not_go_together_is_named(name: str, settings: dict[str, Any], complaint: str) -> None:
    network, asked = _network(name)
    with pytest.raises(ValueError, match=complaint):
        IntegratedGradients(network).attribute(**asked | settings)


OTHERWISE: tuple[dict[str, Any], ...] = (
    {"schedule": ro.linear_schedule(4, "left")},
    {"estimator": "rescale", "n_steps": 4},
    {"n_steps": 4},
)


@pytest.mark.parametrize("settings", OTHERWISE)
@pytest.mark.parametrize(
    ("name", "baselines"),
    [
        ("CNN", torch.zeros(5, 3, 6, 6)),
        ("CNN", torch.zeros(6, 6)),
        ("CNN", torch.zeros(3, 6, 6)),
        ("CNN", (0.0, 0.0)),
        ("CNN", "black"),
        ("two inputs", torch.zeros(3, 4)),
        ("two inputs", 0.5),
    ],
)
def test_baselines_that_do_not_fit_are_refused_as_by_captum(
    name: str, baselines: Any, settings: dict[str, Any]
) -> None:
    network, asked = _network(name)
    for kind, given in ((Captums, {}), (IntegratedGradients, settings)):
        with pytest.raises(AssertionError, match=r"[Bb]aseline"):
            kind(network).attribute(**asked | {"baselines": baselines}, **given)


@pytest.mark.parametrize("settings", OTHERWISE[:2])
@pytest.mark.parametrize("baselines", [None, 0.25, torch.full((1, 3, 6, 6), 0.25), torch.rand(3, 3, 6, 6)])
def test_baselines_that_fit_are_taken_as_by_captum(settings: dict[str, Any], baselines: Any) -> None:
    """Of a linear model every sum is exact."""
    _, asked = _network("CNN")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).eval()
    given = asked | {"baselines": baselines}
    close(IntegratedGradients(network).attribute(**given, **settings), Captums(network).attribute(**given))


def test_quantus_gets_the_librarys_maps() -> None:
    network, asked = _network("CNN")
    images = asked["inputs"]
    found = explain_func(network, images.numpy(), np.array([1, 0, 1]), samples=8, estimator="trapezoid")
    expected = ro.attribute(network, images, torch.tensor([1, 0, 1]), samples=8, estimator="trapezoid").maps
    np.testing.assert_array_equal(found, expected.numpy())

"""Folded networks compute what they computed before, in fewer layers, or are left alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.folding import folded
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import Objective


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, _BatchNorm) for layer in model.modules())


def random_statistics(model: Classifier) -> Classifier:
    """`model` in float64 with running statistics that normalisation cannot ignore."""
    generator = torch.Generator().manual_seed(2)
    for layer in model.double().modules():
        if isinstance(layer, _BatchNorm):
            layer.running_mean.normal_(std=0.1, generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


class Copies(TorchDispatchMode):
    """Counts the copies that operations make of feature maps: (B, C, H, W) of more channels than an image."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.clone.default and args[0].ndim == 4 and args[0].shape[1] > 3
        return func(*args, **(kwargs or {}))


def copies(model: nn.Module, images: Tensor) -> int:
    with Copies() as found:
        Objective(model, torch.zeros(len(images), dtype=torch.int64)).gradients(images)
    return found.count


@pytest.mark.parametrize(
    ("name", "copying"),
    [("mobilenet_v2", nn.ReLU6), ("efficientnet_b0", nn.SiLU), ("resnet18", type(None))],
)
def test_activations_keep_no_copies(name: str, copying: type[nn.Module]) -> None:
    model = load_model(name, "random")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert copies(model, images) == sum(isinstance(layer, copying) for layer in model.modules())
    assert copies(folded(model), images) == 0


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "timm:tf_efficientnet_lite0"])
def test_outputs_and_gradients_stay(name: str) -> None:
    model = random_statistics(load_model(name, "random"))
    model.input_size = (64, 64)
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([3, 5])
    result = folded(model)
    assert norms(result) < norms(model) / 2
    for after, before in zip(
        Objective(result, targets, output="logit").gradients(images),
        Objective(model, targets, output="logit").gradients(images),
        strict=True,
    ):
        torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-10)


def test_layers_that_are_not_computed_in_their_order_are_left_alone() -> None:
    class Crossed(nn.Module):
        """Computes norm₂(conv₁(x)) + norm₁(conv₂(x)), though each norm is registered after the other one."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv1, self.norm1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.conv2, self.norm2 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return (self.norm2(self.conv1(x)) + self.norm1(self.conv2(x))).mean((2, 3))

    sizes = {"input_size": 8, "resize_size": 8, "classes": 4}
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    model = random_statistics(Classifier(Crossed(), name="crossed", mean=mean, std=std, **sizes))
    assert folded(model) is model


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.BatchNorm2d(4, track_running_stats=False)])
def test_normalisations_that_a_convolution_cannot_carry_are_left_alone(norm: nn.Module) -> None:
    """Of another width, as that of another branch is, or of the batch's own statistics."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 4, 1), norm
            self.last = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            branches = self.conv(self.norm(x)) if self.norm.num_features == 3 else self.norm(self.conv(x))
            return self.last(branches).mean((2, 3))

    sizes = {"input_size": 8, "resize_size": 8, "classes": 4}
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    model = Classifier(Branches(), name="branches", mean=mean, std=std, **sizes).double()
    result = folded(model)
    assert (norms(model), norms(result)) == (2, 1)
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(result(images), model(images), rtol=1e-8, atol=1e-10)


def test_a_layer_that_relies_on_what_an_activation_overwrites_is_left_alone() -> None:
    class Overwritten(nn.Module):
        """Adds to an activation its own input, which the activation has overwritten."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.act = nn.Conv2d(3, 4, 3), nn.Hardtanh(-0.1, 0.1, inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (self.act(y) + y).mean((2, 3))

    sizes = {"input_size": 8, "resize_size": 8, "classes": 4}
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    model = Classifier(Overwritten(), name="overwritten", mean=mean, std=std, **sizes)
    assert folded(model) is model

"""What the checks of common arguments refuse is wrong, and what they let pass is right."""

from collections.abc import Callable

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from riemannopt_dist.arguments import check_device, check_model
from riemannopt_dist.estimators.adaptive import adaptive_attribution
from riemannopt_dist.estimators.adaptive_rescale import adaptive_rescale_attribution
from riemannopt_dist.estimators.exact_line import exact_integrated_gradients
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.methods import guided_ig, integrated_gradients
from riemannopt_dist.metrics.information.curves import information_curve
from riemannopt_dist.metrics.insertion import deletion, insertion
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.quadrature.estimation import estimate_profile
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.testing.problems import RISING

RANDOM = {
    "dropout": nn.Dropout(0.5),
    "rrelu": nn.RReLU(),
    "attention": nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True),
    "torchvision's stochastic depth": StochasticDepth(0.5, "row"),
    "timm's stochastic depth": DropPath(0.5),
    "batch normalisation": nn.BatchNorm1d(6),
}


def output(layer: nn.Module, inputs: Tensor) -> Tensor:
    given = (inputs,) * 3 if isinstance(layer, nn.MultiheadAttention) else (inputs,)
    found = layer(*given)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("layer", RANDOM.values(), ids=RANDOM)
def test_layers_that_differ_between_calls_or_batches_are_refused_in_training(layer: nn.Module) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(64, 6, 4)
    model = nn.Sequential(nn.Identity(), layer)
    assert not torch.equal(output(layer.train(), inputs)[:32], output(layer, inputs[:32]))
    with pytest.raises(ValueError, match=r"model: expected evaluation mode .*, layer '1' is"):
        check_model(model)
    torch.testing.assert_close(output(layer.eval(), inputs)[:32], output(layer, inputs[:32]))
    check_model(model)


def test_normalisation_by_the_batch_is_refused_in_any_mode() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    inputs = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        assert not torch.allclose(norm.train(mode)(inputs)[:2], norm(inputs[:2]))
        with pytest.raises(ValueError, match="model: expected running statistics, layer '0' takes those of"):
            check_model(nn.Sequential(norm))


def test_a_model_without_such_layers_passes_in_training_mode() -> None:
    attention = nn.MultiheadAttention(4, 2)
    check_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), attention).train())


FOUR = linear_schedule(4)
CALLS: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "riemann": lambda model, images, targets: integrated_gradients(model, images, targets, FOUR),
    "guided": lambda model, images, targets: guided_ig(model, images, targets, FOUR),
    "rescale": lambda model, images, targets: rescale_attribution(
        Objective(model, targets), line(images), FOUR
    ),
    "adaptive": lambda model, images, targets: adaptive_attribution(
        Objective(model, targets, output="logit"), line(images), RISING, 4
    ),
    "adaptive secant": lambda model, images, targets: adaptive_rescale_attribution(
        Objective(model, targets), line(images), RISING, 4
    ),
    "exact": exact_integrated_gradients,
    "insertion": lambda model, images, targets: insertion(Objective(model, targets), images, images),
    "deletion": lambda model, images, targets: deletion(Objective(model, targets), images, images),
    "information": lambda model, images, targets: information_curve(
        Objective(model, targets), images, images
    ),
} | {
    f"profile of {path}": lambda model, images, targets, path=path: estimate_profile(
        Objective(model, targets), images, path=path, samples=4
    )
    for path in PATHS
}


def line(images: Tensor) -> StraightPath:
    return StraightPath.from_black(images)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_classes_that_a_model_lacks_are_refused(
    call: Callable[[nn.Module, Tensor, Tensor], object],
    linear_net: nn.Module,
    images: Tensor,
    targets: Tensor,
) -> None:
    with pytest.raises(ValueError, match="targets: expected class indices below 5, got 6"):
        call(linear_net, images, targets + 2)


def test_a_device_without_float64_is_refused() -> None:
    check_device(torch.device("cpu"))
    check_device(torch.device("cuda:1"))
    with pytest.raises(
        ValueError, match=r"^images: the device mps:0 has no float64, .* CPU or to a CUDA GPU$"
    ):
        check_device(torch.device("mps:0"))

"""The exact oracle on piecewise-linear networks: by hand, by closed forms, and as the limit of all rules."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.estimators.exact_line import breakpoints, exact_integrated_gradients
from riemannopt_dist.methods import integrate_path, integrated_gradients
from riemannopt_dist.metrics.completeness import completeness_delta
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.testing.stripes import stripes, trained_relu_net

FIRST = torch.tensor([0])


class Residual(nn.Module):
    """Two convolutions beside a shortcut, with one in-place ReLU that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.second(self.relu(self.first(inputs)))
        outputs += inputs
        return self.relu(outputs)


def seeded(network: nn.Module, scale: float = 0.5) -> nn.Module:
    """`network` in float64 and eval mode, every parameter and running mean normal with deviation `scale`."""
    generator = torch.Generator().manual_seed(0)
    network.double().eval()
    for name, tensor in network.state_dict().items():
        if name.endswith(("weight", "bias", "running_mean")):
            nn.init.normal_(tensor, std=scale, generator=generator)
    return network


@pytest.fixture(scope="module")
def mixed_net() -> nn.Module:
    """One of each supported layer, nested, behind a normalisation: (B, 3, 9, 9) → (B, 4)."""
    stem = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6(), nn.MaxPool2d(3, 2, padding=1)
    )
    body = nn.Sequential(Residual(), nn.AvgPool2d(2, stride=1), nn.Dropout(), nn.Hardtanh(-2, 3))
    head = nn.Sequential(nn.Conv2d(6, 5, 1), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network = seeded(nn.Sequential(stem, body, head, nn.Identity(), nn.Linear(20, 4), nn.PReLU()))
    return Classifier(
        network,
        name="mixed",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.2),
        input_size=9,
        resize_size=9,
        classes=4,
    ).double()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(3, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def row(*values: float) -> Tensor:
    """An image of one row, (1, 1, 1, W)."""
    return torch.tensor(values, dtype=torch.float64)[None, None, None]


def affine(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(bias)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


def l1_distances(maps: Tensor, reference: Tensor) -> Tensor:
    """‖a − b‖₁ / ‖b‖₁ of each image."""
    return (maps - reference).flatten(1).abs().sum(1) / reference.flatten(1).abs().sum(1)


def test_one_relu_by_hand() -> None:
    # f = max(0, 2 x₁ − x₂ − ½) is max(0, 3/2 α − ½) from black to (1, ½): zero until α = 1/3.
    model = nn.Sequential(nn.Flatten(), affine([[2, -1]], [-0.5]), nn.ReLU())
    image = row(1, 0.5)
    (found,) = breakpoints(model, StraightPath.from_black(image))
    np.testing.assert_allclose(found, [1 / 3], rtol=1e-14)
    result = exact_integrated_gradients(model, image, FIRST)
    torch.testing.assert_close(result.maps, row(4 / 3, -1 / 3), rtol=1e-14, atol=0)
    assert (result.f_input.item(), result.f_baseline.item()) == (1.0, 0.0)
    assert result.gradient_evaluations.tolist() == [2]


def test_absolute_values_by_hand() -> None:
    # |x₁| + |x₂| from (−1, −1) to (2, 1). Two units of each pair change at once, and count once.
    pairs = affine([[1, 0], [-1, 0], [0, 1], [0, -1]], [0.0] * 4)
    model = nn.Sequential(nn.Flatten(), pairs, nn.ReLU(), affine([[1, 1, 1, 1]], [0.0]))
    image, baseline = row(2, 1), row(-1, -1)
    (found,) = breakpoints(model, StraightPath(image, baseline))
    np.testing.assert_allclose(found, [1 / 3, 1 / 2], rtol=1e-14)
    result = exact_integrated_gradients(model, image, FIRST, baselines=baseline)
    torch.testing.assert_close(result.maps, row(1, 0), rtol=1e-14, atol=1e-14)


def test_a_maximum_that_moves_over_three_pixels_by_hand() -> None:
    # The pixels are 1 − α, 0.6 and α: the maximum moves at 0.4 and 0.6.
    model = nn.Sequential(nn.MaxPool2d((1, 3)), nn.Flatten())
    image, baseline = row(0, 0.6, 1), row(1, 0.6, 0)
    (found,) = breakpoints(model, StraightPath(image, baseline))
    assert np.abs(found[:, None] - [0.4, 0.6]).min(axis=0).max() < 1e-14
    result = exact_integrated_gradients(model, image, FIRST, baselines=baseline)
    torch.testing.assert_close(result.maps, row(-0.4, 0, 0.4), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d((2, 3), stride=1, dilation=2),
    ],
)
def test_windows_of_every_kind_are_complete(layer: nn.Module, pictures: Tensor) -> None:
    model = nn.Sequential(layer, nn.Flatten())
    baselines = pictures.flip(0, 3)
    result = exact_integrated_gradients(model, pictures, torch.tensor([0, 9, 20]), baselines=baselines)
    assert completeness_delta(result).abs().max() < 1e-14


def test_units_that_cross_together_but_for_rounding_make_one_breakpoint() -> None:
    weights = torch.rand(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist()
    units = affine(weights, [-weight / 3 for (weight,) in weights])
    model = nn.Sequential(nn.Flatten(), units, nn.ReLU())
    (found,) = breakpoints(model, StraightPath.from_black(row(1)))
    np.testing.assert_allclose(found, [1 / 3], rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), [0.2]),
        (nn.ReLU(inplace=True), [0.2]),
        (nn.LeakyReLU(0.1), [0.2]),
        (nn.PReLU(), [0.2]),
        (nn.ReLU6(), [0.2, 0.8]),
        (nn.Hardtanh(-1, 2), [0.1, 0.4]),
        (nn.Identity(), []),
    ],
)
def test_the_kinks_of_each_layer_by_hand(layer: nn.Module, expected: list[float]) -> None:
    model = nn.Sequential(nn.Flatten(), affine([[10]], [-2]), layer).double()  # 10 α − 2
    (found,) = breakpoints(model, StraightPath.from_black(row(1)))
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_units_that_start_or_end_on_their_kink_change_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), affine([[1], [1]], [0, -1]), nn.ReLU(), affine([[1, 1]], [0]))
    result = exact_integrated_gradients(model, row(1), FIRST)
    assert result.gradient_evaluations.tolist() == [1]
    torch.testing.assert_close(result.maps, row(1), rtol=1e-14, atol=0)


def test_a_linear_network_is_one_segment(linear_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    result = exact_integrated_gradients(linear_net, images, targets)
    assert result.gradient_evaluations.tolist() == [1, 1, 1]
    weights = linear_net[1].weight[targets].view(images.shape)
    torch.testing.assert_close(result.maps, weights * images, rtol=1e-14, atol=0)


def test_a_baseline_equal_to_the_image_gives_a_map_of_zeros(mixed_net: nn.Module, pictures: Tensor) -> None:
    result = exact_integrated_gradients(mixed_net, pictures, torch.tensor([0, 1, 2]), baselines=pictures)
    assert not result.maps.any()
    assert result.gradient_evaluations.tolist() == [1, 1, 1]


@pytest.mark.parametrize("internal_batch_size", [1, 32, 1000])
def test_thousands_of_breakpoints_are_those_of_the_closed_form(internal_batch_size: int) -> None:
    model = seeded(nn.Sequential(nn.Flatten(), nn.Linear(16, 1500), nn.ReLU(), nn.Linear(1500, 2)))
    image = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    slopes = (model[1].weight @ image.flatten()).detach().numpy()
    crossings = -model[1].bias.detach().numpy() / slopes
    expected = np.sort(crossings[(crossings > 0) & (crossings < 1)])
    assert len(expected) > 400

    sizes: list[int] = []
    model.register_forward_hook(lambda _, arguments, __: sizes.append(len(arguments[0])))
    (found,) = breakpoints(model, StraightPath.from_black(image), internal_batch_size=internal_batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert max(sizes) <= max(internal_batch_size, 2)


def test_the_gradient_is_constant_between_breakpoints_and_jumps_at_each() -> None:
    # Without dead units every crossing shows in the gradient.
    layers = (nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(196, 20), nn.LeakyReLU(0.1))
    model = seeded(nn.Sequential(*layers, nn.Linear(20, 2)))
    image = torch.rand(1, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (inner,) = breakpoints(model, StraightPath.from_black(image))
    edges = torch.from_numpy(np.concatenate([[0.0], inner, [1.0]]))
    assert len(inner) > 40

    def gradients(share: float) -> Tensor:
        alphas = edges[:-1] + share * edges.diff()
        inputs = alphas[:, None, None, None] * image
        return Objective(model, torch.zeros(len(alphas)).long(), output="logit").gradients(inputs)[1]

    early, late = gradients(0.1).flatten(1), gradients(0.9).flatten(1)
    torch.testing.assert_close(late, early, rtol=0, atol=1e-12)
    assert (early[1:] - late[:-1]).abs().amax(1).min() > 1e-3


# Equal intervals under the rule released are a part of 128 points, and stop short of the path's end.
@pytest.mark.parametrize("rule", ["left", "right", "midpoint", "trapezoid", "gauss_legendre"])
def test_every_rule_converges_to_it_at_first_order_because_of_the_jumps(rule: str) -> None:
    images, labels = stripes(12, seed=2)
    model = trained_relu_net()
    exact = exact_integrated_gradients(model, images, labels)
    counts = [8, 16, 32, 64, 128, 256, 512]
    results = integrate_path(
        Objective(model, labels, output="logit", internal_batch_size=512),
        StraightPath.from_black(images),
        [linear_schedule(count, rule) for count in counts],
    )
    errors = [float(l1_distances(result.maps, exact.maps).mean()) for result in results]
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert 0.85 < order < 1.15
    assert errors[-1] < 5e-3


def test_the_trained_networks_maps_are_complete_and_those_of_a_very_fine_sum() -> None:
    images, labels = stripes(16, seed=3)
    model = trained_relu_net()
    assert torch.equal(model(images).argmax(1), labels)
    exact = exact_integrated_gradients(model, images, labels)
    assert exact.gradient_evaluations.min() > 100
    assert completeness_delta(exact).abs().max() < 1e-12
    fine = integrated_gradients(
        model,
        images[:2],
        labels[:2],
        linear_schedule(5000, "midpoint"),
        output="logit",
        internal_batch_size=500,
    )
    assert l1_distances(fine.maps, exact.maps[:2]).max() < 1e-4


def test_a_mixed_networks_maps_are_complete_and_those_of_a_very_fine_sum(
    mixed_net: nn.Module, pictures: Tensor
) -> None:
    targets = torch.tensor([3, 0, 1])
    baselines = pictures.flip(0) / 2
    exact = exact_integrated_gradients(mixed_net, pictures, targets, baselines=baselines)
    assert exact.gradient_evaluations.min() > 100
    assert completeness_delta(exact).abs().max() < 1e-10
    fine = integrated_gradients(
        mixed_net,
        pictures,
        targets,
        linear_schedule(2000, "midpoint"),
        baselines=baselines,
        output="logit",
        internal_batch_size=500,
    )
    assert l1_distances(fine.maps, exact.maps).max() < 1e-3
    torch.testing.assert_close(exact.f_input, fine.f_input, rtol=1e-12, atol=0)
    torch.testing.assert_close(exact.f_baseline, fine.f_baseline, rtol=1e-12, atol=0)


def test_batches_change_nothing(mixed_net: nn.Module, pictures: Tensor) -> None:
    targets = torch.tensor([3, 0, 1])
    together = exact_integrated_gradients(mixed_net, pictures, targets)
    alone = exact_integrated_gradients(mixed_net, pictures[1:2], targets[1:2], internal_batch_size=50)
    assert l1_distances(alone.maps, together.maps[1:2]).max() < 1e-12
    assert alone.gradient_evaluations.item() == together.gradient_evaluations[1].item()


def test_a_float32_network_is_computed_in_float64_and_left_as_it_was(pictures: Tensor) -> None:
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(196, 2))
    model = seeded(nn.Sequential(*layers)).float()
    result = exact_integrated_gradients(model, pictures.float(), torch.tensor([0, 1, 0]))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert result.maps.dtype == result.f_input.dtype == torch.float64
    assert completeness_delta(result).abs().max() < 1e-12


class Functional(nn.Module):
    """A linear layer behind a function that is no layer."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = getattr(torch, function)
        self.inner = nn.Sequential(nn.Flatten(), seeded(nn.Linear(243, 2)))

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.inner(images))


@pytest.mark.parametrize("layer", [nn.Sigmoid(), nn.Softmax(dim=1), nn.GELU(), nn.SiLU(), nn.LayerNorm(2)])
def test_a_layer_that_is_not_piecewise_linear_is_named(layer: nn.Module, pictures: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(243, 2), layer)).double().eval()
    complaint = rf"layer '1.1' \({type(layer).__name__}\) is not known to be piecewise linear"
    with pytest.raises(ValueError, match=complaint):
        exact_integrated_gradients(model, pictures, torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("function", ["relu", "sigmoid", "tanh", "square"])
def test_functions_that_are_no_layers_are_noticed(function: str, pictures: Tensor) -> None:
    with pytest.raises(ValueError, match=r"its logits bend by .* of image \d"):
        exact_integrated_gradients(Functional(function), pictures - 0.5, torch.tensor([0, 1, 0]))


def test_bad_arguments_are_refused_by_name(mixed_net: nn.Module, pictures: Tensor) -> None:
    targets = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match="layer '2' is in training mode"):
        breakpoints(
            nn.Sequential(nn.Flatten(), nn.Linear(243, 2), nn.Dropout()), StraightPath.from_black(pictures)
        )
    with pytest.raises(ValueError, match="targets: expected class indices from 0 to 3"):
        exact_integrated_gradients(mixed_net, pictures, targets + 2)
    with pytest.raises(ValueError, match="images: expected a floating-point tensor"):
        exact_integrated_gradients(mixed_net, pictures[0], targets)
    with pytest.raises(ValueError, match="baselines: expected the images' shape"):
        exact_integrated_gradients(mixed_net, pictures, targets, baselines=pictures[:1])
    with pytest.raises(ValueError, match="internal_batch_size"):
        exact_integrated_gradients(mixed_net, pictures, targets, internal_batch_size=0)

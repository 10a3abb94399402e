"""Mean slopes of single operations: by hand, by numerical integrals, and on torchvision's architectures."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from riemannopt_dist.models.loading import load_model
from riemannopt_dist.rescale.mode import RescaleMode
from riemannopt_dist.rescale.tape import Tape

ROWS = 4


def rows(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(ROWS, *shape, dtype=torch.float64, generator=generator)


def passed_back(function: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor) -> Tensor:
    """The gradient of Σ weights · function(x) by mean slopes; the last row has no next one."""
    inputs = x.clone().requires_grad_()
    with RescaleMode(len(x)):
        found = function(inputs)
    torch.testing.assert_close(found, function(x), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found, inputs, weights)
    assert not gradient[-1].any()
    return gradient[:-1]


def averaged(function: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor, points: int) -> Tensor:
    """The same by its definition: derivatives on the lines between rows, by a midpoint rule."""
    total = torch.zeros_like(x[:-1])
    for point in range(points):
        between = torch.lerp(x[:-1], x[1:], (point + 0.5) / points).requires_grad_()
        (part,) = torch.autograd.grad(function(between), between, weights[:-1])
        total += part / points
    return total


def gated(x: Tensor) -> Tensor:
    """A channel's gate, as in squeeze-and-excitation: the product of two linear functions of x."""
    return x * x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    "function",
    [
        functional.relu,
        torch.relu,
        functional.relu6,
        nn.Hardtanh(-0.5, 2.0),
        nn.ReLU(inplace=True),
        lambda x: x.clamp(min=0.3),
        lambda x: functional.leaky_relu(x, 0.2),
        functional.hardsigmoid,
        torch.sigmoid,
        functional.silu,
        functional.gelu,
        functional.elu,
        lambda x: torch.tanh(x) / 2 - x,
        gated,
        torch.square,
        lambda x: torch.sqrt(torch.square(x) + 0.01),
        lambda x: 1 / (torch.square(x) + 0.5),
        lambda x: functional.avg_pool2d(x, 2),
    ],
)
def test_a_mean_slope_is_the_mean_of_derivatives_on_the_line(function: Callable[[Tensor], Tensor]) -> None:
    x = rows(3, 4, 4)
    weights = torch.rand(function(x.clone()).shape, dtype=torch.float64)
    weights[-1] = 0
    expected = averaged(lambda values: function(values.clone()), x, weights, points=2000)
    found = passed_back(lambda values: function(values.clone()), x, weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


def written_over(x: Tensor) -> Tensor:
    """The same tensor before and after an activation that writes to it, whose result is not used."""
    y = x - 0.5
    functional.relu(y, inplace=True)
    torch.relu_(y.mul_(2))
    return y * x


def scaled_in_place(x: Tensor) -> Tensor:
    y = x + 1
    y *= torch.sigmoid(x)
    return y.div_(2)


def swish_in_place(x: Tensor) -> Tensor:
    """The sigmoid's input is written to before any gradient passes."""
    y = 2 * x
    y.mul_(torch.sigmoid(y))
    z = torch.relu(y)
    y[:, :1] = 3
    y += 1
    return y * z


OPERATIONS = (
    scaled_in_place,
    written_over,
    swish_in_place,
    lambda x: functional.layer_norm(x * 1e-3, x.shape[1:]),
    lambda x: functional.group_norm(x, 2, torch.tensor([2.0, 0.5]).double(), torch.ones(2).double()),
    lambda x: x / (torch.square(x) + 1e-4),
    lambda x: torch.mul(input=x, other=torch.sigmoid(input=x)),
    lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2),
    functional.hardswish,
    lambda x: functional.hardswish(x) * torch.sigmoid(x),
    lambda x: x / (2 + torch.sigmoid(x)),
    lambda x: functional.max_pool2d(x, 3, 2, 1),
    lambda x: functional.max_pool2d(x, 2),
    lambda x: functional.max_pool2d(x, (3, 2), (1, 2), (1, 0), ceil_mode=True),
    lambda x: functional.max_pool2d(x, 2, 1, dilation=2),
    lambda x: torch.softmax(x.flatten(1), dim=1),
    lambda x: torch.log_softmax(10 * x, dim=1, dtype=torch.float64),
    lambda x: functional.normalize(x, dim=1),
    lambda x: x.norm(dim=(2, 3), keepdim=True),
    lambda x: torch.linalg.vector_norm(x, ord=2, dim=-1),
    lambda x: functional.rms_norm(x, x.shape[2:], eps=0.1),
    lambda x: x.amax((1, 2)) + x.amin((1, 2)),
    lambda x: x.max(dim=2)[0] * torch.max(x.sum(2), x.mean(2)),
    lambda x: torch.einsum("bchw,bkhw,hk->bck", x, torch.tanh(x), torch.ones(5, 2).double()),
    lambda x: torch.baddbmm(x[:, 0], x[:, 0, :, :5], x[:, 1], beta=0.5, alpha=2),
    lambda x: torch.addcmul(x, x.sigmoid(), x, value=0.3),
    lambda x: functional.gelu(x, approximate="tanh") + x**3 * torch.erf(x),
    lambda x: torch.cat([torch.relu(x - 1), x[:, :1]], dim=1),
)


@pytest.mark.parametrize("function", OPERATIONS)
def test_contributions_sum_to_the_change_between_rows(function: Callable[[Tensor], Tensor]) -> None:
    """Σ of mean slope × step over inputs is each output's change, for every output alone."""
    x = rows(2, 5, 6, scale=1.0)
    outputs = function(x).flatten(1)
    for output in range(0, outputs.shape[1], 7):
        weights = torch.zeros_like(outputs)
        weights[:-1, output] = 1
        found = passed_back(function, x, weights.view_as(function(x)))
        sums = (found * (x[1:] - x[:-1])).flatten(1).sum(1)
        torch.testing.assert_close(sums, outputs[1:, output] - outputs[:-1, output], rtol=0, atol=1e-9)


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("passes", [((3, 0), (1, 2)), ((2,), (0,), (3, 1))])
def test_passes_that_are_joined_are_one(
    function: Callable[[Tensor], Tensor], passes: tuple[tuple[int, ...], ...]
) -> None:
    """Rows in any order in several passes have the gradients that they have as neighbours in one."""
    x = rows(2, 5, 6, scale=1.0)
    weights = torch.rand(function(x.clone()).shape, dtype=torch.float64)
    weights[-1] = 0
    tape, parts = Tape(), [x[list(taken)].requires_grad_() for taken in passes]
    values = []
    for part in parts:
        with RescaleMode(len(part), tape):
            values.append(function(part))
    order = [row for taken in passes for row in taken]
    tape.join([order.index(min(row + 1, ROWS - 1)) for row in order])
    gradients = torch.autograd.grad(values, parts, [weights[list(taken)] for taken in passes])
    found = torch.cat(gradients)[torch.tensor(order).argsort()]
    torch.testing.assert_close(found[:-1], passed_back(function, x, weights), rtol=0, atol=1e-12)


def test_passes_of_other_operations_are_refused() -> None:
    tape, x = Tape(), rows(2).requires_grad_()
    with RescaleMode(ROWS, tape):
        torch.relu(x)
    with pytest.raises(ValueError, match="operation sigmoid is not among"), RescaleMode(ROWS, tape):
        torch.sigmoid(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_slopes_by_hand(dtype: torch.dtype) -> None:
    """ReLU from −1 to 3 rises by 3 over 4; where nothing moves it is the derivative, to any least step 1."""
    least = torch.finfo(dtype).smallest_normal
    x = torch.tensor([[-1.0, 2.0, -2.0, 2 * least], [3.0, 2.0, -2.0, least]], dtype=dtype)
    found = passed_back(torch.relu, x, torch.tensor([[1.0] * 4, [0.0] * 4], dtype=dtype))
    assert found.tolist() == [[0.75, 1.0, 0.0, 1.0]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_activations_have_the_slopes_of_their_values(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worked on in parts, in the order of memory, every value has the slope that it has alone."""
    monkeypatch.setattr("riemannopt_dist.rescale.ramp.SLAB", 50)
    x = rows(5, 4, 3).mul(4).contiguous(memory_format=layout)
    x[1, :2] = x[0, :2]
    weights = torch.rand_like(x)
    weights[-1] = 0
    found = passed_back(functional.relu6, x, weights)
    alone = [
        passed_back(functional.relu6, column[:, None], weight[:, None])
        for column, weight in zip(x.flatten(1).T, weights.flatten(1).T, strict=True)
    ]
    assert torch.equal(found.flatten(1), torch.cat(alone, dim=1))
    moved = x[1:] != x[:-1]
    slopes = (x.clamp(0, 6).diff(dim=0) / x.diff(dim=0))[moved]
    torch.testing.assert_close((found / weights[:-1])[moved], slopes, rtol=1e-12, atol=0)


def test_small_steps_lose_no_digits() -> None:
    """In float32, quotients of differences at steps of 1e-6 would be off by percents."""
    x = torch.tensor([[1.5], [1.5 + 1e-6]])
    found = passed_back(functional.silu, x, torch.tensor([[1.0], [0.0]]))
    exact = torch.tensor(1.5, dtype=torch.float64).requires_grad_()
    (derivative,) = torch.autograd.grad(functional.silu(exact), exact)
    assert abs(float(found) - float(derivative)) < 1e-6


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (torch.sin, "operation sin"),
        (lambda x: torch.div(x, x, rounding_mode="floor"), "rounding_mode floor"),
        (lambda x: functional.adaptive_max_pool2d(x, 1), "adaptive_max_pool2d"),
        (lambda x: x.norm(p=1, dim=1), "operation norm"),
        (lambda x: torch.einsum("bc,bc,bc->b", x[..., 0], x[..., 1], x[..., 2]), "operation einsum"),
        (lambda x: x * x[:, 0], r"products of shapes \(4, 2, 3, 3\), \(4, 3, 3\)"),
        (lambda x: x.norm(), r"operation norm has a tensor of shape \(1, 1, 1, 1\)"),
        (lambda x: torch.relu(x.transpose(0, 2)), r"operation clamp has a tensor of shape \(3, 2, 4, 3\)"),
    ],
)
def test_an_operation_that_is_not_known_is_named(function: Callable[[Tensor], Tensor], named: str) -> None:
    x = rows(2, 3, 3).requires_grad_()
    with pytest.raises(ValueError, match=named), RescaleMode(ROWS):
        function(x)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "inception_v3",
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        "googlenet",
        "convnext_tiny",
        "timm:seresnet18",
        "timm:ecaresnet26t",
        "timm:resnetrs50",
        "timm:repvgg_a0",
    ],
)
def test_networks_are_complete(name: str) -> None:
    """Logits' changes between noise images, from contributions of mean slopes alone."""
    model = load_model(name, "random").double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):  # in some networks those of residual branches are zero
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 3, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs = x.clone().requires_grad_()
    with RescaleMode(2):
        logits = model(inputs)
    weights = torch.zeros_like(logits)
    weights[0, 7] = 1
    (gradient,) = torch.autograd.grad(logits, inputs, weights)
    change = (logits[1, 7] - logits[0, 7]).item()
    assert change != 0
    assert float((gradient[0] * (x[1] - x[0])).sum()) == pytest.approx(change, rel=1e-4)

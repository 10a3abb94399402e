"""What writes in place, to whole tensors and to parts, under the Rescale rule: right, or refused by name.

What is right is the integral of ordinary gradients, by a trapezoid of 1,024 intervals.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from riemannopt_dist.estimators.converged import converge
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import linear_schedule

SIDE = 4
GENERATOR = torch.Generator().manual_seed(0)
CONV = nn.Conv2d(3, 4, 3, padding=1).double().requires_grad_(False)
NORM = nn.BatchNorm2d(4).double().eval().requires_grad_(False)
for parameter in (*CONV.parameters(), *NORM.parameters()):
    nn.init.normal_(parameter, std=0.4, generator=GENERATOR)
HEAD = 0.3 * torch.randn(3, 4 * SIDE**2, generator=GENERATOR, dtype=torch.float64)
MATRIX = 0.4 * torch.randn(SIDE, SIDE, generator=GENERATOR, dtype=torch.float64)

FIRST: dict[str, Callable[[Tensor], Tensor]] = {
    "image": lambda x: torch.cat([x, x[:, :1]], 1),
    "convolution": CONV,
    "product": lambda x: CONV(x) * torch.sigmoid(CONV(x)),
    "gate": lambda x: CONV(x) * CONV(x).mean((2, 3), keepdim=True).sigmoid(),
    "clamp": lambda x: CONV(x).clamp(-0.5, 0.5),
    "batch_norm": lambda x: NORM(CONV(x)),
    "layer_norm": lambda x: functional.layer_norm(CONV(x), (SIDE, SIDE), eps=0.1),
    "group_norm": lambda x: functional.group_norm(CONV(x), 2, eps=0.1),
    "matmul": lambda x: torch.matmul(CONV(x), MATRIX @ CONV(x)),
    "softmax": lambda x: CONV(x).softmax(-1),
    "max_pool": lambda x: functional.max_pool2d(CONV(x), 3, 1, 1),
    "cat": lambda x: torch.cat([CONV(x)[:, :2], torch.tanh(CONV(x))[:, 2:]], 1),
    "division": lambda x: CONV(x) / (1 + torch.sigmoid(CONV(x))),
}


def sets_a_part(part: Tensor, other: Tensor) -> None:
    part[..., :1] = other[..., -1:].square()


def takes_by_values(part: Tensor, other: Tensor) -> None:
    part[part < 0] = 0


def scales_by_values(part: Tensor, other: Tensor) -> None:
    part[part < 0] *= 0.1


def multiplied(part: Tensor, other: Tensor) -> None:
    part *= other.sigmoid()


def divided(part: Tensor, other: Tensor) -> None:
    part /= 2 + other.sigmoid()


def powered(part: Tensor, other: Tensor) -> None:
    part **= 2


IN_PLACE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "relu_": lambda part, other: part.relu_(),
    "functional.relu": lambda part, other: functional.relu(part, True),
    "clamp_": lambda part, other: part.clamp_(-0.2, 0.3),
    "clamp_min_": lambda part, other: torch.clamp_min_(part, 0.1),
    "hardtanh_": lambda part, other: functional.hardtanh_(part, -0.3, 0.3),
    "leaky_relu_": lambda part, other: functional.leaky_relu_(part, 0.1),
    "silu": lambda part, other: functional.silu(part, inplace=True),
    "hardswish": lambda part, other: functional.hardswish(part, True),
    "elu": lambda part, other: functional.elu(part, inplace=True),
    "sigmoid_": lambda part, other: torch.sigmoid_(part),
    "abs_": lambda part, other: part.abs_(),
    "rsqrt_": lambda part, other: part.square_().add_(0.5).rsqrt_(),
    "**=": powered,
    "*=": multiplied,
    "mul_": lambda part, other: part.mul_(2.0),
    "/=": divided,
    "addcmul_": lambda part, other: part.addcmul_(other, other, value=0.3),
    "add_": lambda part, other: part.add_(other.square(), alpha=0.3),
    "neg_": lambda part, other: part.neg_(),
    "copy_": lambda part, other: part.copy_(other.square()),
    "fill_": lambda part, other: part.fill_(0.3),
    "[...] =": sets_a_part,
}

REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "sin_": (lambda part, other: part.sin_(), "operation sin"),
    "lerp_": (lambda part, other: part.lerp_(other, 0.3), "operation lerp"),
    "addcdiv_": (lambda part, other: part.addcdiv_(other, 2 + other), "operation addcdiv"),
    "threshold_": (lambda part, other: functional.threshold_(part, 0.1, 0.0), "operation threshold"),
    "fifth_": (lambda part, other: part.pow_(5), "operation pow"),
    "masked_fill_": (lambda part, other: part.masked_fill_(part < 0, 0.0), "operation masked_fill"),
    "[mask] =": (takes_by_values, "operation setitem"),
    "[mask] *=": (scales_by_values, "operation getitem"),
    "where": (lambda part, other: part.copy_(torch.where(part > 0, part, other)), "operation where"),
    "data": (lambda part, other: part.data.clamp_(0), "operation clamp writes"),
    "detach": (lambda part, other: part.detach().mul_(2), "operation mul writes"),
    "no_grad": (torch.no_grad()(lambda part, other: part.relu_()), "operation relu writes"),
    "out": (lambda part, other: torch.mul(part, other, out=part), "operation mul"),
}

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": lambda x: x,
    "channels": lambda x: x[:, :2],
    "strided": lambda x: x[:, ::2],
    "columns": lambda x: x[..., 1:3],
    "box": lambda x: x[:, 1:, 0:4:2, 2:],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x[:, 0],
    "flatten": lambda x: x.view(len(x), -1),
    "transposed": lambda x: x.transpose(2, 3),
    "unsqueezed": lambda x: x.unsqueeze(1),
    "view of a view": lambda x: x[:, 1:][..., 1:],
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3),
}


class InPlace(nn.Module):
    """Writes to a view of an operation's result, which is used before and after."""

    def __init__(
        self,
        first: Callable[[Tensor], Tensor],
        view: Callable[[Tensor], Tensor],
        write: Callable[[Tensor, Tensor], Any],
    ) -> None:
        super().__init__()
        self.first, self.view, self.write = first, view, write

    def forward(self, images: Tensor) -> Tensor:
        other = self.view(torch.tanh(CONV(images)))
        x = self.first(images)
        before = torch.sigmoid(x)
        self.write(self.view(x), other)
        return (before + x + torch.sigmoid(x)).flatten(1) @ HEAD.T


@pytest.fixture(scope="module")
def image() -> Tensor:
    return 2 * torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("first", FIRST)
def test_what_writes_to_a_part_of_a_tensor_is_right(first: str, image: Tensor) -> None:
    """Every operation written to × every in-place operation; each of both meets every view."""
    target, path = torch.tensor([1]), StraightPath.from_black(image)
    places = list(VIEWS)
    for number, (name, write) in enumerate(IN_PLACE.items()):
        place = places[(number + 5 * list(FIRST).index(first)) % len(places)]
        model = InPlace(FIRST[first], VIEWS[place], write)
        # Autograd needs some results to stay as they are, which a copy allows.
        ordinary = InPlace(lambda x: FIRST[first](x).clone(), VIEWS[place], write)
        reference = converge(
            Objective(ordinary, target, output="logit", internal_batch_size=2048), path, 1024
        )
        result = rescale_attribution(
            Objective(model, target, output="logit", internal_batch_size=64), path, linear_schedule(32)
        )
        error = float(compare(result.maps, reference.maps).error)
        assert error < 1e-2, f"{name} on {place}: {error:.2g}"
        gap = float(result.maps.sum() - (result.f_input - result.f_baseline))
        assert abs(gap) < 1e-9, f"{name} on {place}: incomplete by {gap:.2g}"
        torch.testing.assert_close(result.f_input, Objective(model, target, output="logit").values(image))


@pytest.mark.parametrize("name", REFUSED)
def test_what_slopes_say_nothing_of_is_refused_by_name(name: str, image: Tensor) -> None:
    write, message = REFUSED[name]
    for first, view in zip(FIRST.values(), [*VIEWS.values(), VIEWS["whole"]], strict=True):
        with pytest.raises(ValueError, match=message):
            rescale_attribution(
                Objective(InPlace(first, view, write), torch.tensor([1])),
                StraightPath.from_black(image),
                linear_schedule(4),
            )


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x.chunk(2, 1)[0].relu_(), "operation relu cannot be differentiated"),
        (lambda x: x.unbind(1)[0].add_(1), "operation add cannot be differentiated"),
        (lambda x: x.detach() * x, "operation mul takes what depends on the image without a gradient"),
        (lambda x: x + x.max(1, keepdim=True)[1], "operation add takes what depends on the image"),
        (lambda x: functional.conv2d(x, x[:, :, :1, :1]), "operation conv2d"),
        (lambda x: torch.where(x > 0, x, 0.0), "operation where takes"),
        (lambda x: x.masked_fill(x < 0, 0.0), "operation masked_fill takes"),
        (lambda x: x.clamp(min=torch.zeros(1)), "operation clamp"),
    ],
)
def test_what_escapes_the_rules_is_named(function: Callable[[Tensor], Tensor], named: str) -> None:
    class Model(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            function(1 * CONV(images))
            y = 1 * CONV(images)
            return function(y).flatten(1)[:, :3]

    path = StraightPath.from_black(torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64))
    with pytest.raises(ValueError, match=named):
        rescale_attribution(Objective(Model(), torch.tensor([1]), output="logit"), path, linear_schedule(4))


def test_masks_that_do_not_depend_on_the_image_are_linear(image: Tensor) -> None:
    """Constant masks, choices and tensors of the image's type pass gradients as they are."""
    mask = torch.rand(4, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) > 0.5

    class Masked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            y = torch.relu(CONV(images))
            shown = torch.zeros_like(y)
            shown[:, :2] = y[:, 2:].masked_fill(mask[2:].expand_as(y[:, 2:]), 0.5)
            chosen = torch.where(mask, y, shown)
            chosen[:, mask] += y.new_ones(1)
            return chosen.flatten(1) @ HEAD.T

    target, path = torch.tensor([2]), StraightPath.from_black(image)
    reference = converge(Objective(Masked(), target, output="logit", internal_batch_size=2048), path, 1024)
    result = rescale_attribution(Objective(Masked(), target, output="logit"), path, linear_schedule(32))
    assert float(compare(result.maps, reference.maps).error) < 1e-3

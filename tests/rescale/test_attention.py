"""Fused attention and the softmax in it: torch's values, and Jacobians against their means by quadrature."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from riemannopt_dist.quadrature.rules import gauss_legendre
from riemannopt_dist.rescale.mode import RescaleMode

Inputs = tuple[Tensor, ...]
ROWS, HEADS, QUERIES, KEYS, WIDTH = 3, 2, 4, 5, 6
GENERATOR = torch.Generator().manual_seed(0)
SHAPES = {
    "heads": ((ROWS, HEADS, QUERIES, WIDTH), (ROWS, HEADS, KEYS, WIDTH), (ROWS, HEADS, KEYS, 3)),
    "no heads": ((ROWS, QUERIES, WIDTH), (ROWS, KEYS, WIDTH), (ROWS, KEYS, WIDTH)),
    "windows": ((4 * ROWS, HEADS, KEYS, WIDTH),) * 3,
    "one head of keys": ((ROWS, HEADS, QUERIES, WIDTH), (ROWS, 1, KEYS, WIDTH), (ROWS, 1, KEYS, WIDTH)),
}
MASKS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "none": lambda queries, keys: {},
    "causal": lambda queries, keys: {"is_causal": True},
    "chosen": lambda queries, keys: {"attn_mask": chosen(queries, keys)},
    "nowhere": lambda queries, keys: {
        "attn_mask": chosen(queries, keys) & (torch.arange(queries) > 0)[:, None]
    },
    "added": lambda queries, keys: {"attn_mask": normal(1, queries, keys)},
    "added −∞": lambda queries, keys: {
        "attn_mask": normal(queries, keys).masked_fill(~chosen(queries, keys), -torch.inf)
    },
}


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=GENERATOR)


def chosen(queries: int, keys: int) -> Tensor:
    """A mask with a key for every query."""
    return (torch.rand(queries, keys, generator=GENERATOR) > 0.4) | (torch.arange(keys) == 1)


def passed_back(function: Callable[..., Tensor], inputs: Inputs, weights: Tensor) -> Inputs:
    """Gradients of Σ weights · function by mean slopes, at all samples but the last."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    with RescaleMode(ROWS):
        value = function(*leaves)
    torch.testing.assert_close(value, function(*inputs), rtol=0, atol=1e-13)
    share = len(value) // ROWS
    weights = torch.cat([weights, torch.zeros_like(weights[:share])])
    gradients = torch.autograd.grad(value, leaves, weights)
    return tuple(part[: len(part) // ROWS * (ROWS - 1)] for part in gradients)


def averaged(function: Callable[..., Tensor], inputs: Inputs, weights: Tensor, nodes: int = 200) -> Inputs:
    """The same by the mean Jacobians on straight lines from each sample's inputs to the next one's."""
    lines = [(x[: -(len(x) // ROWS)], x[len(x) // ROWS :]) for x in inputs]
    total = [torch.zeros_like(a) for a, _ in lines]
    for node, weight in zip(*gauss_legendre(nodes), strict=True):
        between = [torch.lerp(a, b, node).requires_grad_() for a, b in lines]
        for part, gradient in zip(
            total, torch.autograd.grad(function(*between), between, weights), strict=True
        ):
            part += weight * gradient
    return tuple(total)


def moved(inputs: Inputs, which: int) -> Inputs:
    """Inputs of which but one differs between samples."""
    return tuple(
        x if place == which else x[: len(x) // ROWS].repeat(ROWS, *[1] * (x.ndim - 1))
        for place, x in enumerate(inputs)
    )


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_is_torch_s_and_complete(shapes: str, mask: str, scale: float | None) -> None:
    """Values to rounding, and Σ slope · step each output's change."""
    inputs = tuple(normal(*shape) for shape in SHAPES[shapes])
    options = MASKS[mask](inputs[0].shape[-2], inputs[1].shape[-2])

    def function(*qkv: Tensor) -> Tensor:
        grouped = {"enable_gqa": True} if shapes == "one head of keys" else {}
        return functional.scaled_dot_product_attention(*qkv, scale=scale, **options, **grouped)

    value = function(*inputs)
    share = len(value) // ROWS
    weights = normal(*value[share:].shape)
    parts = passed_back(function, inputs, weights)
    steps = [x[len(x) // ROWS :] - x[: -(len(x) // ROWS)] for x in inputs]
    total = sum(float((part * step).sum()) for part, step in zip(parts, steps, strict=True))
    assert total == pytest.approx(float((weights * (value[share:] - value[:-share])).sum()), abs=1e-12)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_attention_s_slopes_are_its_mean_jacobian(mask: str, which: int) -> None:
    """Exact where one of query, key and value moves and a query chooses between two keys."""
    keys = 2
    shapes = ((ROWS, HEADS, QUERIES, WIDTH), (ROWS, HEADS, keys, WIDTH), (ROWS, HEADS, keys, WIDTH))
    inputs = moved(tuple(3 * normal(*shape) for shape in shapes), which)
    options = MASKS[mask](QUERIES, keys)

    def function(*qkv: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(*qkv, **options)

    weights = normal(ROWS - 1, HEADS, QUERIES, WIDTH)
    expected, result = averaged(function, inputs, weights), passed_back(function, inputs, weights)
    torch.testing.assert_close(result[which], expected[which], rtol=0, atol=1e-11)


@pytest.mark.parametrize("mask", MASKS)
def test_attention_s_slopes_tend_to_its_mean_jacobian(mask: str) -> None:
    """With all of its inputs moving, to second order in the step."""
    start = tuple(normal(*shape)[:1] for shape in SHAPES["heads"])
    steps = tuple(normal(*x.shape) for x in start)
    options = MASKS[mask](QUERIES, KEYS)
    weights = normal(ROWS - 1, HEADS, QUERIES, 3)

    def function(*qkv: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(*qkv, **options)

    def distance(size: float) -> float:
        inputs = tuple(
            torch.cat([x + place * size * step for place in range(ROWS)])
            for x, step in zip(start, steps, strict=True)
        )
        both = passed_back(function, inputs, weights), averaged(function, inputs, weights)
        return sum(float((a - b).abs().sum()) for a, b in zip(*both, strict=True))

    assert distance(0.01) == pytest.approx(distance(0.02) / 4, rel=0.1)


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_a_softmax_is_complete_for_steps_of_any_size(function: Callable[..., Tensor]) -> None:
    """From none to a thousand log-odds, behind masks, along any axis."""
    x = torch.cat([normal(1, 4, 5), 1e-9 * normal(1, 4, 5), 300 * normal(1, 4, 5)])
    x[:, 1, 1:3] = -torch.inf
    for axis in (1, 2):
        value = function(x, axis)
        weights = normal(2, 4, 5).masked_fill(value[1:].isinf(), 0)
        (part,) = passed_back(partial(function, dim=axis), (x,), weights)
        total = (part * (x[1:] - x[:-1]).nan_to_num()).flatten(1).sum(1)
        change = (weights * value.nan_to_num(neginf=0).diff(dim=0)).flatten(1).sum(1)
        torch.testing.assert_close(total, change, rtol=0, atol=1e-12 * 300)
        assert not part[:, 1, 1:3].any()


def test_a_softmax_of_two_has_its_mean_jacobian() -> None:
    x, weights = 8 * normal(ROWS, 4, 2), normal(ROWS - 1, 4, 2)
    (expected,) = averaged(lambda x: x.softmax(-1), (x,), weights)
    torch.testing.assert_close(passed_back(lambda x: x.softmax(-1), (x,), weights)[0], expected)


MODULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias of keys": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "no bias": {"bias": False},
    "other widths": {"kdim": 4, "vdim": 3},
}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_is_torch_s_and_complete(module: str, need_weights: bool) -> None:
    """In evaluation, of one sequence and of two, with every mask and in both layouts."""
    for batch_first, mask, padded, crossed in itertools.product([True, False], range(4), [0, 1], [0, 1]):
        layer = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first, **MODULES[module]).double().eval()
        for parameter in layer.requires_grad_(False).parameters():
            nn.init.normal_(parameter, std=0.5, generator=GENERATOR)
        options: dict[str, Any] = {"need_weights": need_weights}
        if mask:
            masks = (
                ~chosen(QUERIES, QUERIES),
                normal(QUERIES, QUERIES),
                torch.ones(QUERIES, QUERIES).triu(1) > 0,
            )
            options |= {"attn_mask": masks[mask - 1], "is_causal": mask == 3}
        if padded:
            padding = torch.zeros(ROWS, QUERIES, dtype=torch.bool)
            padding[:, -1] = True
            options["key_padding_mask"] = padding.double() * -30 if mask == 2 else padding

        def attended(x: Tensor, y: Tensor, layer=layer, options=options) -> Tensor:  # type: ignore[no-untyped-def]
            sequences = x, y[..., : layer.kdim], y[..., : layer.vdim]
            tokens = [each if layer.batch_first else each.transpose(0, 1) for each in sequences]
            result, weights = layer(*tokens, **options)
            result = result if layer.batch_first else result.transpose(0, 1)
            return result if weights is None else torch.cat([result, weights], -1)

        inputs = normal(ROWS, QUERIES, WIDTH), normal(ROWS, QUERIES, WIDTH)
        function, taken = (attended, inputs) if crossed else (lambda x: attended(x, x), inputs[:1])
        value = function(*taken)
        weights = normal(*value[1:].shape)
        parts = passed_back(function, taken, weights)
        total = sum(float((part * x.diff(dim=0)).sum()) for part, x in zip(parts, taken, strict=True))
        assert total == pytest.approx(float((weights * value.diff(dim=0)).sum()), abs=1e-12)


def test_what_attention_cannot_do_is_named() -> None:
    x = normal(ROWS, QUERIES, WIDTH).requires_grad_()
    with pytest.raises(ValueError, match="scaled_dot_product_attention drops out"), RescaleMode(ROWS):
        functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1)
    with pytest.raises(ValueError, match="is causal and has a mask"), RescaleMode(ROWS):
        functional.scaled_dot_product_attention(x, x, x, torch.ones(4, 4).bool(), is_causal=True)

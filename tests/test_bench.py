"""The benchmark compares what is the same: the maps of others with ours, and the evaluations needed."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import riemannopt_dist as ro
from benchmarks.bench.__main__ import headlines
from benchmarks.bench.others import captum, gradient, loop
from benchmarks.bench.ours import pieces
from benchmarks.bench.sections.bare import needed
from benchmarks.bench.tables import page
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model

TINY = "riemannopt_dist.testing.small_world:tiny_classifier"
NUMBERS = {"median": 2.5, "low": 2.25, "high": 2.75}


@pytest.fixture(scope="module")
def tiny() -> Classifier:
    return load_model(TINY)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_others_maps_are_ours(tiny: Classifier, pictures: Tensor) -> None:
    targets = torch.tensor([0, 3, 5])
    for theirs, rule in (
        (loop(tiny, pictures, targets, 6), "left"),
        (captum(tiny, pictures, targets, 6, 4, "riemann_middle"), "midpoint"),
    ):
        ours = ro.integrated_gradients(tiny, pictures, targets, ro.linear_schedule(6, rule)).maps
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-7)
    _, expected = ro.Objective(tiny, targets).gradients(pictures)
    torch.testing.assert_close(gradient(tiny, pictures, targets), expected)


def test_the_limit_is_what_a_piece_of_work_asks_of_the_model(tiny: Classifier, pictures: Tensor) -> None:
    """No piece does with less than what it is said to need; f at a path's ends may come on top."""
    seen: Counter[bool] = Counter()

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[torch.is_grad_enabled()] += len(inputs[0])

    targets = torch.tensor([0, 3, 5])
    hook = tiny.register_forward_pre_hook(count)
    for name, piece in pieces(tiny, pictures, targets, 4, 3).items():
        seen.clear()
        piece.work()
        assert seen[True] >= piece.gradients, name
        assert seen[True] + seen[False] <= 1.5 * (piece.gradients + piece.passes) + 3 * 6, name
        seen.clear()
        needed(tiny, pictures, targets, piece)
        assert seen[True] == piece.gradients, name
        assert piece.passes <= seen[False] < piece.passes + 3, name
    hook.remove()


def test_the_page_has_every_number() -> None:
    machine: dict[str, Any] = {
        "device": "a chip",
        "threads": 2,
        "torch": "2",
        "batch": 8,
        "turns": 3,
        "models": {"net": [8, 16]},
    }
    bare = {"gradient": 12.5, "gradient_as_loaded": 15.75, "forward": 4.25}
    found: dict[str, Any] = {
        "machine": machine,
        "bare": {"net": {f"{name}_ms": value for name, value in bare.items()} | {"rescale": NUMBERS}},
        "others": {
            f"{name}_over_{other}": NUMBERS | {"maps_apart": 1e-6}
            for name, other in (("ig", "loop"), ("ig", "captum"), ("blur_ig", "pair"), ("guided_ig", "pair"))
        },
        "grid": {
            name: NUMBERS
            | {
                "over_as_loaded": 0.75,
                "photos": 4,
                "samples": [16, 32],
                "gradients_an_image": gradients,
                "passes_an_image": 500,
                "gradients_of_a_loop": 1440,
            }
            for name, gradients in (("net", 900), ("deeper", 800))
        },
        "equal": {
            "ig": {"photos": 20, "their_error": 0.125, "rescale": NUMBERS | {"samples": 6, "error": 0.1}}
        },
        "scale": {"ms_an_evaluation_by_images": {"1": 9.5}},
    }
    text = page(found)
    for told in (
        "2.50 [2.25, 2.75]",
        "12.5",
        "15.8",
        "1.0e-06",
        "| `net` | 4 | 16, 32 | 900 | 500 | 1440 | 2.50 | 0.75 |",
        "0.125",
        "2.500",
        "9.50",
    ):
        assert told in text
    assert headlines(found)["grid_over_bare"] == NUMBERS
    assert headlines(found)["grid_over_bare deeper"] == NUMBERS
    assert headlines(found)["rescale_seconds_over_gradient"] == NUMBERS
    assert headlines(found)["ig_at_equal_error rescale"] == NUMBERS

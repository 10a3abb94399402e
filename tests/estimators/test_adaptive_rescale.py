"""Secants over intervals of each image's own: the sum over these, taken where the output moves."""

from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from riemannopt_dist.estimators.adaptive_rescale import FIRST, adaptive_rescale_attribution, divided
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.objective import Objective, Output
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_schedule, schedule_from_partition
from riemannopt_dist.quadrature.schedule import Array
from tests.networks import TWO_LAYERS, Recorded

EVEN = Profile((0.25, 0.75), (1.0, 1.0), (0.0, 0.0), 2, roughness=(1.0, 1.0))
LATE = Profile((0.25, 0.75), (1.0, 9.0), (0.0, 0.0), 2, roughness=(1.0, 27.0))
BOTH_PATHS = pytest.mark.parametrize("kind", [StraightPath.from_black, partial(BlurPath, sigma_max=3.0)])
CLASSES = torch.tensor([2, 0, 1])


class Late(nn.Module):
    """Logits (0 … 0 … 40, 0) that turn at a kink, when the mean of the image passes 0.9."""

    def forward(self, images: Tensor) -> Tensor:
        score = 400 * torch.relu(images.flatten(1).mean(1, keepdim=True) - 0.9)
        return torch.cat([score, 0 * score], dim=1)


@BOTH_PATHS
@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("samples", [2, 3, 11])
def test_it_is_the_sum_of_secants_over_the_intervals_that_were_taken(
    images: Tensor, kind: Callable[[Tensor], Path], output: Output, samples: int
) -> None:
    path = Recorded(kind(images))
    found = adaptive_rescale_attribution(Objective(TWO_LAYERS, CLASSES, output=output), path, LATE, samples)
    for row, image in enumerate(images):
        edges = sorted(path.alphas[row])
        assert len(set(edges)) == samples + 1  # none is asked for twice
        schedule = schedule_from_partition(np.array(edges), "right")
        alone = kind(image[None])
        expected = rescale_attribution(
            Objective(TWO_LAYERS, CLASSES[row, None], output=output), alone, schedule
        )
        torch.testing.assert_close(found.maps[row, None], expected.maps, rtol=0, atol=1e-12)
    assert found.gradient_evaluations.tolist() == [samples] * 3


@BOTH_PATHS
@pytest.mark.parametrize("output", ["probability", "logit"])
def test_sums_are_the_change_of_the_output(
    images: Tensor, kind: Callable[[Tensor], Path], output: Output
) -> None:
    path = kind(images)
    found = adaptive_rescale_attribution(Objective(TWO_LAYERS, CLASSES, output=output), path, EVEN, 5)
    start, _ = path.at(torch.arange(3), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(found.f_input, Objective(TWO_LAYERS, CLASSES, output=output).values(images))
    torch.testing.assert_close(found.f_baseline, Objective(TWO_LAYERS, CLASSES, output=output).values(start))
    change = found.f_input - found.f_baseline
    torch.testing.assert_close(found.maps.flatten(1).sum(1), change, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 17, 24, 1000])
def test_micro_batches_change_nothing(images: Tensor, size: int) -> None:
    path = StraightPath.from_black(images)
    whole = adaptive_rescale_attribution(Objective(TWO_LAYERS, CLASSES), path, LATE, 11)
    parts = adaptive_rescale_attribution(
        Objective(TWO_LAYERS, CLASSES, internal_batch_size=size), path, LATE, 11
    )
    torch.testing.assert_close(parts.maps, whole.maps, rtol=0, atol=1e-12)
    assert not parts.maps.requires_grad


def test_intervals_are_taken_where_the_output_moves() -> None:
    """Between two of the first samples p goes from 1/2 to 1, and is 1/2 before: all others go there."""
    images = torch.ones(1, 3, 6, 6, dtype=torch.float64)
    path = Recorded(StraightPath.from_black(images))
    adaptive_rescale_attribution(Objective(Late(), torch.tensor([0])), path, EVEN, 16)
    first = np.linspace(0, 1, round(FIRST * 16) + 1)
    trial, alphas = path.alphas[0][:2], path.alphas[0][2:]
    assert trial == [0, 1]
    assert np.allclose(alphas[: len(first)], first)
    others = alphas[len(first) :]
    assert len(others) == 16 - round(FIRST * 16)
    assert min(others) > first[-2]


def test_a_photo_is_nearer_to_its_integral_than_with_even_intervals(
    classifier: nn.Module, photos: Tensor, predictions: Tensor
) -> None:
    """The real network and a photo that it is sure of early: equal intervals miss where that happens."""
    path = StraightPath.from_black(avg_pool2d(photos[:1], 2))

    def even(samples: int) -> Tensor:
        return rescale_attribution(
            Objective(classifier, predictions[:1]), path, linear_schedule(samples)
        ).maps

    placed = adaptive_rescale_attribution(Objective(classifier, predictions[:1]), path, EVEN, 8)
    errors = [float(compare(maps, even(48)).error) for maps in (placed.maps, even(8))]
    assert errors[0] < 0.7 * errors[1]


def cost(errors: Array, pieces: tuple[int, ...]) -> float:
    return float((errors**2 / np.array(pieces) ** 3.0).sum())


@pytest.mark.parametrize("intervals", [3, 4, 7, 12])
def test_no_other_division_expects_a_smaller_error(intervals: int) -> None:
    errors = np.array([[1.0, 3.0, 0.4], [2.0, 2.0, 5.0], [0.0, 0.0, 1.0]])
    edges = np.tile([0.0, 0.2, 0.6, 1.0], (3, 1))
    inside = divided(edges, errors, intervals)
    assert inside.shape == (3, intervals - 3)
    for found, of_image in zip(inside, errors, strict=True):
        counts = tuple(np.histogram(found, edges[0])[0] + 1)
        cuts = combinations(range(1, intervals), 2)
        least = min(cost(of_image, (a, b - a, intervals - b)) for a, b in cuts)
        assert cost(of_image, counts) == pytest.approx(least, rel=1e-12)


def test_pieces_of_an_interval_are_equal() -> None:
    inside = divided(np.array([[0.0, 0.5, 1.0]]), np.array([[1.0, 8.0]]), 5)
    np.testing.assert_allclose(inside, [[0.625, 0.75, 0.875]])


def test_bad_arguments_are_named(images: Tensor) -> None:
    path = StraightPath.from_black(images)
    with pytest.raises(ValueError, match=r"samples: expected at least 2.* got 1"):
        adaptive_rescale_attribution(Objective(TWO_LAYERS, CLASSES), path, EVEN, 1)
    smooth = Profile((0.5,), (1.0,), (0.0,), 2)
    with pytest.raises(ValueError, match="profile: placing by roughness needs one with roughness"):
        adaptive_rescale_attribution(Objective(TWO_LAYERS, CLASSES), path, smooth, 4)
    with pytest.raises(ValueError, match="output: "):
        adaptive_rescale_attribution(Objective(TWO_LAYERS, CLASSES, output="odds"), path, EVEN, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="internal_batch_size"):
        adaptive_rescale_attribution(Objective(TWO_LAYERS, CLASSES, internal_batch_size=0), path, EVEN, 4)

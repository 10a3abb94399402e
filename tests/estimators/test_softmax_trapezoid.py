"""Sums with end weights: exact where the log-odds are linear, and the same in any micro-batches."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from riemannopt_dist.estimators.softmax_trapezoid import end_weights
from riemannopt_dist.methods import integrate_path
from riemannopt_dist.objective import Objective, Output
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import linear_schedule, schedule_from_partition
from riemannopt_dist.quadrature.schedule import Array
from tests.sums import integrate

UNEVEN = schedule_from_partition((0.0, 0.05, 0.2, 0.55, 0.6, 1.0), "trapezoid")


def weights_of(left: ArrayLike, right: ArrayLike, output: Output = "probability") -> Array:
    return end_weights(torch.tensor(left), torch.tensor(right), output).numpy()


class LinearLogits(nn.Module):
    """Two classes whose logits are linear: the log-odds are linear along a straight path."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        slopes = torch.linspace(-0.2, 0.5, flat.shape[1], dtype=flat.dtype)
        return torch.stack([flat @ slopes - 3, torch.zeros(len(flat), dtype=flat.dtype)], dim=1)


def plainly(model: nn.Module, path: Path, targets: Tensor, points: tuple[float, ...]) -> Tensor:
    """The formula, interval by interval."""
    rows = torch.arange(len(targets))
    places = [path.at(rows, torch.full((len(rows),), point, dtype=torch.float64))[0] for point in points]
    found = [Objective(model, targets).gradients(place) for place in places]
    total = torch.zeros_like(path.images)
    for i in range(len(points) - 1):
        (f_a, g_a), (f_b, g_b) = found[i], found[i + 1]
        weights = end_weights(f_a, f_b)
        for row in rows.tolist():
            average = weights[row, 0] * g_a[row] + weights[row, 1] * g_b[row]
            total[row] += average * (places[i + 1][row] - places[i][row])
    return total


def test_two_points_are_exact_where_the_log_odds_are_linear(images: Tensor) -> None:
    """Then every feature's share is its part of the change of the log-odds, and f(x) − f(x′) is its sum."""
    model = LinearLogits().eval()
    targets = torch.zeros(len(images), dtype=torch.int64)
    path = StraightPath.from_black(images)
    two = linear_schedule(2, "trapezoid")
    trapezoid, found = integrate(model, path, targets, [two], softmax=[two])
    change = found.f_input - found.f_baseline
    flat = images.flatten(1)
    shares = flat * torch.linspace(-0.2, 0.5, flat.shape[1], dtype=flat.dtype)
    expected = shares / shares.sum(1, keepdim=True) * change[:, None]
    torch.testing.assert_close(found.maps.flatten(1), expected, rtol=1e-6, atol=1e-9)
    assert (trapezoid.maps.flatten(1) - expected).abs().max() > 0.1 * expected.abs().max()
    assert found.gradient_evaluations.tolist() == [2] * len(images)


@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("place", [StraightPath.from_black, BlurPath])
def test_equals_the_formula_whatever_the_micro_batches(
    place: type[BlurPath], smooth_net: nn.Module, images: Tensor, targets: Tensor, internal_batch_size: int
) -> None:
    path = place(images)
    schedules = [UNEVEN, linear_schedule(4, "trapezoid")]
    plain, *found = integrate(
        smooth_net,
        path,
        targets,
        [linear_schedule(3, "midpoint")],
        softmax=schedules,
        internal_batch_size=internal_batch_size,
    )
    (alone,) = integrate_path(Objective(smooth_net, targets), path, [linear_schedule(3, "midpoint")])
    torch.testing.assert_close(plain.maps, alone.maps)
    for result, schedule in zip(found, schedules, strict=True):
        expected = plainly(smooth_net, path, targets, schedule.points)
        torch.testing.assert_close(result.maps, expected, rtol=1e-9, atol=1e-13)


def test_along_a_straight_path_of_logits_it_is_the_trapezoid(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    path = StraightPath.from_black(images)
    plain, weighted = integrate(smooth_net, path, targets, [UNEVEN], softmax=[UNEVEN], output="logit")
    torch.testing.assert_close(weighted.maps, plain.maps, rtol=1e-10, atol=1e-13)
    walk = GuidedPath(path)
    plain, weighted = integrate(smooth_net, walk, targets, [UNEVEN], softmax=[UNEVEN], output="logit")
    torch.testing.assert_close(weighted.maps, plain.maps, rtol=1e-10, atol=1e-13)


def test_one_point_is_exact_where_the_log_odds_are_linear(images: Tensor) -> None:
    """Nothing is missed by leaving out the gradient at the start; for logits the last one is enough too."""
    model = LinearLogits().eval()
    targets = torch.zeros(len(images), dtype=torch.int64)
    path = StraightPath.from_black(images)
    one, three = (
        schedule_from_partition((0.0, 1.0), "right"),
        schedule_from_partition((0.0, 0.2, 0.9, 1.0), "right"),
    )
    for output in ("probability", "logit"):
        for found in integrate(model, path, targets, [], softmax=[one, three], output=output):
            change = found.f_input - found.f_baseline
            torch.testing.assert_close(found.maps.flatten(1).sum(1), change, rtol=1e-6, atol=1e-9)
    assert found.gradient_evaluations.tolist() == [3] * len(images)


@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, 100])
def test_without_the_start_the_rest_is_as_with_it(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, internal_batch_size: int
) -> None:
    """The two differ by the first interval alone, whatever the micro-batches."""
    path = BlurPath(images)
    edges = (0.0, 0.3, 0.5, 0.9, 1.0)
    late = schedule_from_partition(edges, "right")
    (found,) = integrate(
        smooth_net, path, targets, [], softmax=[late], internal_batch_size=internal_batch_size
    )
    first = torch.full((len(images),), 0.3, dtype=torch.float64)
    rows = torch.arange(len(images))
    place, _ = path.at(rows, first)
    start, _ = path.at(rows, first * 0)
    f_first, gradient = Objective(smooth_net, targets).gradients(place)
    f_start, _ = Objective(smooth_net, targets).gradients(start)
    z = torch.logit(f_first) - torch.logit(f_start)
    weight = (f_first - f_start) / z / (f_first * (1 - f_first))
    opening = weight[:, None, None, None] * gradient * (place - start)
    expected = opening + plainly(smooth_net, path, targets, edges[1:])
    torch.testing.assert_close(found.maps, expected, rtol=1e-8, atol=1e-13)


def test_points_must_include_the_image(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    path = StraightPath.from_black(images)
    with pytest.raises(ValueError, match="point at 1"):
        integrate(smooth_net, path, targets, [], softmax=[linear_schedule(4, "left")])


def test_end_weights_by_hand() -> None:
    left = np.array([1e-9, 0.1, 0.5, 0.02, 0.3, 0.999])
    right = np.array([0.3, 0.1, 0.75, 0.98, 1e-4, 1.0])
    np.testing.assert_array_equal(weights_of(left, right, "logit"), np.full((6, 2), 0.5))
    weights = weights_of(left, right)
    np.testing.assert_allclose(weights[1], 0.5, rtol=1e-12)
    # 1/2 → 3/4: z from 0 to log 3; ∫p = log(4/2)/log 3 by the softplus, and by parts
    # ∫p(1 − p)(1 − t) dt = (∫p − 1/2) / log 3, ∫p(1 − p) t dt = (3/4 − ∫p) / log 3.
    mean, change = math.log(2) / math.log(3), math.log(3)
    np.testing.assert_allclose(
        weights[2], [(mean - 0.5) / change / 0.25, (0.75 - mean) / change / 0.1875], rtol=1e-9
    )
    # From one side of the rise to the other: symmetric, and more than the trapezoid, which misses it.
    assert weights[3, 0] == pytest.approx(weights[3, 1])
    assert weights[3, 0] > 3
    np.testing.assert_allclose(weights_of(right, left), weights[:, ::-1], rtol=1e-9)
    np.testing.assert_allclose(weights_of(1 - left, 1 - right), weights, rtol=1e-4)
    assert np.isfinite(weights).all()
    # What the ends give along a straight z adds up to the change of p.
    log_odds = np.log(left[2:5] / (1 - left[2:5])), np.log(right[2:5] / (1 - right[2:5]))
    envelope = np.stack([left[2:5] * (1 - left[2:5]), right[2:5] * (1 - right[2:5])], axis=1)
    total = (weights[2:5] * envelope).sum(1) * (log_odds[1] - log_odds[0])
    np.testing.assert_allclose(total, right[2:5] - left[2:5], rtol=1e-7)

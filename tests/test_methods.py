"""Integrated Gradients: exact where a sum is exact, converging where it is not, the same in any batches."""

import copy
import math

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from riemannopt_dist.estimators.riemann import weights_at
from riemannopt_dist.methods import integrate_path, integrated_gradients
from riemannopt_dist.metrics.completeness import completeness_delta
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.estimation import estimate_profile
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.rules import (
    RULES,
    intervals,
    linear_partition,
    linear_schedule,
    schedule_from_partition,
)
from riemannopt_dist.quadrature.schedule import Schedule
from tests.networks import Quadratic, counted, l1_distance


@pytest.fixture(scope="module")
def baselines(images: Tensor) -> Tensor:
    return 0.3 * images.flip(3) + 0.1


@pytest.mark.parametrize("rule", ["left", "right", "midpoint", "gauss_legendre"])
def test_one_sample_is_exact_for_the_logit_of_a_linear_model(
    linear_net: nn.Module, images: Tensor, targets: Tensor, baselines: Tensor, rule: str
) -> None:
    result = integrated_gradients(
        linear_net, images, targets, linear_schedule(1, rule), baselines=baselines, output="logit"
    )
    weights = linear_net[1].weight[targets].view_as(images)
    torch.testing.assert_close(result.maps, (weights * (images - baselines)).detach(), rtol=1e-12, atol=1e-15)
    assert completeness_delta(result).abs().max() < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_the_map_of_a_constant_model_is_zero(images: Tensor, targets: Tensor, rule: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double()
    nn.init.zeros_(network[1].weight)
    result = integrated_gradients(network, images, targets, linear_schedule(4, rule))
    assert not result.maps.any()
    torch.testing.assert_close(result.f_input, result.f_baseline, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("rule", "samples"), [("midpoint", 1), ("trapezoid", 2), ("gauss_legendre", 1)])
def test_rules_of_degree_one_are_exact_for_a_quadratic_model(
    images: Tensor, baselines: Tensor, rule: str, samples: int
) -> None:
    # ∫ a_i (x′ + α Δ) Δ dα = a_i (x² − x′²) / 2
    first = torch.zeros(3, dtype=torch.int64)
    result = integrated_gradients(
        Quadratic(), images, first, linear_schedule(samples, rule), baselines=baselines, output="logit"
    )
    factors = torch.linspace(-1, 2, 108, dtype=torch.float64).view(images.shape[1:])
    torch.testing.assert_close(result.maps, factors * (images**2 - baselines**2) / 2, rtol=1e-12, atol=1e-15)
    assert completeness_delta(result).abs().max() < 1e-12


def test_the_left_rule_misses_half_a_step_of_a_quadratic_model(images: Tensor) -> None:
    # Σ over n points k/n of a x² k/n is a x² (1 − 1/n)/2.
    first = torch.zeros(3, dtype=torch.int64)
    result = integrated_gradients(Quadratic(), images, first, linear_schedule(8, "left"), output="logit")
    change = result.f_input - result.f_baseline
    torch.testing.assert_close(completeness_delta(result), -change / 8, rtol=1e-12, atol=1e-15)


def test_the_probability_of_a_linear_model_by_hand(images: Tensor) -> None:
    # f = σ(s), s = Σ w_i x_i: each feature's share of the change is its share of s.
    weights = torch.randn(108, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) / 8
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 2, bias=False)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([weights, torch.zeros_like(weights)]))
    first = torch.zeros(3, dtype=torch.int64)
    result = integrated_gradients(network, images, first, linear_schedule(16, "gauss_legendre"))
    shares = weights * images.flatten(1)
    score = shares.sum(1, keepdim=True)
    expected = shares / score * (torch.sigmoid(score) - 0.5)
    torch.testing.assert_close(result.maps.flatten(1), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("rule", "ratio"), [("left", 2), ("right", 2), ("midpoint", 4), ("trapezoid", 4)])
def test_completeness_converges_at_the_rules_order(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, rule: str, ratio: int
) -> None:
    schedules = [schedule_from_partition(linear_partition(count), rule) for count in (32, 64)]
    results = integrate_path(Objective(smooth_net, targets), StraightPath.from_black(images), schedules)
    coarse, fine = (completeness_delta(result) for result in results)
    torch.testing.assert_close(coarse / fine, torch.full_like(coarse, ratio), rtol=0.05, atol=0)


def test_optimised_schedules_converge_to_the_same_map(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    profile = estimate_profile(Objective(smooth_net, targets), images, samples=33)
    reference = integrated_gradients(smooth_net, images, targets, linear_schedule(24, "gauss_legendre"))
    assert completeness_delta(reference).abs().max() < 1e-10
    for rule in ("trapezoid", "midpoint"):
        found = integrated_gradients(smooth_net, images, targets, optimize_schedule(profile, 64, rule))
        assert l1_distance(found.maps, reference.maps) < 2e-3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_micro_batches_change_nothing(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, rule: str, size: int
) -> None:
    schedule = linear_schedule(8, rule)
    whole = integrated_gradients(smooth_net, images, targets, schedule, internal_batch_size=100)
    parts = integrated_gradients(smooth_net, images, targets, schedule, internal_batch_size=size)
    assert l1_distance(parts.maps, whole.maps) < 1e-12
    torch.testing.assert_close(parts.f_input, whole.f_input, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.f_baseline, whole.f_baseline, rtol=1e-12, atol=0)


def test_a_batch_of_images_is_each_image_alone(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, baselines: Tensor
) -> None:
    schedule = linear_schedule(5, "trapezoid")
    together = integrated_gradients(smooth_net, images, targets, schedule, baselines=baselines)
    for row in range(3):
        one = slice(row, row + 1)
        alone = integrated_gradients(
            smooth_net, images[one], targets[one], schedule, baselines=baselines[one]
        )
        assert l1_distance(together.maps[one], alone.maps) < 1e-12
        torch.testing.assert_close(together.f_input[one], alone.f_input, rtol=1e-12, atol=0)
        torch.testing.assert_close(together.f_baseline[one], alone.f_baseline, rtol=1e-12, atol=0)


SCHEDULES = [
    *(linear_schedule(samples, "left") for samples in (4, 8, 16)),
    linear_schedule(16, "right"),
    linear_schedule(5, "gauss_legendre"),
    Schedule((0.0, 0.5, 0.5, 1.0), (0.25, 0.25, 0.25, 0.25)),
]


def test_several_schedules_are_each_alone_at_the_cost_of_their_distinct_points(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    path = StraightPath.from_black(images)
    with counted(smooth_net) as calls:
        together = integrate_path(Objective(smooth_net, targets, internal_batch_size=7), path, SCHEDULES)
    # 0, 1/16 … 1 and five Gauss-Legendre points, of which one is 1/2.
    assert sum(calls) == 3 * (17 + 4)
    assert max(calls) == 7
    for schedule, found in zip(SCHEDULES, together, strict=True):
        (alone,) = integrate_path(Objective(smooth_net, targets), path, [schedule])
        assert l1_distance(found.maps, alone.maps) < 1e-12
        torch.testing.assert_close(found.f_input, alone.f_input, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.f_baseline, alone.f_baseline, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.gradient_evaluations, torch.full((3,), len(schedule)))


def test_nested_linear_schedules_cost_nothing_beside_the_longest(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    schedules = [linear_schedule(samples, "left") for samples in (16, 32, 64, 128)]
    with counted(smooth_net) as calls:
        integrate_path(Objective(smooth_net, targets[:1]), StraightPath.from_black(images[:1]), schedules)
    assert sum(calls) == 128 + 1  # and f(x), which the left rule does not sample


@pytest.mark.parametrize(
    ("rule", "ends"),
    [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 0), ("gauss_legendre", 2)],
)
def test_the_ends_are_right_whether_sampled_or_not(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, baselines: Tensor, rule: str, ends: int
) -> None:
    with counted(smooth_net) as calls:
        result = integrated_gradients(
            smooth_net, images, targets, linear_schedule(4, rule), baselines=baselines
        )
    assert sum(calls) == 3 * (4 + ends)
    torch.testing.assert_close(
        result.f_input, Objective(smooth_net, targets).values(images), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        result.f_baseline, Objective(smooth_net, targets).values(baselines), rtol=1e-12, atol=0
    )


def test_weights_at_common_points_by_hand() -> None:
    schedules = [Schedule((0.5, 0.5), (0.25, 0.75)), linear_schedule(2, "trapezoid")]
    weights = weights_at(np.array([0.0, 0.5, 1.0]), schedules)
    np.testing.assert_array_equal(weights, [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])


@pytest.mark.parametrize("rule", RULES)
def test_a_baseline_equal_to_the_image_gives_a_map_of_zeros(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, rule: str
) -> None:
    result = integrated_gradients(smooth_net, images, targets, linear_schedule(4, rule), baselines=images)
    assert not result.maps.any()
    torch.testing.assert_close(result.f_input, result.f_baseline, rtol=1e-12, atol=0)


def test_swapping_image_and_baseline_under_a_symmetric_rule_negates_the_map(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, baselines: Tensor
) -> None:
    schedule = linear_schedule(7, "trapezoid")
    there = integrated_gradients(smooth_net, images, targets, schedule, baselines=baselines)
    back = integrated_gradients(smooth_net, baselines, targets, schedule, baselines=images)
    assert l1_distance(-back.maps, there.maps) < 1e-12


def test_the_results_have_the_shapes_and_types_of_the_images(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    result = integrated_gradients(smooth_net, images, targets, linear_schedule(3, "left"))
    assert result.maps.shape == images.shape
    assert result.f_input.shape == result.f_baseline.shape == result.gradient_evaluations.shape == (3,)
    assert {result.maps.dtype, result.f_input.dtype, result.f_baseline.dtype} == {torch.float64}
    assert result.gradient_evaluations.tolist() == [3, 3, 3]
    assert not any(tensor.requires_grad for tensor in (result.maps, result.f_input, result.f_baseline))


def spoilt(images: Tensor, row: int, value: float) -> Tensor:
    images = images.clone()
    images[row, 0, 0, 0] = value
    return images


def test_bad_images_and_targets_are_refused_by_name(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    schedule = linear_schedule(2, "left")
    bad_images = {
        r"images: .* NaN or infinity in image\(s\) \[1\]": spoilt(images, 1, math.nan),
        r"images: .* NaN or infinity in image\(s\) \[2\]": spoilt(images, 2, -math.inf),
        r"images: .*float64 of shape \(3, 6, 6\)": images[0],
        "images: .*uint8": (images * 255).byte(),
        "images: expected at least one image": images[:0],
        "images: .*ndarray": images.numpy(),
    }
    for complaint, bad in bad_images.items():
        with pytest.raises(ValueError, match=complaint):
            integrated_gradients(smooth_net, bad, targets, schedule)
    bad_targets = {
        r"targets: .* shape \(3,\), got torch.int64 of shape \(2,\)": targets[:2],
        "targets: .*int32": targets.int(),
        "targets: .* got 4": 4,
        "targets: expected on the images' device cpu, got meta": targets.to("meta"),
    }
    for complaint, bad in bad_targets.items():
        with pytest.raises(ValueError, match=complaint):
            integrated_gradients(smooth_net, images, bad, schedule)
    bad_baselines = {
        r"baselines: expected the images' shape .* got \(1, 3, 6, 6\)": images[:1],
        r"baselines: .* NaN or infinity in image\(s\) \[0\]": spoilt(images, 0, math.nan),
    }
    for complaint, bad in bad_baselines.items():
        with pytest.raises(ValueError, match=complaint):
            integrated_gradients(smooth_net, images, targets, schedule, baselines=bad)
    with pytest.raises(ValueError, match="schedules: expected at least one"):
        integrate_path(Objective(smooth_net, targets), StraightPath(images, images), [])


@pytest.fixture(scope="module")
def classifier64(classifier: nn.Module) -> nn.Module:
    """The real network in float64: rounding moves float32 gradients across its ReLU6 kinks."""
    return copy.deepcopy(classifier).double()


@pytest.fixture(scope="module")
def thumbnails(photos: Tensor) -> Tensor:
    """Two photos at a quarter of the size, (2, 3, 56, 56) in float64, to save time."""
    return nn.functional.avg_pool2d(photos[:2].double(), 4)


def test_a_real_networks_maps_do_not_depend_on_batches(
    classifier64: nn.Module, thumbnails: Tensor, predictions: Tensor
) -> None:
    schedule, labels = linear_schedule(8, "left"), predictions[:2]
    together = integrated_gradients(classifier64, thumbnails, labels, schedule, internal_batch_size=16)
    for rows, size in ((slice(0, 1), 8), (slice(0, 2), 3)):
        found = integrated_gradients(
            classifier64, thumbnails[rows], labels[rows], schedule, internal_batch_size=size
        )
        assert l1_distance(found.maps, together.maps[rows]) < 1e-11
        torch.testing.assert_close(found.f_input, together.f_input[rows], rtol=1e-11, atol=0)
        torch.testing.assert_close(found.f_baseline, together.f_baseline[rows], rtol=1e-11, atol=0)


@pytest.mark.parametrize("internal_batch_size", [3, 16])
def test_float32_maps_of_a_real_network_are_near_those_in_float64(
    classifier: nn.Module,
    classifier64: nn.Module,
    thumbnails: Tensor,
    predictions: Tensor,
    internal_batch_size: int,
) -> None:
    schedule, labels = linear_schedule(8, "left"), predictions[:2]
    exact = integrated_gradients(classifier64, thumbnails, labels, schedule)
    found = integrated_gradients(
        classifier, thumbnails.float(), labels, schedule, internal_batch_size=internal_batch_size
    )
    assert found.maps.dtype == torch.float32
    assert l1_distance(found.maps.double(), exact.maps) < 0.02
    torch.testing.assert_close(found.f_input.double(), exact.f_input, rtol=1e-4, atol=1e-6)


# Captum's points are those of ours; its trapezoid has weights 1/n, halved at the ends, (n − 1)/n in sum.
@pytest.mark.parametrize(
    ("rule", "captum_name", "scale"),
    [
        ("left", "riemann_left", 1.0),
        ("right", "riemann_right", 1.0),
        ("midpoint", "riemann_middle", 1.0),
        ("gauss_legendre", "gausslegendre", 1.0),
        ("trapezoid", "riemann_trapezoid", 7 / 8),
    ],
)
def test_maps_of_a_real_network_are_captums(
    classifier64: nn.Module,
    thumbnails: Tensor,
    predictions: Tensor,
    rule: str,
    captum_name: str,
    scale: float,
) -> None:
    captum = IntegratedGradients(lambda inputs: classifier64(inputs).softmax(dim=1))
    expected = captum.attribute(thumbnails, target=predictions[:2], n_steps=8, method=captum_name)
    found = integrated_gradients(classifier64, thumbnails, predictions[:2], linear_schedule(8, rule))
    assert l1_distance(scale * found.maps, expected) < 1e-5


@pytest.mark.parametrize(("samples", "rule", "count"), [(16, "left", 16), (16, "trapezoid", 15)])
def test_the_cost_of_a_partition_counts_its_gradients(
    linear_net: nn.Module, images: Tensor, targets: Tensor, samples: int, rule: str, count: int
) -> None:
    schedule = schedule_from_partition(linear_partition(intervals(samples, rule)), rule)
    result = integrated_gradients(linear_net, images, targets, schedule)
    assert result.gradient_evaluations.tolist() == [samples] * 3
    assert intervals(samples, rule) == count

"""Points per image: exact where a sum is exact, placed where the map changes, and stopped in time."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.estimators.adaptive import (
    AT_A_TIME,
    SAFETY,
    START,
    adaptive_attribution,
    adaptive_to_tolerance,
)
from riemannopt_dist.methods import integrate_path, integrated_gradients
from riemannopt_dist.metrics.completeness import completeness_delta
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.testing.problems import CONSTANT, PROFILES, RISING
from tests.networks import Quadratic, Recorded, counted, l1_distance


class Rise(nn.Module):
    """Logits (σ(80 (Σ w_i x_i − c)), 0): a rise of width 1/20, when Σ w_i x_i passes c."""

    def __init__(self, centre: float) -> None:
        super().__init__()
        self.centre = centre
        self.eval()  # of a model in training mode the first images are passed twice

    def forward(self, images: Tensor) -> Tensor:
        score = (shares(images) * images.flatten(1)).sum(1)
        return torch.stack([torch.sigmoid(80 * (score - self.centre)), torch.zeros_like(score)], dim=1)


class Walk(nn.Module):
    """Logits (Σ_i ∫_0^{x_i} v_i, 0): every v_i is a random walk of 4,096 steps over [0, 1]."""

    STEPS = 4096

    def __init__(self, features: int, seed: int) -> None:
        super().__init__()
        steps = np.random.default_rng(seed).normal(size=(features, self.STEPS)) / math.sqrt(self.STEPS)
        self.walks = torch.from_numpy(steps.cumsum(1))
        self.areas = self.walks.cumsum(1).roll(1, 1) / self.STEPS
        self.areas[:, 0] = 0

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        step = (flat.detach() * self.STEPS).long().clamp(max=self.STEPS - 1)
        feature = torch.arange(flat.shape[1])
        area = self.areas[feature, step] + (flat - step / self.STEPS) * self.walks[feature, step]
        score = area.sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


class BatchDependent(nn.Module):
    """Logits x_0 … x_4, off by 1e-7 of themselves for each image before them in the batch."""

    def forward(self, images: Tensor) -> Tensor:
        places = torch.arange(len(images), dtype=images.dtype)[:, None]
        return (1 + 1e-7 * places) * images.flatten(1)[:, :5]


def shares(images: Tensor) -> Tensor:
    """Weights that make Σ w_i x_i = 1 for these images on average, (D,)."""
    return torch.full_like(images[0].flatten(), 2 / images[0].numel())


class Recorder(nn.Module):
    """A model that keeps the mean pixel of all that it is shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.means: list[float] = []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.means += images.detach().flatten(1).mean(1).tolist()
        logits: Tensor = self.model(images)
        return logits


@pytest.fixture(scope="module")
def first() -> Tensor:
    return torch.zeros(3, dtype=torch.int64)


@pytest.fixture(scope="module")
def plain() -> Tensor:
    """Three images (3, 3, 6, 6) of one grey each: 0.4, 0.6 and 1."""
    return torch.tensor([0.4, 0.6, 1.0], dtype=torch.float64)[:, None, None, None].expand(3, 3, 6, 6).clone()


@pytest.mark.parametrize("name", ["rising", "late", "two peaks", "roughness"])
@pytest.mark.parametrize("path_of", [StraightPath.from_black, lambda images: BlurPath(images, 2.0)])
def test_a_linear_logit_is_exact_on_any_path_at_any_points(
    linear_net: nn.Module, images: Tensor, targets: Tensor, name: str, path_of: Callable[[Tensor], Path]
) -> None:
    path = path_of(images)
    result = adaptive_attribution(Objective(linear_net, targets, output="logit"), path, PROFILES[name], 11)
    start, _ = path.at(torch.arange(3), torch.zeros(3, dtype=torch.float64))
    weights = linear_net[1].weight.detach()[targets].view_as(images)
    torch.testing.assert_close(result.maps, weights * (images - start), rtol=1e-10, atol=1e-13)


def test_positions_do_not_depend_on_the_type_of_the_images(images: Tensor, first: Tensor) -> None:
    """In bfloat16 they would be rounded to 1/256."""
    rounded, exact = (Recorded(StraightPath.from_black(given)) for given in (images.bfloat16(), images))
    for path in (rounded, exact):
        adaptive_attribution(Objective(Quadratic(), first), path, RISING, START)
    assert rounded.alphas == exact.alphas


def test_a_gradient_that_is_a_straight_line_is_exact(images: Tensor, first: Tensor) -> None:
    result = adaptive_attribution(
        Objective(Quadratic(), first, output="logit"), StraightPath.from_black(images), RISING, 7
    )
    factors = torch.linspace(-1, 2, 108, dtype=torch.float64).view(3, 6, 6)
    torch.testing.assert_close(result.maps, factors * images**2 / 2, rtol=1e-12, atol=1e-14)


def test_two_points_are_exact_for_the_probability_of_a_linear_model(images: Tensor) -> None:
    # Log-odds and their gradient are linear along the path, as the weights take them to be.
    weights = torch.randn(108, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 2, bias=False)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([weights, torch.zeros_like(weights)]))
    classes = torch.tensor([0, 1, 0])
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None]
    parts = sign * weights * images.flatten(1)
    score = parts.sum(1, keepdim=True)
    assert score.abs().max() > 4
    expected = parts / score * (torch.sigmoid(score) - 0.5)
    result = adaptive_attribution(Objective(network, classes), StraightPath.from_black(images), CONSTANT, 2)
    torch.testing.assert_close(result.maps.flatten(1), expected, rtol=1e-9, atol=1e-12)
    trapezoid = integrated_gradients(network, images, classes, linear_schedule(2, "trapezoid"))
    assert l1_distance(trapezoid.maps.flatten(1), expected) > 0.2


def test_an_integrand_that_changes_evenly_gets_even_points(plain: Tensor, first: Tensor) -> None:
    path = StraightPath.from_black(plain[2:])
    for samples, at_a_time in ((9, 2), (9, 3), (17, 1), (17, 5)):
        model = Recorder(Quadratic())
        found = adaptive_attribution(
            Objective(model, first[2:], output="logit"), path, CONSTANT, samples, start=5, at_a_time=at_a_time
        )
        assert sorted(model.means) == pytest.approx(np.linspace(0, 1, samples).tolist(), abs=1e-12)
        (even,) = integrate_path(
            Objective(model, first[2:], output="logit"), path, [linear_schedule(samples, "trapezoid")]
        )
        torch.testing.assert_close(found.maps, even.maps, rtol=1e-12, atol=1e-14)


def test_bisection_halves_the_profiles_share(plain: Tensor, first: Tensor) -> None:
    # ∫√t is proportional to t^{3/2}: even shares lie at (i/n)^{2/3}. One image, one interval, one bisection.
    model = Recorder(Quadratic())
    adaptive_attribution(
        Objective(model, first[2:], output="logit"), StraightPath.from_black(plain[2:]), RISING, 3, start=2
    )
    assert sorted(model.means) == pytest.approx([0, 0.5 ** (2 / 3), 1], abs=2e-3)


@pytest.mark.parametrize("samples", [2, 5, START, 9, 20])
@pytest.mark.parametrize("output", ["probability", "logit"])
def test_every_evaluation_is_counted_and_the_ends_are_right(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, samples: int, output: str
) -> None:
    path = StraightPath(images, 0.5 * images.flip(2))
    with counted(smooth_net) as calls:
        result = adaptive_attribution(Objective(smooth_net, targets, output=output), path, RISING, samples)
    assert result.gradient_evaluations.tolist() == [samples] * 3
    # A look at each start comes first, where its probability may be flat.
    assert sum(calls) == 3 * samples + (3 if output == "probability" else 0)
    for found, ends in ((result.f_input, path.images), (result.f_baseline, path.baselines)):
        expected = Objective(smooth_net, targets, output=output).values(ends)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert result.gradient_evaluations.dtype == torch.int64
    assert result.maps.shape == images.shape
    assert not any(tensor.requires_grad for tensor in (result.maps, result.f_input, result.f_baseline))


def test_no_gradient_is_spent_at_a_flat_start(images: Tensor) -> None:
    # Log-odds from −9 to 3 along each path: a probability of 1e-4 at the start.
    weights = torch.ones(108, dtype=torch.float64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).double()
    scaled = images * 12 / images.flatten(1).sum(1)[:, None, None, None]
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([weights, torch.zeros_like(weights)]))
        network[1].bias.copy_(torch.tensor([-9.0, 0.0]))
    model = Recorder(network)
    path = StraightPath.from_black(scaled)
    found = adaptive_attribution(Objective(model, torch.zeros(3, dtype=torch.int64)), path, CONSTANT, 8)
    assert sum(mean == 0 for mean in model.means) == 3
    assert len(model.means) == 3 * (8 + 1)
    assert found.gradient_evaluations.tolist() == [8] * 3
    ends = torch.sigmoid(torch.tensor([-9.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(found.f_baseline, ends[0].expand(3))
    exact = scaled / 12 * (ends[1] - ends[0])
    assert l1_distance(found.maps, exact) < 5e-4
    # The opposite class has its probability, and so its gradient, from the same log-odds.
    other = adaptive_attribution(Objective(model, torch.ones(3, dtype=torch.int64)), path, CONSTANT, 8)
    torch.testing.assert_close(other.maps, -found.maps, rtol=1e-9, atol=1e-12)


def test_it_converges_to_the_map(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    reference = integrated_gradients(smooth_net, images, targets, linear_schedule(24, "gauss_legendre"))
    path = StraightPath.from_black(images)
    coarse, fine = (
        adaptive_attribution(Objective(smooth_net, targets), path, CONSTANT, samples).maps
        for samples in (11, 81)
    )
    assert l1_distance(fine, reference.maps) < l1_distance(coarse, reference.maps) / 20
    assert l1_distance(fine, reference.maps) < 1e-4


def test_a_blur_path_closes_on_the_change_of_the_output(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    # γ jumps where the blur's kernel gains a tap: a sum along γ itself has the jumps in it, ∫ g dα has not.
    path = BlurPath(images, 2.0, truncate=2.0)
    found = adaptive_attribution(Objective(smooth_net, targets), path, CONSTANT, 64)
    (even,) = integrate_path(Objective(smooth_net, targets), path, [linear_schedule(512, "trapezoid")])
    assert completeness_delta(found).abs().max() < 1e-4 < 0.01 < completeness_delta(even).abs().max()


def test_points_gather_where_each_images_rise_is(plain: Tensor, first: Tensor) -> None:
    # Σ w_i x_i = 2 α · grey passes 0.5 at α = 0.25 / grey: 0.625, 0.417 and 0.25.
    path = StraightPath.from_black(plain)
    for row, grey in enumerate((0.4, 0.6, 1.0)):
        model, one = Recorder(Rise(0.5)), slice(row, row + 1)
        alone = StraightPath.from_black(plain[one])
        adaptive_attribution(Objective(model, first[one], output="logit"), alone, CONSTANT, 24)
        alphas = np.array(model.means) / grey
        half_width = 4 / 80 / (2 * grey)
        # 6 of 24 points are even. The rise spans a tenth of the path or less per image, and gets the rest.
        assert np.sum(np.abs(alphas - 0.25 / grey) < 2 * half_width) >= 12
    # The map of a model of Σ w_i x_i is each feature's even share of the change.
    found = adaptive_attribution(Objective(Rise(0.5), first, output="logit"), path, CONSTANT, 24)
    exact = ((found.f_input - found.f_baseline) / 108)[:, None, None, None].expand_as(plain)
    even = integrated_gradients(
        Rise(0.5),
        plain,
        first,
        optimize_schedule(CONSTANT, 24, "trapezoid", "equidistribution"),
        output="logit",
    )
    assert l1_distance(found.maps, exact) < 0.03 < 0.1 < l1_distance(even.maps, exact)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_micro_batches_change_nothing(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, size: int
) -> None:
    path = StraightPath.from_black(images)
    whole = adaptive_attribution(Objective(smooth_net, targets, internal_batch_size=100), path, RISING, 13)
    parts = adaptive_attribution(Objective(smooth_net, targets, internal_batch_size=size), path, RISING, 13)
    assert l1_distance(parts.maps, whole.maps) < 1e-12
    whole = adaptive_to_tolerance(Objective(smooth_net, targets, internal_batch_size=100), path, RISING, 0.02)
    parts = adaptive_to_tolerance(
        Objective(smooth_net, targets, internal_batch_size=size), path, RISING, 0.02
    )
    assert l1_distance(parts.maps, whole.maps) < 1e-12
    assert parts.gradient_evaluations.tolist() == whole.gradient_evaluations.tolist()


def test_a_batch_of_images_is_each_image_alone(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    path = StraightPath(images, images.flip(3))
    fixed = adaptive_attribution(Objective(smooth_net, targets), path, RISING, 13)
    auto = adaptive_to_tolerance(Objective(smooth_net, targets), path, RISING, 0.02)
    for row in range(3):
        one = slice(row, row + 1)
        alone = StraightPath(images[one], path.baselines[one])
        found = adaptive_attribution(Objective(smooth_net, targets[one]), alone, RISING, 13)
        assert l1_distance(found.maps, fixed.maps[one]) < 1e-12
        found = adaptive_to_tolerance(Objective(smooth_net, targets[one]), alone, RISING, 0.02)
        assert l1_distance(found.maps, auto.maps[one]) < 1e-12
        assert found.gradient_evaluations == auto.gradient_evaluations[row]


def test_images_come_in_groups_that_fill_a_micro_batch(plain: Tensor, first: Tensor) -> None:
    images = plain[[0, 0, 0, 0, 2, 2]]
    model = Recorder(Quadratic())
    adaptive_attribution(
        Objective(model, first.repeat(2), output="logit", internal_batch_size=8),
        StraightPath.from_black(images),
        CONSTANT,
        12,
        start=8,
        at_a_time=2,
    )
    assert max(model.means[: 4 * 12]) == pytest.approx(0.4)
    assert max(model.means[4 * 12 : 4 * 12 + 8]) == pytest.approx(1.0)


def test_micro_batches_are_full_while_images_last(plain: Tensor, first: Tensor) -> None:
    images, targets = plain.repeat(4, 1, 1, 1), first.repeat(4)
    path = StraightPath.from_black(images)
    with counted(model := Rise(0.5)) as calls:
        adaptive_attribution(
            Objective(model, targets, output="logit", internal_batch_size=8), path, CONSTANT, 16, at_a_time=2
        )
    assert set(calls) == {8}
    # Images that are done leave, others take their places: of the last group alone, some rounds are not full.
    with counted(model) as calls:
        result = adaptive_to_tolerance(
            Objective(model, targets, output="logit", internal_batch_size=8),
            path,
            CONSTANT,
            0.01,
            at_a_time=2,
        )
    assert sum(calls) == int(result.gradient_evaluations.sum())
    assert len(set(result.gradient_evaluations.tolist())) > 1
    assert sum(size == 8 for size in calls) > 0.8 * len(calls)


@pytest.mark.parametrize("tolerance", [0.2, 0.05, 0.01])
def test_the_tolerance_is_met_and_costs_what_the_image_needs(
    plain: Tensor, first: Tensor, tolerance: float
) -> None:
    path = StraightPath.from_black(plain)
    with counted(model := Rise(0.5)) as calls:
        found = adaptive_to_tolerance(Objective(model, first, output="logit"), path, CONSTANT, tolerance)
    exact = ((found.f_input - found.f_baseline) / 108)[:, None, None, None].expand_as(plain)
    assert l1_distance(found.maps, exact) <= tolerance
    assert sum(calls) == int(found.gradient_evaluations.sum())
    looser = adaptive_to_tolerance(Objective(model, first, output="logit"), path, CONSTANT, 2 * tolerance)
    assert bool((looser.gradient_evaluations <= found.gradient_evaluations).all())
    assert looser.gradient_evaluations.sum() < found.gradient_evaluations.sum()
    fixed = adaptive_attribution(
        Objective(model, first, output="logit"), path, CONSTANT, int(found.gradient_evaluations[1])
    )
    torch.testing.assert_close(fixed.maps[1], found.maps[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tolerance", [0.1, 0.03, 0.01])
def test_the_estimate_is_the_error_of_gradients_that_walk_at_random(first: Tensor, tolerance: float) -> None:
    images = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    model = Walk(768, seed=1)
    result = adaptive_to_tolerance(
        Objective(model, first[:1], output="logit"), StraightPath.from_black(images), CONSTANT, tolerance
    )
    error = l1_distance(result.maps.flatten(1), model.walks.mean(1)[None])
    # The last round of two points of n brings the estimate down by some 2/n, here from above the tolerance.
    step = 1 - 2 * AT_A_TIME / int(result.gradient_evaluations)
    assert 0.85 * step * tolerance / SAFETY < error < 1.15 * tolerance / SAFETY


def test_the_maximum_holds(plain: Tensor, first: Tensor) -> None:
    path = StraightPath.from_black(plain)
    for maximum in (2, 7, 11, 30):
        with counted(model := Rise(0.5)) as calls:
            result = adaptive_to_tolerance(
                Objective(model, first, output="logit"), path, CONSTANT, 1e-9, maximum=maximum
            )
        assert result.gradient_evaluations.tolist() == [maximum] * 3
        assert sum(calls) == 3 * maximum
        fixed = adaptive_attribution(Objective(model, first, output="logit"), path, CONSTANT, maximum)
        torch.testing.assert_close(result.maps, fixed.maps, rtol=1e-12, atol=0)


def test_a_rise_between_samples_that_agree_is_found_by_its_gap(plain: Tensor, first: Tensor) -> None:
    # Six even points are 1/5 apart; at grey 1 the rise at 1/4 is over within 1/20 of the path.
    path, model = StraightPath.from_black(plain[2:]), Rise(0.5)
    (start,) = integrate_path(
        Objective(model, first[2:], output="logit"), path, [linear_schedule(START, "trapezoid")]
    )
    assert start.maps.sum() < 0.1 * (start.f_input - start.f_baseline)
    found = adaptive_to_tolerance(Objective(model, first[2:], output="logit"), path, CONSTANT, 0.02)
    assert found.maps.sum().item() == pytest.approx(float(found.f_input - found.f_baseline), rel=0.02)


def test_a_map_of_zeros_is_done_at_once(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    result = adaptive_to_tolerance(
        Objective(smooth_net, targets), StraightPath(images, images), CONSTANT, 0.01
    )
    assert not result.maps.any()
    assert result.gradient_evaluations.tolist() == [START] * 3


def test_rounding_that_depends_on_the_batch_is_no_gap(images: Tensor, targets: Tensor) -> None:
    path = StraightPath(images, images)
    result = adaptive_to_tolerance(Objective(BatchDependent(), targets, output="logit"), path, CONSTANT, 0.01)
    assert not result.maps.any()
    assert result.f_input.tolist() != result.f_baseline.tolist()
    assert result.gradient_evaluations.tolist() == [START] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_rounding_of_every_type_is_no_gap(dtype: torch.dtype, images: Tensor, targets: Tensor) -> None:
    class Flat(nn.Module):
        """The same logits everywhere, off by an ε or two at every other place of a batch; some are small."""

        def forward(self, inputs: Tensor) -> Tensor:
            logits = torch.tensor([4.0, -2.0, 1.0, 0.01, -3.0]).to(inputs) + 0 * inputs.flatten(1)[:, :5]
            return logits + 2 * torch.finfo(dtype).eps * (torch.arange(len(inputs)) % 2)[:, None].to(inputs)

    given = images.to(dtype)
    path = StraightPath.from_black(given)
    for output in ("probability", "logit"):
        found = adaptive_to_tolerance(Objective(Flat(), targets, output=output), path, CONSTANT, 0.01)
        assert found.gradient_evaluations.tolist() == [START] * 3
    assert (found.f_input != found.f_baseline).any()


def test_bad_arguments_are_refused_by_name(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    path = StraightPath.from_black(images)
    for complaint, (objective, arguments) in {
        "samples: .* at least 2, got 1": ({}, {"samples": 1}),
        "samples: .* got 2.5": ({}, {"samples": 2.5}),
        "start: .* at least 2, got 1": ({}, {"start": 1}),
        "at_a_time: .* got 0": ({}, {"at_a_time": 0}),
        "internal_batch_size: .* got 0": ({"internal_batch_size": 0}, {}),
        "output: .* got 'softmax'": ({"output": "softmax"}, {}),
        "targets: expected int64": ({"targets": targets[:2]}, {}),
    }.items():
        with pytest.raises(ValueError, match=complaint):
            adaptive_attribution(
                Objective(**{"model": smooth_net, "targets": targets} | objective),
                path,
                CONSTANT,
                **{"samples": 8} | arguments,
            )
    for tolerance in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance: expected a positive finite number"):
            adaptive_to_tolerance(Objective(smooth_net, targets), path, CONSTANT, tolerance)
    with pytest.raises(ValueError, match=r"maximum: .* at least 2, got 1"):
        adaptive_to_tolerance(Objective(smooth_net, targets), path, CONSTANT, 0.1, maximum=1)
    with pytest.raises(ValueError, match="training mode"):
        adaptive_attribution(Objective(nn.Sequential(nn.Dropout(), smooth_net), targets), path, CONSTANT, 4)

"""Completeness figures against values computed by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.converged import relative_distance
from riemannopt_dist.methods import blur_ig, guided_ig, idgi, integrate_path, integrated_gradients
from riemannopt_dist.metrics.completeness import (
    COMPLETENESS,
    attribution_sum,
    completeness_delta,
    ratio_of_sums,
    relative_error,
)
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.objective import Objective, Output
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import RULES, linear_schedule


def result_of(sums: list[float], f_input: list[float], f_baseline: list[float]) -> Attribution:
    """Maps of two features, a half of the sum in each plus and minus one."""
    half = torch.tensor(sums)[:, None, None, None] / 2
    maps = torch.cat([half + 1, half - 1], dim=3)
    return Attribution(maps, torch.tensor(f_input), torch.tensor(f_baseline), torch.ones(len(sums)).long())


def test_figures_by_hand() -> None:
    result = result_of([0.5, 0.25, -0.25], [0.75, 0.5, 0.25], [0.25, 0.0, 0.5])
    assert attribution_sum(result).tolist() == [0.5, 0.25, -0.25]
    assert completeness_delta(result).tolist() == [0.0, -0.25, 0.0]
    assert relative_error(result).tolist() == [0.0, 0.5, 0.0]
    assert float(ratio_of_sums(result)) == 0.25 / 1.25


def test_the_mean_of_ratios_is_not_the_ratio_of_sums() -> None:
    result = result_of([0.0, 1.0], [0.25, 1.0], [0.0, 0.0])
    assert float(relative_error(result).mean()) == 0.5
    assert float(ratio_of_sums(result)) == 0.2


def test_over_and_underestimates_of_images_do_not_cancel() -> None:
    result = result_of([1.0, 0.0], [0.5, 0.5], [0.0, 0.0])
    assert completeness_delta(result).tolist() == [0.5, -0.5]
    assert float(ratio_of_sums(result)) == 1.0


def test_the_gap_bounds_the_distance_and_the_shares_bound_nothing() -> None:
    """Of the exact map (3, −1), f changes by 2 and the norm is 4: two maps that are off by a half."""
    exact = torch.tensor([3.0, -1.0]).view(1, 1, 1, 2)
    errors = []
    for values in ([3.5, -1.0], [3.25, -1.25]):
        maps = torch.tensor(values).view(1, 1, 1, 2)
        one = Attribution(maps, torch.tensor([2.0]), torch.tensor([0.0]), torch.ones(1).long())
        assert completeness_delta(one).abs() <= (maps - exact).abs().sum()
        errors.append((relative_error(one).item(), relative_distance(maps, exact).item()))
    assert errors == [(0.25, 0.125), (0.0, 0.125)]


def test_an_output_that_does_not_change_has_no_relative_error() -> None:
    found = relative_error(result_of([0.5, 0.0], [0.25, 0.25], [0.25, 0.25]))
    assert found.isnan().all()


def test_sums_are_taken_in_float64() -> None:
    # 2^24 and 63 ones: float32 would lose the ones that it adds one at a time.
    maps = torch.ones(1, 1, 8, 8)
    maps[0, 0, 0, 0] = 2.0**24
    zero = torch.zeros(1)
    result = Attribution(maps, zero, zero, torch.ones(1).long())
    assert attribution_sum(result).tolist() == [2.0**24 + 63]
    assert relative_error(result).dtype == torch.float64


def near(value: float, ulps: int, dtype: torch.dtype) -> float:
    """The number of a type so many places above another."""
    return value * (1 + ulps * torch.finfo(dtype).eps)


# f(x), f(x′), the type of the model and what f is: whether their difference is more than rounding.
CHANGES: list[tuple[float, float, torch.dtype, Output, bool]] = [
    (0.25, 0.25, torch.float32, "probability", False),
    (near(0.25, 8, torch.float32), 0.25, torch.float32, "probability", False),
    (0.9, near(0.9, 100, torch.float32), torch.float32, "probability", False),
    (near(0.25, 800, torch.float32), 0.25, torch.float32, "probability", True),
    (near(0.25, 8, torch.float64), 0.25, torch.float64, "probability", False),
    (near(0.25, 8, torch.float32), 0.25, torch.float64, "probability", True),
    (2e-9, 1e-9, torch.float32, "probability", True),  # a small probability is as exact as a large one
    (near(2e-9, 8, torch.float32), 2e-9, torch.float32, "probability", False),
    (1e-6, -2e-6, torch.float32, "logit", False),  # of logits around 10, say
    (12.0, near(12.0, 100, torch.float32), torch.float32, "logit", False),
    (1e-3, 0.0, torch.float32, "logit", True),
    (0.5, 0.47, torch.bfloat16, "probability", False),
    (0.5, 0.3, torch.bfloat16, "probability", True),
    (0.5, 0.496, torch.float16, "probability", False),
    (0.5, 0.47, torch.float16, "probability", True),
]


@pytest.mark.parametrize(("f_input", "f_baseline", "dtype", "output", "more"), CHANGES)
def test_a_change_within_rounding_is_none(
    f_input: float, f_baseline: float, dtype: torch.dtype, output: Output, more: bool
) -> None:
    ends = [torch.tensor([end], dtype=torch.float64) for end in (f_input, f_baseline)]
    maps = torch.full((1, 1, 1, 1), 0.125, dtype=torch.float64)
    result = Attribution(maps, *ends, torch.ones(1).long(), output, dtype)
    change = f_input - f_baseline
    expected = abs(0.125 - change) / abs(change) if more else math.nan
    assert relative_error(result).item() == pytest.approx(expected, nan_ok=True)
    assert ratio_of_sums(result).item() == pytest.approx(expected, nan_ok=True)
    assert completeness_delta(result).item() == pytest.approx(0.125 - change, rel=1e-12)


@pytest.mark.parametrize(("f_input", "f_baseline", "dtype", "output", "more"), CHANGES)
def test_the_metric_and_its_summaries_count_it_as_none(
    f_input: float, f_baseline: float, dtype: torch.dtype, output: Output, more: bool
) -> None:
    ends = [torch.tensor([end], dtype=torch.float64) for end in (f_input, f_baseline)]
    images = torch.zeros(1, 1, 1, 1, dtype=dtype)
    maps = torch.full((1, 1, 1, 1, 1), 0.125)
    batch = MapBatch(
        Objective(nn.Identity(), torch.zeros(1).long(), output), images, maps, ends[0], ends[1][None]
    )
    columns = {name: values[0].tolist() for name, values in COMPLETENESS.compute(batch).items()}
    change = f_input - f_baseline
    expected = abs(0.125 - change) / abs(change) if more else math.nan
    assert columns["relative_error"][0] == pytest.approx(expected, nan_ok=True)
    assert columns["output_change"][0] == pytest.approx(change if more else 0)
    assert columns["completeness_delta"][0] == pytest.approx(0.125 - change)
    mean, _, ratio = (summary.of(columns) for summary in COMPLETENESS.summaries)
    assert mean == (pytest.approx(expected, nan_ok=True), int(not more))
    assert ratio == (pytest.approx(expected, nan_ok=True), 0)


def test_a_ratio_of_sums_has_the_errors_of_unchanged_outputs_in_it() -> None:
    """Along a path the output may go up and down again: that a map misses it counts."""
    result = result_of([0.5, 0.25], [0.75, 0.5], [0.25, 0.5 * (1 + 1e-7)])
    assert float(ratio_of_sums(result)) == pytest.approx(0.25 / 0.5, rel=1e-6)


class OffByItsPlace(nn.Module):
    """A float32 network whose logits are off by a few ε for each image before it in the batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.double()).float()
        places = torch.arange(len(images))[:, None]
        return logits * (1 + 4 * torch.finfo(torch.float32).eps * places)


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_a_baseline_equal_to_the_image_has_none_where_f_depends_on_the_batch(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, output: Output
) -> None:
    model, given = OffByItsPlace(smooth_net).eval(), images.float()
    path, black = StraightPath(given, given), torch.zeros_like(given)
    for size in (1, 2, 7):
        settings = {"output": output, "internal_batch_size": size}
        results = [
            *integrate_path(
                Objective(model, targets, **settings), path, [linear_schedule(4, rule) for rule in RULES]
            ),
            guided_ig(
                model,
                given,
                targets,
                linear_schedule(3),
                path=GuidedPath(StraightPath(given, given)),
                **settings,
            ),
            guided_ig(model, black, targets, linear_schedule(3, "trapezoid"), **settings),
            blur_ig(model, black, targets, linear_schedule(3), **settings),
            idgi(model, black, targets, linear_schedule(3), **settings),
        ]
        for result in results:
            assert relative_error(result).isnan().all()
            assert ratio_of_sums(result).isnan()
    assert any((result.f_input != result.f_baseline).any() for result in results)


@pytest.mark.parametrize("rule", RULES)
def test_a_baseline_equal_to_the_image_has_no_relative_error(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, rule: str
) -> None:
    result = integrated_gradients(smooth_net, images, targets, linear_schedule(4, rule), baselines=images)
    assert relative_error(result).isnan().all()

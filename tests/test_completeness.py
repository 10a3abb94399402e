"""Completeness figures against values computed by hand."""

import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.attribution import Attribution, integrated_gradients
from riemannopt_dist.metrics.completeness import (
    attribution_sum,
    completeness_delta,
    ratio_of_sums,
    relative_error,
)
from riemannopt_dist.schedule import RULES, linear_schedule


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


@pytest.mark.parametrize("rule", RULES)
def test_a_baseline_equal_to_the_image_has_no_relative_error(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, rule: str
) -> None:
    result = integrated_gradients(smooth_net, images, targets, linear_schedule(4, rule), baselines=images)
    assert relative_error(result).isnan().all()

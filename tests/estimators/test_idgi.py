"""IDGI: identities, its formula written out plainly, and what it costs."""

import math

import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.estimators.idgi import squared_shares
from riemannopt_dist.methods import idgi, integrate_path
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.quadrature.rules import linear_schedule, partition_of, schedule_from_partition
from riemannopt_dist.quadrature.schedule import Schedule
from tests.sums import integrate

UNEVEN = (0.0, 0.0, 0.05, 0.2, 0.2, 0.55, 0.6, 1.0, 1.0)
RULES = ("left", "right", "trapezoid")


def plainly(model: nn.Module, images: Tensor, targets: Tensor, schedule: Schedule) -> Tensor:
    """The formula, interval by interval, on the straight path from black."""
    edges, rule = partition_of(schedule)
    found = [Objective(model, targets).gradients(images * edge) for edge in edges]
    shares = [squared_shares(gradient) for _, gradient in found]
    maps = torch.zeros_like(images)
    for i in range(len(edges) - 1):
        change = (found[i + 1][0] - found[i][0])[:, None, None, None]
        direction = {"left": shares[i], "right": shares[i + 1], "trapezoid": (shares[i] + shares[i + 1]) / 2}
        maps += change * direction[rule]
    return maps


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, 4, 7, 100])
def test_equals_the_formula_whatever_the_micro_batches(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, rule: str, internal_batch_size: int
) -> None:
    schedules = [
        schedule_from_partition(UNEVEN, rule),
        linear_schedule(4, "left"),
        linear_schedule(3, "trapezoid"),
    ]
    plain = [linear_schedule(5, "midpoint")]
    path = StraightPath.from_black(images)
    found = integrate(
        smooth_net, path, targets, plain, idgi=schedules, internal_batch_size=internal_batch_size
    )
    assert len(found) == 4
    (alone,) = integrate_path(Objective(smooth_net, targets), path, plain)
    torch.testing.assert_close(found[0].maps, alone.maps)
    for result, schedule in zip(found[1:], schedules, strict=True):
        expected = plainly(smooth_net, images, targets, schedule)
        torch.testing.assert_close(result.maps, expected, rtol=1e-10, atol=1e-14)
        assert result.gradient_evaluations.tolist() == [len(schedule)] * len(images)


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("rule", RULES)
def test_sums_to_the_change_of_the_output(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, path: str, rule: str
) -> None:
    schedule = schedule_from_partition(UNEVEN, rule)
    if (path, rule) == ("guided_ig", "right"):
        with pytest.raises(ValueError, match="left or the trapezoid rule"):
            idgi(smooth_net, images, targets, schedule, path=path)
        return
    result = idgi(smooth_net, images, targets, schedule, path=path)
    torch.testing.assert_close(result.maps.flatten(1).sum(1), result.f_input - result.f_baseline)


def test_a_zero_gradient_gives_a_zero_map(images: Tensor, targets: Tensor) -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double().eval()
    nn.init.zeros_(constant[1].weight)
    result = idgi(constant, images, targets, linear_schedule(4))
    assert torch.equal(result.maps, torch.zeros_like(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_shares_do_not_depend_on_how_large_a_gradient_is(dtype: torch.dtype) -> None:
    sides = torch.tensor([3.0, -4.0], dtype=dtype).view(1, 2, 1, 1)
    expected = torch.tensor([9 / 25, 16 / 25], dtype=dtype)
    finfo = torch.finfo(dtype)
    for scale in (finfo.tiny, 1.0, finfo.max / 8):
        torch.testing.assert_close(squared_shares(scale * sides).flatten(), expected)
    assert not squared_shares(0 * sides).any()
    for broken in (math.nan, math.inf):  # must not pass for a step without a gradient
        assert squared_shares(sides * sides.new_tensor([1.0, broken]).view(1, 2, 1, 1)).isnan().all()


def test_rules_that_hide_their_intervals_are_refused(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    with pytest.raises(ValueError, match="left, right or trapezoid"):
        idgi(smooth_net, images, targets, linear_schedule(4, "midpoint"))


@pytest.mark.parametrize("rule", ["left", "trapezoid"])
def test_guided_sums_pay_for_one_walk(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, rule: str
) -> None:
    schedule = linear_schedule(6, rule)
    calls = []
    handle = smooth_net.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    path, softmax = GuidedPath(StraightPath.from_black(images)), [schedule] * (rule == "trapezoid")
    integrate(smooth_net, path, targets, [schedule], idgi=[schedule], softmax=softmax)
    handle.remove()
    # Six with a gradient; the left rule, which takes none at the image, asks for f(x) besides.
    assert (sum(calls), len(calls)) == (6, 7 if rule == "left" else 6)

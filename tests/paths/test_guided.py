"""Guided IG: PAIR's maps on the same gradients, the walk's identities, and sums that close on it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.converged import references
from riemannopt_dist.estimators.idgi import IdgiSums
from riemannopt_dist.estimators.passes import sums_along
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.methods import guided_ig, integrated_gradients
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.guided import GuidedPath, WalkStep, advance
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import Guided
from riemannopt_dist.quadrature.rules import linear_partition, linear_schedule, schedule_from_partition
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.quadrature.variation import path_variation
from tests.networks import OneByOne

UNEVEN = np.array([0.0, 0.07, 0.1, 0.1, 0.35, 0.36, 0.8, 1.0])


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """PAIR's Guided IG on a small float64 network, with its weights: see golden/make_saliency_golden.py."""
    with np.load(Path(__file__).parents[1] / "golden" / "guided_ig.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden_net(golden: dict[str, np.ndarray]) -> nn.Module:
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(256, 5))
    network = nn.Sequential(*layers).double().eval()
    network.load_state_dict({key: torch.from_numpy(golden[key]) for key in network.state_dict()})
    return network


def golden_maps(net: nn.Module, golden: dict[str, np.ndarray], partition: Array, case: np.ndarray) -> Tensor:
    images, baselines, targets = (torch.from_numpy(golden[key]) for key in ("images", "baselines", "targets"))
    return guided_ig(
        net,
        images,
        targets,
        schedule_from_partition(partition, "left"),
        path=GuidedPath(StraightPath(images, baselines), Guided(float(case[1]), float(case[2]))),
    ).maps


def walk_of(model: nn.Module, images: Tensor, targets: Tensor, partition: Array) -> Iterator[WalkStep]:
    """The steps of walks from black."""
    return GuidedPath(StraightPath.from_black(images)).steps(Objective(model, targets), partition)


def error(maps: Tensor, reference: Tensor) -> float:
    """The greatest ‖a − b‖₁ / ‖b‖₁ over images."""
    return float(((maps - reference).flatten(1).abs().sum(1) / reference.flatten(1).abs().sum(1)).max())


def test_maps_are_pairs(golden: dict[str, np.ndarray], golden_net: nn.Module) -> None:
    for case, expected in zip(golden["cases"], golden["maps"], strict=True):
        maps = golden_maps(golden_net, golden, linear_partition(int(case[0])), case)
        assert error(maps, torch.from_numpy(expected)) < 1e-9, case


def test_maps_are_pairs_where_steps_are_uneven(golden: dict[str, np.ndarray], golden_net: nn.Module) -> None:
    partition = np.insert(golden["uneven"], 0, 0.0)
    for case, expected in zip(golden["uneven_cases"], golden["uneven_maps"], strict=True):
        maps = golden_maps(golden_net, golden, partition, case)
        assert error(maps, torch.from_numpy(expected)) < 1e-9, case


def test_one_step_worked_by_hand() -> None:
    """Four features at 0, a whole L1 distance of 4 + 3 + 2 + 1 = 10, to be 4 at α = 0.6 ± 0.2.

    The catch-up to 0.4 leaves 6. The two least sensitive features (1 and 3) go on to 0.8: 6 − 0.4 (3 + 1)
    = 4.4. The next two could give 0.4 (4 + 2) = 2.4 and must give 0.4: a sixth of the way, to 0.4 + 0.4 / 6.
    """
    reached = advance(
        torch.zeros(1, 4, dtype=torch.float64),
        torch.tensor([[9.0, 1.0, 7.0, 2.0]]),
        torch.tensor([[4.0, 3.0, 2.0, 1.0]], dtype=torch.float64),
        goal=torch.tensor([[0.6]], dtype=torch.float64),
        walk=Guided(fraction=0.5, max_dist=0.2),
    )
    part_way = 0.4 + 0.4 / 6
    expected = torch.tensor([[part_way, 0.8, part_way, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(reached, expected, rtol=0, atol=1e-12)


def test_equally_sensitive_features_go_together() -> None:
    """Of three that the gradient does not touch, two are due at a time, and all three go.

    Distances 4, 3, 2, 1 and a goal of 0.5 ± 0.25, where the last feature is at 0.75 already. The catch-up
    leaves 0.75 (4 + 3 + 2) + 0.25 = 7, and 5 are the goal. The three could give 0.5 (4 + 3 + 2) = 4.5 and
    must give 2: 4/9 of the way to 0.75.
    """
    reached = advance(
        torch.tensor([[0.0, 0.1, 0.0, 0.75]], dtype=torch.float64),
        torch.tensor([[0.0, 0.0, 0.0, 0.0]]),
        torch.tensor([[4.0, 3.0, 2.0, 1.0]], dtype=torch.float64),
        goal=torch.tensor([[0.5]], dtype=torch.float64),
        walk=Guided(fraction=0.5, max_dist=0.25),
    )
    part_way = 0.25 + 0.5 * 4 / 9
    expected = torch.tensor([[part_way, part_way, part_way, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(reached, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("closeness", "moved"), [(0.3, True), (0.35, False)])
def test_a_step_ends_where_it_is_close_to_its_goal(closeness: float, moved: bool) -> None:
    """In the example above the catch-up leaves 6 where 4 is the goal: a third of 6 too far."""
    reached = advance(
        torch.zeros(1, 4, dtype=torch.float64),
        torch.tensor([[9.0, 1.0, 7.0, 2.0]]),
        torch.tensor([[4.0, 3.0, 2.0, 1.0]], dtype=torch.float64),
        goal=torch.tensor([[0.6]], dtype=torch.float64),
        walk=Guided(fraction=0.5, max_dist=0.2, closeness=closeness),
    )
    assert bool((reached > 0.41).any()) == moved


def test_a_family_leads_its_walk(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """Fraction and the colour at the start reach the maps, the profile and the converged maps."""
    colour, objective = (0.2, 0.5, 0.7), Objective(smooth_net, targets)
    family, schedule = Guided(fraction=0.5, max_dist=0.1, baseline=colour), linear_schedule(6)
    baselines = torch.tensor(colour, dtype=images.dtype)[:, None, None].expand_as(images).contiguous()
    line = StraightPath(images, baselines)
    direct = guided_ig(smooth_net, images, targets, schedule, path=GuidedPath(line, family))
    path = family.through(images)
    (result,) = sums_along(path, objective, [(RiemannSums, schedule)])
    torch.testing.assert_close(result.maps, direct.maps)
    torch.testing.assert_close(result.f_baseline, direct.f_baseline)
    walk = GuidedPath(StraightPath(images, baselines), Guided(fraction=0.5, max_dist=0.1))
    expected = path_variation(walk, objective, linear_partition(5))
    np.testing.assert_allclose(path_variation(path, objective, linear_partition(5)), expected)
    # The converged integral along the walk is complete.
    (reference,) = references(path, objective, [schedule], linear_partition(6))
    total = reference.maps.flatten(1).sum(1)
    torch.testing.assert_close(total, result.f_input - result.f_baseline, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(("fraction", "max_dist"), [(0.25, 0.0), (1.0, 0.3)])
def test_without_freedom_the_walk_is_the_straight_line(
    fraction: float, max_dist: float, smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """No feature may stray, or all of them move at once: what is left is Integrated Gradients."""
    for rule in ("left", "trapezoid"):
        schedule = schedule_from_partition(UNEVEN, rule)
        guided = guided_ig(
            smooth_net, images, targets, schedule, path=Guided(fraction, max_dist).through(images)
        )
        straight = integrated_gradients(smooth_net, images, targets, schedule)
        assert error(guided.maps, straight.maps) < 1e-8
        torch.testing.assert_close(guided.f_input, straight.f_input)
        torch.testing.assert_close(guided.f_baseline, straight.f_baseline)
        assert guided.gradient_evaluations.tolist() == [len(schedule)] * 3


def test_moves_end_at_the_image_and_stay_within_reach(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    partition, max_dist = linear_partition(10), 0.07
    baselines = images.flip(0) * 0.5
    difference = images - baselines
    whole = difference.abs().flatten(1).sum(1)
    position = torch.zeros_like(images)
    path = GuidedPath(StraightPath(images, baselines), Guided(max_dist=max_dist))
    walk = path.steps(Objective(smooth_net, targets), partition)
    for goal, step in zip(partition[1:], walk, strict=False):
        position = position + step.move
        progress = position / difference
        assert float(progress.min()) > goal - max_dist - 1e-12
        assert float(progress.max()) < goal + max_dist + 1e-12
        left = (difference - position).abs().flatten(1).sum(1)
        torch.testing.assert_close(left, whole * (1 - goal), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(position, difference, rtol=0, atol=1e-9)


def test_the_last_step_stands_at_the_image(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    *_, arrival = walk_of(smooth_net, images, targets, linear_partition(4))
    assert not arrival.move.any()
    torch.testing.assert_close(arrival.values, Objective(smooth_net, targets).values(images))


def gap(result: Attribution) -> Tensor:
    """|Σ a − (f(x) − f(x′))| of each image."""
    return (result.maps.flatten(1).sum(1) - (result.f_input - result.f_baseline)).abs()


def test_trapezoid_closes_with_the_square_of_the_step(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """Left is of first order, the trapezoid of second: ten times the steps bring 10 and 100 times nearer."""
    gaps = {}
    for rule in ("left", "trapezoid"):
        for steps in (12, 120):
            schedule = schedule_from_partition(linear_partition(steps), rule)
            gaps[rule, steps] = float(gap(guided_ig(smooth_net, images, targets, schedule)).mean())
    assert gaps["trapezoid", 12] < gaps["left", 12] / 5
    assert 5 < gaps["left", 12] / gaps["left", 120] < 20
    assert gaps["trapezoid", 12] / gaps["trapezoid", 120] > 40


def test_a_walk_feeds_idgi(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """IDGI spreads each step's f_{j+1} − f_j over the features: its sum is f(x) − f(x′) to rounding."""
    walk = walk_of(smooth_net, images, targets, linear_partition(6))
    total = torch.zeros_like(images)
    for step, following in pairwise(walk):
        squares = step.gradients**2
        shares = squares / squares.flatten(1).sum(1)[:, None, None, None]
        total += shares * (following.values - step.values)[:, None, None, None]
    ends = [Objective(smooth_net, targets).values(end) for end in (images, torch.zeros_like(images))]
    torch.testing.assert_close(total.flatten(1).sum(1), ends[0] - ends[1])


def test_an_image_alone_is_the_image_in_a_batch(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """Though images need different numbers of passes; nor does the micro-batch matter."""
    model, schedule = OneByOne(smooth_net).eval(), linear_schedule(9)
    together = guided_ig(
        model, images, targets, schedule, path=Guided(0.1).through(images), internal_batch_size=2
    )
    for row in range(3):
        alone = guided_ig(
            model,
            images[row, None],
            targets[row, None],
            schedule,
            path=Guided(0.1).through(images[row, None]),
        )
        assert error(alone.maps, together.maps[row, None]) < 1e-12


def test_walks_of_as_many_steps_go_side_by_side(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """Of two schedules as of one alone; in as many steps as a micro-batch has room for both."""
    path = Guided(0.1).through(images)
    assert isinstance(path, GuidedPath)
    even, odd = linear_schedule(7), schedule_from_partition(UNEVEN, "left")
    requests = [(kind, schedule) for schedule in (even, odd) for kind in (RiemannSums, IdgiSums)]
    sizes: list[int] = []
    model = nn.Sequential(smooth_net).eval()
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    objective = Objective(model, targets, internal_batch_size=6)
    together = sums_along(path, objective, requests)
    assert sizes == [6] * 8  # seven gradients, and f at the image
    sizes.clear()
    by_turns = sums_along(path, replace(objective, internal_batch_size=5), requests)
    assert sizes == [3] * 16
    for one, other in zip(together, by_turns, strict=True):
        assert error(one.maps, other.maps) < 1e-12
        for value, expected in ((one.f_input, other.f_input), (one.f_baseline, other.f_baseline)):
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-14)
    assert error(together[0].maps, together[2].maps) > 1e-3


def test_images_without_a_path(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """An image at its baseline has a zero map, and leaves its neighbours alone; a constant image works."""
    model = OneByOne(smooth_net).eval()
    batch = torch.stack([images[0], torch.zeros_like(images[1]), torch.full_like(images[2], 0.5)])
    result = guided_ig(model, batch, targets, linear_schedule(8))
    assert not result.maps[1].any()
    alone = guided_ig(model, images[:1], targets[:1], linear_schedule(8))
    assert error(result.maps[:1], alone.maps) < 1e-12
    assert bool(torch.isfinite(result.maps[2]).all())
    assert bool(result.maps[2].any())


def test_a_gradient_is_taken_only_when_asked_for(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    calls: list[int] = []
    handle = smooth_net.register_forward_hook(lambda *_: calls.append(1))
    try:
        walk = walk_of(smooth_net, images, targets, linear_partition(5))
        assert len([*islice(walk, 5)]) == len(calls) == 5
        assert len([*walk]) == 1
        assert len(calls) == 6
    finally:
        handle.remove()


def test_a_variation_takes_a_gradient_a_step(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """None at the image, where the walk has ended; and two steps at least, to be compared."""
    calls: list[int] = []
    path = GuidedPath(StraightPath.from_black(images))
    handle = smooth_net.register_forward_hook(lambda *_: calls.append(1))
    try:
        variation = path_variation(path, Objective(smooth_net, targets), linear_partition(5))
    finally:
        handle.remove()
    assert variation.shape == (3, 5)
    assert len(calls) == 5
    with pytest.raises(ValueError, match=r"samples: expected at least 3, .* got 2"):
        path_variation(path, Objective(smooth_net, targets), linear_partition(1))


def test_broken_gradients_end_in_a_broken_map(images: Tensor, targets: Tensor) -> None:
    """NaN gradients neither hang the walk nor pass unseen."""

    class Undefined(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1)[:, :5] * torch.nan

    result = guided_ig(Undefined().eval(), images, targets, linear_schedule(3))
    assert bool(torch.isnan(result.maps.flatten(1).sum(1)).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": linear_schedule(4, "midpoint")}, "schedule"),
        ({"schedule": linear_schedule(4, "right")}, "schedule"),
        ({"schedule": linear_schedule(4, "gauss_legendre")}, "schedule"),
        ({"targets": torch.tensor([1])}, "targets"),
        ({"model": nn.Sequential(nn.Dropout(), nn.Flatten()).train()}, "model"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, object], message: str, smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    known = {"model": smooth_net, "images": images, "targets": targets, "schedule": linear_schedule(4)}
    with pytest.raises(ValueError, match=message):
        guided_ig(**{**known, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"max_dist": -0.1}, "max_dist"),
        ({"max_dist": 1.5}, "max_dist"),
        ({"closeness": -1e-9}, "closeness"),
        ({"closeness": 1.0}, "closeness"),
        ({"baseline": (0.0, 1.5, 0.0)}, "baseline"),
        ({"baseline": ()}, "baseline"),
    ],
)
def test_bad_walks_are_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        Guided(**fields)  # type: ignore[arg-type]


def test_a_map_and_its_converged_map_meet_the_same_corners_in_the_same_batches(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """Rounding decides where a walk goes, and what shares a batch decides the rounding."""
    schedules = [linear_schedule(n, "left") for n in (6, 4)]
    path, objective = Guided().through(images), Objective(smooth_net, targets)
    batches: list[Tensor] = []
    handle = smooth_net.register_forward_pre_hook(
        lambda _, inputs: batches.append(inputs[0].detach().clone()) if torch.is_grad_enabled() else None
    )
    sums_along(path, objective, [(RiemannSums, schedule) for schedule in schedules])
    walked = [*batches]
    batches.clear()
    references(path, objective, schedules, linear_partition(2))
    handle.remove()
    corners = [batch for batch in batches if len(batch) == len(images)]
    # A walk of the left rule needs no gradient at the image, where its reference ends.
    assert (len(walked), len(corners)) == (6 + 4, 7 + 5)
    assert all(map(torch.equal, walked, corners[:6] + corners[7:11]))

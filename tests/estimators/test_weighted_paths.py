"""Other weights and places of a path's samples, against the code of those who published them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.base import Placed, attribute_together, cost_together
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.methods import attribute, integrate_path
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import Blur, Guided, Straight
from riemannopt_dist.quadrature.placement.idg import released_schedule, sample_counts
from riemannopt_dist.quadrature.placement.non_uniform import interval_counts, non_uniform_schedule
from riemannopt_dist.quadrature.placement.output import OutputPlacement
from riemannopt_dist.quadrature.placement.table import OUTPUT_PLACEMENTS
from riemannopt_dist.quadrature.rules import linear_schedule, schedule_from_partition
from riemannopt_dist.run.grid import Cell, place_per_image
from riemannopt_dist.testing.problems import RISING

GOLDEN = Path(__file__).parents[1] / "golden" / "weighted_paths.npz"
SAMPLES = 24
OWN = OutputPlacement(
    lambda samples: np.array([0.0, 1.0]),
    lambda values, rule, samples: linear_schedule(samples + int(values[1] > values[0]), rule),
)
"""A sample more for an image whose output rises: a placement of the user's own."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def network(golden: dict[str, Tensor]) -> nn.Module:
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 5))
    network = nn.Sequential(*layers).double().eval()
    network.load_state_dict({name: golden[name] for name in network.state_dict()})
    return network


def attributed(network: nn.Module, golden: dict[str, Tensor], estimator: str, placement: str) -> Attribution:
    examples = (network, golden["images"], golden["targets"])
    return attribute(*examples, estimator=estimator, placement=placement, samples=SAMPLES)


@pytest.mark.parametrize(
    ("estimator", "placement", "expected", "factor"),
    [
        ("idg", "idg", "idg_maps", SAMPLES),
        ("idg", "idg_released", "idg_released", SAMPLES),
        ("left_ig", "linear", "left_ig", 1),
        ("path_weighted_late", "linear", "path_weighted_late", 1),
        ("path_weighted_early", "linear", "path_weighted_early", 1),
        ("path_weighted_middle", "linear", "path_weighted_middle", 1),
    ],
)
def test_maps_are_those_of_the_authors_code(
    network: nn.Module,
    golden: dict[str, Tensor],
    estimator: str,
    placement: str,
    expected: str,
    factor: float,
) -> None:
    """IDG's code divides its maps by the number of samples, which we do not."""
    found = attributed(network, golden, estimator, placement)
    scale = golden[expected].abs().max()
    torch.testing.assert_close(found.maps / factor, golden[expected], rtol=1e-6, atol=1e-9 * float(scale))
    assert found.gradient_evaluations.tolist() == [SAMPLES] * 4


def test_points_are_those_of_the_authors_sampling(network: nn.Module, golden: dict[str, Tensor]) -> None:
    """As released, and with the one line by which intervals without samples are passed."""
    images, targets = golden["images"], golden["targets"]
    alphas = torch.linspace(0, 1, SAMPLES, dtype=torch.float64)
    for row, target in enumerate(targets):
        values = network(alphas[:, None, None, None] * images[row]).softmax(1)[:, target].detach().numpy()
        for placement, expected in (("idg", "idg_points"), ("idg_released", "idg_released_points")):
            schedule = OUTPUT_PLACEMENTS[placement].schedule(values, "left", SAMPLES)
            np.testing.assert_allclose(schedule.points, golden[expected][row], rtol=0, atol=1e-12)
    assert not torch.equal(golden["idg_points"][1], golden["idg_released_points"][1])


def test_idg_tends_to_its_integral(network: nn.Module, golden: dict[str, Tensor]) -> None:
    """∫ g df/dα dα, df/dα being the sum of g over features."""
    images, targets = golden["images"], golden["targets"]
    alphas = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for row in range(2):
        inputs = (alphas[:, None, None, None] * images[row]).requires_grad_()
        f = network(inputs).softmax(1)[:, targets[row]]
        (gradients,) = torch.autograd.grad(f.sum(), inputs)
        integrand = gradients * images[row]
        expected = (integrand * integrand.sum((1, 2, 3), keepdim=True)).mean(0)
        found = attribute(network, images[row, None], targets[row, None], estimator="idg", samples=4000).maps[
            0
        ]
        assert (found - expected).abs().sum() < 0.002 * expected.abs().sum()


def test_left_ig_takes_the_path_until_nine_tenths_are_made(
    network: nn.Module, golden: dict[str, Tensor]
) -> None:
    """Completeness of a part: its sum is nearly nine tenths of the change. Of a falling output as well."""
    images = golden["images"]
    for target in (3, 1):  # one that rises from black, one that falls
        targets = torch.full((4,), target)
        found = attribute(network, images, targets, estimator="left_ig", samples=1000)
        made = found.maps.sum((1, 2, 3)) / (found.f_input - found.f_baseline)
        assert ((made > 0.85) & (made < 0.91)).all()


def test_a_weight_that_is_the_same_everywhere_is_integrated_gradients() -> None:
    from riemannopt_dist.estimators.path_weighted import weighted

    schedule = schedule_from_partition([0, 0.1, 0.4, 1], "trapezoid")
    assert weighted(schedule, np.ones_like).weights == pytest.approx(schedule.weights)
    late = weighted(schedule, lambda alphas: alphas)
    shares = np.array([0.1 * 0.1, 0.3 * 0.4, 0.6 * 1])
    assert late.weights[3] == pytest.approx(shares[2] / shares.sum() / 2)


def test_non_uniform_points_are_shared_out_by_the_root_of_the_change() -> None:
    """By hand: changes 0, 0.01, 0.64, 0.01 have the roots 0, 1, 8, 1, and no interval goes without."""
    assert interval_counts(np.array([0.0, 0.01, 0.64, 0.01]), 20).tolist() == [1, 2, 15, 2]
    assert interval_counts(np.zeros(4), 8).tolist() == [2, 2, 2, 2]
    assert interval_counts(np.array([0.0, 0.0, 1.0, 0.0]), 2).tolist() == [0, 0, 2, 0]
    values = np.array([0.0, 0.0, 0.01, 0.65, 0.66])
    schedule = non_uniform_schedule(values, "right", 20)
    expected = [0.25, 0.375, 0.5, *(0.5 + 0.25 * np.arange(1, 16) / 15), 0.875, 1.0]
    assert schedule.points == pytest.approx(expected)
    for samples in range(2, 12):
        few = non_uniform_schedule(values, "trapezoid", samples)
        assert len(few) == len(set(few.points)) == samples
    coarse = non_uniform_schedule(values, "left", 1)
    assert (coarse.points, coarse.weights) == ((0.0,), (1.0,))


class Square(nn.Module):
    """Two logits: the square of the image's sum, and its negative."""

    def forward(self, images: Tensor) -> Tensor:
        squares = images.flatten(1).sum(1) ** 2
        return torch.stack([squares, -squares], dim=1)


def test_a_map_of_non_uniform_samples_is_the_sum_by_hand() -> None:
    """f = α² changes by 1, 3, 5 and 7 sixteenths in the quarters.

    Of 8 samples their roots' shares are 1.05, 1.82, 2.35 and 2.78: 1, 2, 2 and 3 after rounding to the
    largest fractions. Σ 2 α Δα is 2 (1/16 + 7/64 + 11/64 + 11/48) with the right rule.
    """
    image, target = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.tensor([0])
    result = attribute(
        *(Square(), image, target),
        estimator="right",
        placement="non_uniform",
        samples=8,
        output="logit",
    )
    assert float(result.maps) == pytest.approx(55 / 48, rel=1e-12)
    assert float(result.f_input - result.f_baseline) == 1.0


def test_each_image_has_its_own_points(network: nn.Module, golden: dict[str, Tensor]) -> None:
    """The same map alone, in a batch, and from the schedule that its output makes."""
    images, targets = golden["images"], golden["targets"]
    together = attributed(network, golden, "softmax_trapezoid", "non_uniform")
    alone = attribute(
        network, images[2:3], targets[2:3], estimator="left", placement="non_uniform", samples=SAMPLES
    )
    objective = Objective(network, targets[2:3], internal_batch_size=5)
    path = StraightPath.from_black(images[2:3])
    values = Objective(network, targets[2:3].repeat(5)).values(
        torch.linspace(0, 1, 5, dtype=torch.float64)[:, None, None, None] * images[2]
    )
    schedule = non_uniform_schedule(values.numpy(), "left", SAMPLES)
    (expected,) = integrate_path(objective, path, [schedule])
    torch.testing.assert_close(alone.maps, expected.maps, rtol=1e-12, atol=1e-15)
    assert together.maps.shape == images.shape
    change = together.f_input - together.f_baseline
    torch.testing.assert_close(together.maps.sum((1, 2, 3)), change, rtol=0.02, atol=0)


def test_counts_sum_to_the_samples_whatever_the_output_does() -> None:
    rng = np.random.default_rng(0)
    for samples in (2, 3, 7, 16, 64):
        for values in (
            np.zeros(samples),
            np.arange(samples) / samples,
            -np.arange(samples) / samples,
            *rng.random((20, samples)),
            *(rng.random((20, samples)) ** 9),
        ):
            counts = sample_counts(values)
            assert counts.sum() == samples
            assert (counts >= 0).all()
            schedule = released_schedule(values, "left", samples)
            assert len(schedule) == samples
            assert np.sum(schedule.weights) == pytest.approx((counts > 0).mean())


@pytest.mark.parametrize("estimator", ["idg", "left_ig", "path_weighted_late", "left", "softmax_trapezoid"])
@pytest.mark.parametrize("placement", ["linear", "idg", "non_uniform"])
def test_the_plan_counts_what_is_asked_of_the_model(
    estimator: str, placement: str, network: nn.Module, golden: dict[str, Tensor]
) -> None:
    chosen, path = ESTIMATORS[estimator], Straight()
    if chosen.refusal(path, placement, SAMPLES) is not None:
        assert placement == "idg"
        return
    rule = chosen.rule(path)
    cell = Cell("ig", estimator, placement, SAMPLES)
    own = place_per_image(cell, rule)
    placed = own if cell.per_image else Placed(SAMPLES, linear_schedule(SAMPLES, rule))
    passes: list[int] = []
    handle = network.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    images, targets = golden["images"][:2], golden["targets"][:2]
    result = chosen.attribute(Objective(network, targets), path.through(images), placed)
    handle.remove()
    cost = cost_together(path, [(chosen, placed)], "probability", 32)
    assert sum(passes) <= 2 * (cost.gradients + cost.passes)
    assert sum(passes) >= 2 * (cost.gradients + cost.passes - 1)
    assert result.gradient_evaluations.tolist() == [cost.gradients] * 2


@pytest.mark.parametrize(
    ("estimator", "placement", "path", "samples", "words"),
    [
        ("left", "idg", Straight(), 16, "leaves out some of the path, is for idg"),
        ("idgi", "idg_released", Blur(), 16, "is for idg"),
        ("idg", "idg", Guided(), 16, "step by step"),
        ("left_ig", "linear", Guided(), 16, "step by step"),
        ("path_weighted_early", "linear", Guided(), 16, "step by step"),
        ("left", "non_uniform", Guided(), 16, "step by step"),
        ("rescale", "non_uniform", Straight(), 16, "sums of gradients"),
        ("mean", "non_uniform", Straight(), 16, "expected the placement linear"),
        ("idg", "idg", Straight(), 1, "at least 2"),
        ("path_weighted_early", "linear", Straight(), 2, "at least 3"),
        ("left_ig", "adaptive", Straight(), 16, "adaptive is for"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(
    estimator: str, placement: str, path: Straight | Blur | Guided, samples: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        attribute(
            nn.Identity(),
            torch.zeros(1, 3, 4, 4),
            torch.tensor([0]),
            path=path,
            estimator=estimator,
            placement=placement,
            samples=samples,
            profile=RISING,
        )


@pytest.mark.parametrize("size", [1, 5, 7, 64])
def test_they_share_samples_with_other_sums_whatever_the_micro_batches(
    network: nn.Module, golden: dict[str, Tensor], size: int
) -> None:
    """In one pass with equal intervals at other counts, as each alone."""
    path, objective = Straight().through(golden["images"]), Objective(network, golden["targets"])
    members = [
        (chosen, Placed(count, linear_schedule(count, chosen.rule(Straight()))))
        for chosen in map(ESTIMATORS.__getitem__, ("idg", "left_ig", "left", "path_weighted_late"))
        for count in (6, 12)
    ]
    small = Objective(network, golden["targets"], internal_batch_size=size)
    together = attribute_together(small, path, members)
    for (chosen, placed), found in zip(members, together, strict=True):
        alone = chosen.attribute(objective, path, placed)
        torch.testing.assert_close(found.maps, alone.maps, rtol=1e-9, atol=1e-13)


def test_a_placement_of_the_users_own_is_found_at_its_address(
    network: nn.Module, golden: dict[str, Tensor]
) -> None:
    """And a cell of it is fitted to no profile; an address of something else is none by the output."""
    images, targets = golden["images"][:2], torch.tensor([3, 1])
    found = attribute(network, images, targets, placement=f"{__name__}:OWN", samples=8)
    assert found.gradient_evaluations.tolist() == [9, 8]
    expected = attribute(network, images[:1], targets[:1], samples=9)
    torch.testing.assert_close(found.maps[:1], expected.maps)
    cell = Cell("ig", "left", f"{__name__}:OWN", 8)
    assert (cell.per_image, cell.fitted) == (True, False)
    other = Cell("ig", "left", f"{__name__}:SAMPLES", 8)
    assert (other.per_image, other.fitted) == (False, True)
    with pytest.raises(ValueError, match="profile: the placement non needs one"):
        attribute(network, images, targets, placement="non", samples=8)


def test_an_estimator_asks_for_the_ends_that_its_sums_ask_for() -> None:
    """IDGI weights by f at the neighbours of a sample, Left-IG by what f has to make, from end to end."""
    both, start = (0.0, 1.0), (0.0,)
    asked = {name: estimator.early for name, estimator in ESTIMATORS.items() if estimator.early}
    idgi = dict.fromkeys(("idgi", "idgi_right", "idgi_trapezoid"), both)
    assert asked == {**idgi, "left_ig": both, "softmax_trapezoid": start}

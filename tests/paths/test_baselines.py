"""Where paths begin, and what is averaged over several beginnings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.data.decoding import prepare_image
from riemannopt_dist.estimators.base import Placed, attribute_together, cost_together
from riemannopt_dist.estimators.converged import converge, references
from riemannopt_dist.estimators.expected_gradients import expected_gradients, turns_of
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.draws import Draws
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import Guided, Straight, path_family
from riemannopt_dist.quadrature.rules import linear_partition, linear_schedule
from riemannopt_dist.quadrature.variation import path_variation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of 9 × 7 noisy pixels."""
    rng = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    return tmp_path


def start_of(family: Straight, images: Tensor) -> Tensor:
    path = family.through(images)
    assert isinstance(path, StraightPath)
    return path.baselines


def test_each_baseline_is_what_it_is_called(images: Tensor, folder: Path) -> None:
    zero = torch.zeros(len(images), dtype=torch.float64)
    blurred = BlurPath(images, 50.0).at(torch.arange(len(images)), zero)[0]
    one = np.asarray(Image.open(folder / "2.png").resize((6, 6), Image.Resampling.BILINEAR)) / 255
    expected = {
        "black": torch.zeros_like(images),
        "white": torch.ones_like(images),
        0.25: torch.full_like(images, 0.25),
        (0.1, 0.2, 0.3): torch.tensor([0.1, 0.2, 0.3])[:, None, None].double().expand_as(images),
        "mean": images.flatten(2).mean(2)[..., None, None].expand_as(images),
        "blurred": blurred,
        str(folder / "2.png"): torch.from_numpy(one).permute(2, 0, 1).expand_as(images),
    }
    for baseline, start in expected.items():
        tolerance = 2 / 255 if isinstance(baseline, str) and baseline.endswith("png") else 1e-7
        torch.testing.assert_close(start_of(Straight(baseline), images), start, atol=tolerance, rtol=0)


def test_noise_is_another_picture_in_each_draw_and_the_same_for_all_images(images: Tensor) -> None:
    path = Straight("noise", draws=3).through(images)
    assert isinstance(path, Draws)
    starts = torch.stack([one.baselines for one in path.members if isinstance(one, StraightPath)])
    assert torch.equal(starts, starts[:, :1].expand_as(starts))
    assert torch.equal(starts[0], start_of(Straight("noise"), images))
    assert len({float(start.sum()) for start in starts}) == 3
    assert 0 <= float(starts.min()) < 0.1
    assert 0.9 < float(starts.max()) <= 1
    alone = Straight("noise", draws=3).through(images[1:].float())
    torch.testing.assert_close(alone.members[2].baselines, starts[2, 1:].float())  # type: ignore[union-attr]


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blurred", "noise", (0.2, 0.4, 0.6)])
@pytest.mark.parametrize("path", ["ig", "guided_ig"])
def test_maps_from_every_baseline_are_complete(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, path: str, baseline: str
) -> None:
    """To the error of 400 samples of a smooth function; f at the start is that at the baseline."""
    family = path_family(path, {"baseline": baseline})
    estimator, samples = ("trapezoid", 400) if path == "guided_ig" else ("gauss_legendre", 40)
    result = ro.attribute(smooth_net, images, targets, path=family, estimator=estimator, samples=samples)
    change = result.f_input - result.f_baseline
    torch.testing.assert_close(result.maps.flatten(1).sum(1), change, atol=2e-4, rtol=0)
    start = start_of(Straight(baseline), images)
    assert torch.allclose(result.f_baseline, ro.Objective(smooth_net, targets).values(start))


SEVERAL = [Straight("noise", draws=3), Guided(baseline="noise", draws=3)]


@pytest.mark.parametrize("family", SEVERAL, ids=lambda family: family.label)
def test_an_average_over_draws_is_that_of_a_loop(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, family: Straight | Guided
) -> None:
    """Maps of three estimators, f, costs, the converged map, and what a profile is made of."""
    objective = ro.Objective(smooth_net, targets)
    schedule = linear_schedule(5, "trapezoid")
    names = ["trapezoid", "idgi_trapezoid", *(() if family.walked else ("rescale",))]
    members = [(ESTIMATORS[name], Placed(5, schedule)) for name in names]
    draws = family.through(images)
    assert isinstance(draws, Draws)
    together = attribute_together(objective, draws, members)
    loop = [attribute_together(objective, one, members) for one in draws.members]
    cost = cost_together(family, members[:1], "probability", 32)
    for place, result in enumerate(together):
        singles = [results[place] for results in loop]
        expected = sum(single.maps for single in singles) / 3
        torch.testing.assert_close(result.maps, expected, rtol=1e-12, atol=1e-15)
        starts = sum(single.f_baseline for single in singles) / 3
        torch.testing.assert_close(result.f_baseline, starts, rtol=1e-12, atol=1e-15)
        assert int(result.gradient_evaluations[0]) == sum(int(s.gradient_evaluations[0]) for s in singles)
    assert cost.gradients == int(together[0].gradient_evaluations[0]) == 15
    (whole,) = references(draws, objective, [schedule], linear_partition(8))
    each = [references(one, objective, [schedule], linear_partition(8))[0].maps for one in draws.members]
    torch.testing.assert_close(whole.maps, sum(each) / 3, rtol=1e-12, atol=1e-15)
    alphas = np.linspace(0, 1, 5)
    variations = [path_variation(one, objective, alphas) for one in draws.members]
    np.testing.assert_allclose(path_variation(draws, objective, alphas), np.mean(variations, axis=0))


def sample_by_sample(net: nn.Module, images: Tensor, targets: Tensor, starts: list[Tensor]) -> Tensor:
    """Expected gradients of ten equal midpoints by a plain loop."""
    maps = torch.zeros_like(images)
    for turn, alpha in zip(turns_of(10, len(starts)), (np.arange(10) + 0.5) / 10, strict=True):
        place = (starts[turn] + alpha * (images - starts[turn])).requires_grad_()
        f = net(place).softmax(1).gather(1, targets[:, None]).sum()
        maps += torch.autograd.grad(f, place)[0] * (images - starts[turn]) / 10
    return maps


def test_expected_gradients_take_each_sample_from_the_baseline_whose_turn_it_is(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, folder: Path
) -> None:
    """Against a plain loop over the samples, on noise and on the images of a folder."""
    for family in (Straight("noise", draws=4), Straight(str(folder)), Straight(str(folder), draws=3)):
        paths = family.through(images)
        assert isinstance(paths, Draws)
        result = ro.attribute(
            smooth_net, images, targets, path=family, estimator="expected_gradients", samples=10
        )
        starts = [one.baselines for one in paths.members]  # type: ignore[union-attr]
        expected = sample_by_sample(smooth_net, images, targets, starts)
        torch.testing.assert_close(result.maps, expected, rtol=1e-9, atol=1e-13)
        assert result.gradient_evaluations.tolist() == [10] * len(images)
        f_starts = [ro.Objective(smooth_net, targets).values(start) for start in starts]
        torch.testing.assert_close(result.f_baseline, torch.stack(f_starts).mean(0))
    rounds = turns_of(10, 4)
    assert sorted(rounds[:4]) == sorted(rounds[4:8]) == [0, 1, 2, 3]


def test_lines_that_take_turns_may_have_a_baseline_for_each_image(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    starts = [images.flip(2) / 2, images.new_full((1, 1, 1, 1), 0.5).expand_as(images), images.roll(1, 0)]
    lines = [ro.StraightPath(images, start) for start in starts]
    schedule = ro.linear_schedule(10, "midpoint")
    result = expected_gradients(ro.Objective(smooth_net, targets), lines, schedule)
    torch.testing.assert_close(
        result.maps, sample_by_sample(smooth_net, images, targets, starts), rtol=1e-9, atol=1e-13
    )


def test_expected_gradients_tend_to_the_mean_over_all_baselines(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    family = Straight("noise", draws=4)
    draws = family.through(images)
    assert isinstance(draws, Draws)
    objective = ro.Objective(smooth_net, targets)
    exact = sum(converge(objective, one, 512).maps for one in draws.members) / 4  # type: ignore[arg-type]
    errors = []
    for samples in (16, 256):
        result = ro.attribute(
            smooth_net, images, targets, path=family, estimator="expected_gradients", samples=samples
        )
        errors.append(float((result.maps - exact).abs().sum() / exact.abs().sum()))
    assert errors[1] < errors[0] / 8  # 1/n, not 1/√n
    assert errors[1] < 0.01


def test_labels_tell_baselines_and_are_read_back(folder: Path) -> None:
    for label in (
        "ig",
        "ig(baseline=white)",
        "ig(baseline=0.25 0.5 0.75)",
        "ig(baseline=noise, draws=8)",
        "guided_ig(fraction=0.5, baseline=mean)",
        "blur_ig(sigma_max=20)",
    ):
        assert path_family(label).label == label
    assert path_family("ig", {"baseline": str(folder / "1.png")}).label == "ig(baseline=1.png)"


@pytest.mark.parametrize(
    ("baseline", "draws", "told"),
    [
        ("blak", None, r"^baseline: expected black, white, mean, blurred, noise, numbers in \[0, 1\], an"),
        ("white", 2, r"^draws: white is the same in every draw"),
        ("noise", 0, r"^draws: expected a whole number of at least 1, got 0"),
        ((0.5, 1.5), None, r"^baseline: expected numbers in \[0, 1\]"),
        (["a"], None, r"^baseline: expected numbers in \[0, 1\]"),
    ],
)
def test_what_is_no_baseline_is_told(baseline: object, draws: int | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Straight(baseline, draws)  # type: ignore[arg-type]


def test_the_grey_of_a_picture_is_that_of_images(tmp_path: Path) -> None:
    """Rec. 601's: 0.587 of green, of which a mean of the channels would make a third."""
    colours = np.eye(3, dtype=np.uint8)[np.random.default_rng(0).integers(0, 3, (6, 5))] * 255
    Image.fromarray(colours).save(tmp_path / "colours.png")
    grey = prepare_image(Image.fromarray(colours), (6, 5), (6, 5), 1)
    start = start_of(Straight(str(tmp_path / "colours.png")), torch.zeros(1, 1, 6, 5).double())
    torch.testing.assert_close(start[0], grey.double(), atol=1e-7, rtol=0)
    assert set(torch.round(start * 255).int().flatten().tolist()) == {76, 150, 29}


def test_pictures_that_are_not_there_or_none_are_told(folder: Path, images: Tensor) -> None:
    (folder / "no.png").write_text("no picture")
    for source, told in (
        (folder / "gone.png", "gone.png: "),
        (folder / "no.png", "no.png: not an image of a known format"),
        (folder / "empty/", "empty"),
    ):
        with pytest.raises(ValueError, match=told):
            Straight(str(source)).digest()
    with pytest.raises(ValueError, match=r"^draws: expected at most the 5 images of "):
        Straight(str(folder), draws=6).through(images)
    with pytest.raises(ValueError, match=r"expected a path from several baselines, .* got ig"):
        ro.attribute(nn.Identity(), images, torch.zeros(3), estimator="expected_gradients")

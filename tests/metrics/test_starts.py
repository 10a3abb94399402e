"""What stands in for pixels taken out: the start of the map's own path."""

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captums
from PIL import Image
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.metrics.infidelity import INFIDELITY, SQUARES, squares
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.metrics.sensitivity_n import SENSITIVITY_N, SHARES
from riemannopt_dist.metrics.starts import distinct_starts, start_of
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.paths.table import Blur, Guided, Straight


@pytest.fixture
def paths(tmp_path: Path) -> list[PathFamily]:
    """From every kind of baseline, one of them met twice; the last is Blur IG's."""
    rng = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    named = [Straight(one) for one in ("black", "white", "mean", "blurred", (0.2, 0.4, 0.6))]
    several = [Straight("noise", draws=3), Straight(str(tmp_path)), Guided(baseline="noise", draws=2)]
    return [*named, *several, Guided(baseline="mean"), Blur(2.0)]


def batch_along(
    paths: list[PathFamily], net: nn.Module, images: Tensor, targets: Tensor, control: bool = False
) -> MapBatch:
    """The maps of a logit along paths, and one of noise that has none."""
    maps = [
        ro.attribute(net, images, targets, path=path, estimator="trapezoid", samples=800, output="logit").maps
        for path in paths
    ]
    chance = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    objective = Objective(net, targets, "logit")
    f = objective.values(images)
    return MapBatch(
        objective,
        images,
        torch.stack([*maps, *([chance] if control else [])]),
        f_input=f,
        f_baseline=f[None],
        seed=4,
        paths=[*paths, *([None] if control else [])],
    )


def test_a_linear_model_is_foretold_from_wherever_the_path_begins(
    linear_net: nn.Module, images: Tensor, targets: Tensor, paths: list[PathFamily]
) -> None:
    """To rounding; along Blur IG's path to the jumps that no derivative sees."""
    batch = batch_along(paths, linear_net, images, targets)
    error = INFIDELITY.compute(batch)["infidelity"]
    curve = SENSITIVITY_N.compute(batch)["sensitivity_n_by_share"]
    assert isinstance(error, Tensor)
    assert isinstance(curve, Tensor)
    assert float(error[:-1].max()) < 1e-20
    torch.testing.assert_close(curve[:-1], torch.ones(len(paths) - 1, 3, len(SHARES), dtype=torch.float64))
    assert float(error[-1].max()) < 1e-5
    assert float(curve[-1].min()) > 0.999


def test_starts_are_those_of_the_paths_and_each_is_looked_at_once(
    images: Tensor, paths: list[PathFamily]
) -> None:
    starts = distinct_starts([*paths, None, Guided()], images)
    assert [one.places for one in starts] == [[0, 10, 11], [1], [2, 8], [3], [4], [5], [6], [7], [9]]
    assert torch.equal(starts[0].images, torch.zeros_like(images))
    assert torch.equal(starts[1].images, torch.ones_like(images))
    noise = [start_of(Straight("noise", draws=n).through(images)) for n in (1, 2)]
    torch.testing.assert_close(starts[7].images, noise[1])
    second = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(2 * noise[1] - noise[0], second.expand_as(images))
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(starts[8].images, ro.BlurPath(images, 2.0).at(torch.arange(3), zero)[0])


def test_infidelity_is_captums_with_a_perturbation_to_the_baseline(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    baselines = images.mean((2, 3), keepdim=True).expand_as(images)
    maps = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = torch.zeros(len(images), dtype=torch.float64)
    for removed in squares(images, 3):
        expected += captums(
            lambda x: smooth_net(x).softmax(1),
            lambda x, removed=removed: (removed.expand_as(x).to(x), torch.where(removed, baselines, x)),
            images,
            maps,
            target=targets,
            n_perturb_samples=1,
        )
    found = ro.infidelity(Objective(smooth_net, targets), images, maps, baselines=baselines, seed=3)
    torch.testing.assert_close(found, expected / SQUARES, rtol=1e-9, atol=1e-15)


def test_each_map_has_what_it_has_alone(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, paths: list[PathFamily]
) -> None:
    """Whatever maps are beside it; the public functions give it for a start, and black without one."""
    chosen = [paths[1], paths[0], paths[2]]
    batch = batch_along(chosen, smooth_net, images, targets, control=True)
    starts = [torch.ones_like(images), None, images.mean((2, 3), keepdim=True).expand_as(images), None]
    error = INFIDELITY.compute(batch)["infidelity"]
    curve = SENSITIVITY_N.compute(batch)["sensitivity_n_by_share"]
    for place, start in enumerate(starts):
        given = (batch.objective, images, batch.maps[place])
        torch.testing.assert_close(error[place], ro.infidelity(*given, baselines=start, seed=4))  # type: ignore[index]
        torch.testing.assert_close(curve[place], ro.sensitivity_n(*given, baselines=start, seed=4))  # type: ignore[index]
    with pytest.raises(ValueError, match="baselines: expected the images' shape"):
        ro.infidelity(*given, baselines=images[:1])

"""Blur IG's path: SciPy's Gaussian blur, its derivative, and PAIR's maps on a real classifier."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from riemannopt_dist.methods import integrate_path
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path as AttributionPath
from riemannopt_dist.paths.blur import (
    CONVENTIONS,
    PARAMETRIZATIONS,
    BlurPath,
    fold,
    folded_toeplitz,
    gaussian_taps,
    unfold,
)
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.quadrature.schedule import Schedule

SIGMAS = (50.0, 20.0, 12.3, 5.0, 2.6, 1.37, 0.9, 0.4, 0.13, 0.125, 0.124, 0.1, 0.0)
SHAPES = ((224, 224), (31, 20), (20, 31), (5, 6), (1, 7), (1, 1))


def noise(height: int, width: int) -> Tensor:
    """Two random images (2, 3, height, width), float64 in [0, 1]."""
    generator = torch.Generator().manual_seed(5)
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=generator)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """SciPy's blur of images (B, C, H, W)."""
    result = gaussian_filter(images.numpy(), sigma=(0, 0, sigma, sigma), mode="constant", truncate=4)
    return torch.from_numpy(result)


def at_sigmas(path: BlurPath, sigmas: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """γ and dγ/dα of both images at each σ: (2, S, C, H, W) each."""
    rows = torch.arange(2).repeat_interleave(len(sigmas))
    alphas = (1 - torch.tensor(sigmas, dtype=torch.float64) / path.sigma_max).repeat(2)
    blur, velocity = path.at(rows, alphas)
    return blur.unflatten(0, (2, len(sigmas))), velocity.unflatten(0, (2, len(sigmas)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_blur_is_scipys(shape: tuple[int, int]) -> None:
    images = noise(*shape)
    double, _ = at_sigmas(BlurPath(images), SIGMAS)
    single, _ = at_sigmas(BlurPath(images.float()), SIGMAS)
    for column, sigma in enumerate(SIGMAS):
        expected = blurred(images, sigma)
        torch.testing.assert_close(double[:, column], expected, rtol=0, atol=1e-13)
        torch.testing.assert_close(single[:, column].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_path_runs_from_the_blurred_image_to_the_image(parametrization: str, convention: str) -> None:
    for dtype in (torch.float32, torch.float64):
        images = noise(9, 12).to(dtype)
        path = BlurPath(images, 7.0, parametrization=parametrization, convention=convention)  # type: ignore[arg-type]
        rows = torch.arange(2)
        start, _ = path.at(rows, torch.zeros(2))
        torch.testing.assert_close(start, blurred(images.double(), 7.0).to(dtype), rtol=0, atol=1e-6)
        end, velocity = path.at(rows, torch.ones(2))
        assert torch.equal(end, images)
        assert not velocity.any()


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_velocity_is_the_derivative_along_the_path(parametrization: str) -> None:
    """Central differences of fourth order, at positions with no change of radius nearby."""
    path = BlurPath(noise(23, 14), 6.0, parametrization=parametrization)  # type: ignore[arg-type]
    alphas = torch.tensor([0.03, 0.27, 0.51, 0.78], dtype=torch.float64)
    rows, step = torch.tensor([0, 1, 1, 0]), 1e-4
    sigma, _ = PARAMETRIZATIONS[parametrization](torch.stack([alphas - 2 * step, alphas + 2 * step]), 6.0)
    radii = (4 * sigma + 0.5).floor()
    assert torch.equal(radii[0], radii[1])
    _, velocity = path.at(rows, alphas)
    near, far = (path.at(rows, alphas + k * step)[0] - path.at(rows, alphas - k * step)[0] for k in (1, 2))
    expected = (8 * near - far) / (12 * step)
    torch.testing.assert_close(velocity, expected, rtol=0, atol=1e-9)


def test_velocity_keeps_float32s_accuracy() -> None:
    """The original's difference too: subtracting two float32 blurs would leave three digits at σ = 50."""
    images = noise(224, 224)
    for convention in CONVENTIONS:
        _, double = at_sigmas(BlurPath(images, convention=convention), SIGMAS)
        _, single = at_sigmas(BlurPath(images.float(), convention=convention), SIGMAS)
        scale = double.abs().amax((2, 3, 4), keepdim=True)
        assert float(((single - double).abs() / scale.clamp_min(1e-12)).max()) < 2e-6, convention


def test_original_velocity_is_scipys_forward_difference() -> None:
    """With σ = 0 giving exactly nothing, and a radius that changes inside the step counted in."""
    images = noise(31, 20)
    sigmas = (*SIGMAS, 0.62, 4.87)  # the radius grows at 0.625 and at 4.875
    _, velocity = at_sigmas(BlurPath(images, convention="original"), sigmas)
    for column, sigma in enumerate(sigmas):
        expected = -50 * (blurred(images, sigma + 0.01) - blurred(images, sigma)) / 0.01
        torch.testing.assert_close(velocity[:, column], expected, rtol=0, atol=1e-9)
    assert not velocity[:, SIGMAS.index(0.0)].any()


@pytest.mark.parametrize(("truncate", "missed"), [(4.0, 0.01), (5.0, 1e-4), (6.0, 1e-6)])
def test_the_velocity_adds_up_to_the_path_but_for_the_kernels_jumps(truncate: float, missed: float) -> None:
    """∫ dγ/dα dα = γ(1) − γ(0) up to exp(−truncate²/2) for each tap gained; midpoint rule in √σ."""
    images, sigma_max, steps = noise(12, 10)[:1], 8.0, 2000
    path = BlurPath(images, sigma_max, truncate)
    root = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    _, velocity = path.at(torch.zeros(steps, dtype=torch.int64), 1 - root**2)
    total = (velocity * (2 * root / steps)[:, None, None, None]).sum(0)
    start, _ = path.at(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64))
    expected = images - start
    assert float((total - expected).abs().sum() / expected.abs().sum()) < missed


def test_taps_sum_to_one_and_slopes_to_zero() -> None:
    sigmas = torch.tensor(SIGMAS, dtype=torch.float64)
    taps, slopes = gaussian_taps(sigmas, torch.arange(202, dtype=torch.float64), 4.0)
    torch.testing.assert_close(2 * taps.sum(1) - taps[:, 0], torch.ones_like(sigmas))
    torch.testing.assert_close(2 * slopes.sum(1) - slopes[:, 0], torch.zeros_like(sigmas), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 10])
def test_folding_halves_a_toeplitz_product(size: int) -> None:
    """unfold undoes fold, and between them half-size products are the whole product."""
    generator = torch.Generator().manual_seed(2)
    taps, x = torch.rand(size + 1, generator=generator), torch.rand(size, 3, generator=generator)
    torch.testing.assert_close(unfold(fold(x, 0), 0, size), x)
    matrix = torch.stack([torch.stack([taps[abs(i - j)] for j in range(size)]) for i in range(size)])
    halves = folded_toeplitz(taps[None], (size + 1) // 2)
    torch.testing.assert_close(unfold(halves @ fold(x, 0), 0, size), matrix @ x)


def test_a_batch_mixes_images_and_positions() -> None:
    path = BlurPath(noise(13, 13), 9.0)
    rows, alphas = torch.tensor([1, 0, 1, 1]), torch.tensor([0.1, 0.9, 0.9, 0.5], dtype=torch.float64)
    mixed = path.at(rows, alphas)
    for item in range(4):
        alone = path.at(rows[item, None], alphas[item, None])
        for together, single in zip(mixed, alone, strict=True):
            torch.testing.assert_close(together[item], single[0], rtol=0, atol=1e-12)


class InSingle(nn.Module):
    """A float32 network on float64 images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.float()).double()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """PAIR's IG and Blur IG of two photos: see golden/make_saliency_golden.py."""
    with np.load(Path(__file__).parents[1] / "golden" / "fixed_paths.npz") as arrays:
        return dict(arrays)


def test_original_maps_of_a_real_classifier_are_pairs(
    golden: dict[str, np.ndarray], classifier: nn.Module
) -> None:
    """IG averages 25 gradients with both ends weighted fully; Blur IG is the right rule in our α.

    The paths are float64, as PAIR's were, but the network is float32: its kinks turn another processor's
    rounding into 1e-3 of the map.
    """
    photos = torch.from_numpy(golden["photos"]).permute(0, 3, 1, 2).double() / 255
    targets = torch.from_numpy(golden["targets"])
    mean_of_25 = linear_schedule(25, "mean")
    cases: dict[str, tuple[AttributionPath, Schedule]] = {
        "ig": (StraightPath.from_black(photos), mean_of_25),
        "blur_ig": (BlurPath(photos, convention="original"), linear_schedule(20, "right")),
    }
    for name, (path, schedule) in cases.items():
        (result,) = integrate_path(
            Objective(InSingle(classifier).eval(), targets, internal_batch_size=5), path, [schedule]
        )
        expected = torch.from_numpy(golden[name])
        difference = (result.maps.sum(1) - expected).flatten(1).abs().sum(1)
        assert float((difference / expected.flatten(1).abs().sum(1)).max()) < 4e-3, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.ones(3, 4, 4)}, "images"),
        ({"images": torch.full((1, 3, 4, 4), torch.inf)}, "images"),
        ({"sigma_max": 0.0}, "sigma_max"),
        ({"sigma_max": float("nan")}, "sigma_max"),
        ({"truncate": -1.0}, "truncate"),
        ({"parametrization": "time"}, "parametrization"),
        ({"convention": "theirs"}, "convention"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    known = {"images": torch.ones(1, 3, 4, 4)}
    with pytest.raises(ValueError, match=message):
        BlurPath(**{**known, **arguments})  # type: ignore[arg-type]

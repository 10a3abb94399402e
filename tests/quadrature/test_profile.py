"""Algorithm 1 against hand values, and profiles as means over images in pieces."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.estimation import estimate_profile
from riemannopt_dist.quadrature.profile import AVERAGES, Average, Profile, equispaced, profile_from_variations
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.quadrature.variation import path_variation
from riemannopt_dist.testing.problems import PROFILES

Numbers = tuple[float, ...]


class PowerSum(nn.Module):
    """Logits (Σ_i a_i x_i^p / p, 0): along the path from black g_i(α) = a_i x_i^p α^{p−1}."""

    def __init__(self, factors: Tensor, power: int) -> None:
        super().__init__()
        self.factors, self.power = factors, power

    def forward(self, images: Tensor) -> Tensor:
        score = (self.factors * images**self.power / self.power).flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return torch.randn(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def first() -> Tensor:
    """The first class, for three images."""
    return torch.zeros(3, dtype=torch.int64)


def test_an_integrand_that_is_a_straight_line_has_a_constant_profile(
    images: Tensor, first: Tensor, factors: Tensor
) -> None:
    # g_i = a_i x_i² α, so |g′_i| = |a_i| x_i² everywhere.
    profile = estimate_profile(
        Objective(PowerSum(factors, 2), first, output="logit"), images, samples=17, average="mean"
    )
    expected = (factors.abs() * images**2).flatten(1).mean(1)
    np.testing.assert_allclose(profile.magnitudes, float(expected.mean()), rtol=1e-12)
    np.testing.assert_allclose(profile.standard_errors, float(expected.std() / math.sqrt(3)), rtol=1e-9)
    np.testing.assert_allclose(profile.points, (np.arange(16) + 0.5) / 16, rtol=1e-14)
    assert profile.images == 3


def test_an_integrand_that_is_a_parabola_has_the_slope_at_the_middles(
    images: Tensor, first: Tensor, factors: Tensor
) -> None:
    # g_i = a_i x_i³ α²; a divided difference of α² is 2 α at the middle, exactly.
    profile = estimate_profile(
        Objective(PowerSum(factors, 3), first, output="logit"), images, samples=9, average="mean"
    )
    expected = 2 * np.array(profile.points) * float((factors.abs() * images**3).mean())
    np.testing.assert_allclose(profile.magnitudes, expected, rtol=1e-12)


def test_uneven_positions_divide_by_their_own_gaps(images: Tensor, first: Tensor, factors: Tensor) -> None:
    alphas = np.array([0.0, 0.5, 0.6, 0.95, 1.0])
    path = StraightPath.from_black(images)
    found = path_variation(path, Objective(PowerSum(factors, 3), first, output="logit"), alphas)
    scale = (factors.abs() * images**3).flatten(1).mean(1).numpy()
    np.testing.assert_allclose(found, scale[:, None] * (alphas[1:] + alphas[:-1]), rtol=1e-12)


def test_the_probability_of_a_linear_model_by_hand(images: Tensor, first: Tensor, factors: Tensor) -> None:
    # p = σ(α s) with s = Σ a_i x_i, so g_i = a_i x_i σ′(α s).
    profile = estimate_profile(Objective(PowerSum(factors, 1), first), images, samples=33, average="mean")
    scores = (factors * images).flatten(1)
    sigmoid = torch.sigmoid(scores.sum(1)[:, None] * torch.linspace(0, 1, 33, dtype=torch.float64))
    rises = (sigmoid * (1 - sigmoid)).diff(dim=1).abs() * 32
    expected = (scores.abs().mean(1)[:, None] * rises).mean(0)
    np.testing.assert_allclose(profile.magnitudes, expected.numpy(), rtol=1e-9)


@pytest.mark.parametrize("internal_batch_size", [1, 2, 4, 7, 8, 20])
def test_micro_batches_and_the_seams_between_images_change_nothing(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, internal_batch_size: int
) -> None:
    path, alphas = StraightPath.from_black(images), equispaced(7)
    together = path_variation(path, Objective(smooth_net, targets, internal_batch_size=21), alphas)
    found = path_variation(
        path, Objective(smooth_net, targets, internal_batch_size=internal_batch_size), alphas
    )
    np.testing.assert_allclose(found, together, rtol=1e-10)


def test_a_batch_of_images_is_each_image_alone(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    alphas = equispaced(5)
    together = path_variation(StraightPath.from_black(images), Objective(smooth_net, targets), alphas)
    alone = [
        path_variation(StraightPath.from_black(image[None]), Objective(smooth_net, target[None]), alphas)
        for image, target in zip(images, targets, strict=True)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-10)


@st.composite
def variations(draw: st.DrawFn) -> Array:
    """Magnitudes of 2 to 40 images at 3 positions, near a common offset that may be large."""
    seed, images = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 40))
    offset = draw(st.sampled_from([0.0, 1.0, 1e6]))
    return offset + np.random.default_rng(seed).exponential(size=(images, 3))


@given(values=variations())
def test_the_mean_and_its_standard_error(values: Array) -> None:
    profile = profile_from_variations(equispaced(4), values, "mean")
    np.testing.assert_allclose(profile.magnitudes, values.mean(axis=0), rtol=1e-12)
    expected = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    np.testing.assert_allclose(profile.standard_errors, expected, rtol=1e-7)
    assert (profile.images, profile.average) == (len(values), "mean")


def test_averages_of_normalised_images_by_hand() -> None:
    # ∫|g′| is 2, 20 and 4; in its units the images are (½, 3/2), (3/2, ½), (½, 3/2), and the fourth none.
    values = [[1.0, 3.0], [30.0, 10.0], [2.0, 6.0], [0.0, 0.0]]
    given = ([0.0, 0.5, 1.0], values)
    mean = profile_from_variations(*given, "normalised_mean")
    assert mean.magnitudes == pytest.approx([5 / 6, 7 / 6])
    assert mean.standard_errors == pytest.approx([1 / 3, 1 / 3])
    median = profile_from_variations(*given, "normalised_median")
    assert median.magnitudes == (0.5, 1.5)
    for profile in (mean, median):
        assert profile.medians == (0.25, 0.75)  # shares of the variation
        assert profile.roughness == pytest.approx([11 / 4 / 2 / 4, 19 / 4 / 2 / 4])
        assert (profile.points, profile.images) == ((0.25, 0.75), 4)


def test_uneven_intervals_weigh_by_their_length() -> None:
    # ∫|g′| = 0.2 · 4 + 0.8 · 1.
    profile = profile_from_variations([0.0, 0.2, 1.0], [[4.0, 1.0]], "normalised_mean")
    assert profile.magnitudes == pytest.approx([2.5, 0.625])
    assert profile.medians is None  # those are of equal intervals


def test_the_medians_error_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(4)
    drawn = [
        profile_from_variations(equispaced(4), rng.exponential(size=(200, 3)), "normalised_median")
        for _ in range(300)
    ]
    spread = np.std([profile.magnitudes for profile in drawn], axis=0)
    stated = np.mean([profile.standard_errors for profile in drawn], axis=0)
    np.testing.assert_allclose(stated, spread, rtol=0.15)


@pytest.mark.parametrize("average", AVERAGES)
def test_images_that_do_not_vary_have_a_profile_of_zeros(average: Average) -> None:
    profile = profile_from_variations(equispaced(4), np.zeros((2, 3)), average)
    assert (profile.magnitudes, profile.medians, profile.images) == ((0.0,) * 3, (0.0,) * 3, 2)


@pytest.mark.parametrize("average", AVERAGES)
def test_one_image_has_a_profile_without_standard_errors(average: Average) -> None:
    profile = profile_from_variations([0.0, 0.5, 1.0], [[0.5, 1.5]], average)
    assert profile.magnitudes == (0.5, 1.5)
    assert np.isnan(profile.standard_errors).all()


@pytest.mark.parametrize(
    ("alphas", "values", "complaint"),
    [
        ([0.0], np.ones((2, 0)), "alphas: expected at least 2 increasing positions"),
        ([0.0, 0.5, 0.5], np.ones((2, 2)), "alphas: expected at least 2 increasing positions"),
        ([0.0, 0.5, 1.5], np.ones((2, 2)), r"increasing positions in \[0, 1\]"),
        ([0.0, math.nan, 1.0], np.ones((2, 2)), r"increasing positions in \[0, 1\]"),
        ([[0.0, 1.0]], np.ones((2, 1)), "alphas: expected at least 2 increasing positions"),
        ([0.0, 0.5, 1.0], np.ones((2, 3)), r"variations: expected \(images, 2\), got \(2, 3\)"),
        ([0.0, 0.5, 1.0], np.ones(2), r"variations: expected \(images, 2\), got \(2,\)"),
        ([0.0, 0.5, 1.0], np.ones((0, 2)), "variations: expected at least one image, got none"),
        ([0.0, 0.5, 1.0], [[1.0, -1.0]], "variations: expected finite values of at least 0"),
        ([0.0, 0.5, 1.0], [[1.0, math.nan]], "variations: expected finite values of at least 0"),
    ],
)
def test_bad_variations_are_refused_by_name(alphas: object, values: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        profile_from_variations(alphas, values)  # type: ignore[arg-type]


def test_a_profile_is_linear_between_its_points_and_constant_beyond() -> None:
    profile = Profile((0.25, 0.75), (1.0, 3.0), (0.0, 0.0), 1)
    np.testing.assert_array_equal(profile([0.0, 0.25, 0.5, 0.75, 1.0]), [1.0, 1.0, 2.0, 3.0, 3.0])


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_json_round_trip_is_exact(profile: Profile) -> None:
    assert Profile.from_json(profile.to_json()) == profile


@pytest.mark.parametrize("average", AVERAGES)
def test_a_json_round_trip_keeps_the_average_and_the_medians(average: Average) -> None:
    values = np.random.default_rng(0).exponential(size=(5, 7))
    profile = profile_from_variations(equispaced(8), values, average)
    again = Profile.from_json(profile.to_json())
    assert again == profile
    assert (again.average, len(again.medians or ())) == (average, 7)


def test_a_profile_stored_before_there_were_medians_has_none() -> None:
    stored = '{"points": [0.5], "magnitudes": [1.0], "standard_errors": [null], "images": 1}'
    profile = Profile.from_json(stored)
    assert (profile.medians, profile.average) == (None, "mean")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"medians": (1.0, -1.0)}, "expected finite medians of at least 0"),
        ({"medians": (math.inf,)}, "expected finite medians of at least 0"),
        ({"medians": ()}, "expected finite medians of at least 0"),
        ({"average": "mode"}, "average: expected one of mean, .*, got 'mode'"),
    ],
)
def test_bad_medians_and_averages_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Profile((0.5,), (1.0,), (0.0,), 1, **changes)  # type: ignore[arg-type]


def test_a_json_round_trip_keeps_missing_standard_errors() -> None:
    profile = Profile((0.5,), (0.1,), (math.nan,), 1)
    assert json.loads(profile.to_json())["standard_errors"] == [None]  # JSON has no NaN
    again = Profile.from_json(profile.to_json())
    assert (again.points, again.magnitudes, again.images) == ((0.5,), (0.1,), 1)
    assert np.isnan(again.standard_errors).all()


@pytest.mark.parametrize(
    ("points", "magnitudes", "errors", "complaint"),
    [
        ((), (), (), "got 0 points"),
        ((0.1, 0.2), (1.0,), (0.0, 0.0), "got 2 points, 1 magnitudes, 2 errors"),
        ((0.1, 0.2), (1.0, 1.0), (0.0,), "got 2 points, 2 magnitudes, 1 errors"),
        ((0.2, 0.1), (1.0, 1.0), (0.0, 0.0), r"increasing points in \[0, 1\]"),
        ((0.2, 0.2), (1.0, 1.0), (0.0, 0.0), r"increasing points in \[0, 1\]"),
        ((0.2, 1.1), (1.0, 1.0), (0.0, 0.0), r"increasing points in \[0, 1\]"),
        ((0.2, math.nan), (1.0, 1.0), (0.0, 0.0), r"increasing points in \[0, 1\]"),
        ((0.1, 0.2), (1.0, -1.0), (0.0, 0.0), "magnitudes of at least 0"),
        ((0.1, 0.2), (1.0, math.nan), (0.0, 0.0), "finite magnitudes"),
    ],
)
def test_bad_profiles_are_refused_by_name(
    points: Numbers, magnitudes: Numbers, errors: Numbers, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Profile(points, magnitudes, errors, 1)


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"points": 1}'])
def test_json_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="profile"):
        Profile.from_json(text)


def test_bad_arguments_are_refused_by_name(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"path: expected one of ig.*, got 'magic'"):
        estimate_profile(Objective(smooth_net, targets), images, path="magic")
    with pytest.raises(ValueError, match=r"average: expected one of mean, .*, got 'mode'"):
        estimate_profile(Objective(smooth_net, targets), images, average="mode")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"samples: .* got 1"):
        estimate_profile(Objective(smooth_net, targets), images, samples=1)
    with pytest.raises(ValueError, match=r"targets: .* shape"):
        estimate_profile(Objective(smooth_net, targets[:2]), images)
    with pytest.raises(ValueError, match="images: "):
        estimate_profile(Objective(smooth_net, targets), images[0])

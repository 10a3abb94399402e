from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from riemannopt_dist.metrics.insertion import (
    DELETION,
    INSERTION,
    Curve,
    Replacement,
    deletion,
    insertion,
    official_counts,
    pixel_ranks,
    replacement_curves,
    rise_blur,
    rise_counts,
    smoothed,
    smoothed_insertion,
)
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.objective import Objective


class OnePixel(nn.Module):
    """Two classes; the logit of class 0 is 10 times the red of one pixel, the other 0."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def forward(self, images: Tensor) -> Tensor:
        logit = 10 * images[:, 0, self.row, self.column]
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


class Mean(nn.Module):
    """Logits: the mean of the image, and 0."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([mean, torch.zeros_like(mean)], dim=1)


def white(size: int) -> Tensor:
    return torch.ones(1, 3, size, size, dtype=torch.float64)


TARGET = torch.tensor([0])


def test_the_logit_of_a_linear_model_rises_by_what_is_inserted() -> None:
    """A white 20 × 20 image and the mean: 0, 0.05, …, 1 whatever the order, area 1/2."""
    maps = torch.rand(1, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rising = insertion(Objective(Mean(), TARGET, output="logit"), white(20), maps)
    assert_allclose(rising.curve[0], np.linspace(0, 1, 21), atol=1e-12)
    assert_allclose(rising.score, [0.5])
    falling = deletion(Objective(Mean(), TARGET, output="logit"), white(20), maps)
    assert_allclose(falling.curve[0], np.linspace(1, 0, 21), atol=1e-12)
    assert_allclose(falling.score, [0.5])
    assert_allclose(falling.f_input, [1.0])


@pytest.mark.parametrize(("place", "step"), [(0, 1), (19, 1), (20, 2), (150, 8), (399, 20)])
def test_a_one_pixel_model_jumps_at_the_step_that_shows_its_pixel(place: int, step: int) -> None:
    """400 pixels, 20 a step: the pixel ranked `place` appears at step ⌊place / 20⌋ + 1."""
    ranked = torch.arange(400, 0, -1, dtype=torch.float64).view(1, 1, 20, 20).expand(-1, 3, -1, -1)
    model = OnePixel(*divmod(place, 20))
    dark, bright = 0.5, torch.tensor(10.0).double().sigmoid().item()
    result = insertion(Objective(model, TARGET), white(20), ranked)
    assert_allclose(result.curve[0], [dark] * step + [bright] * (21 - step))
    area = ((step - 0.5) * dark + (20.5 - step) * bright) / 20
    assert_allclose(result.score, [area])
    assert_allclose(result.normalized, [area / bright])
    removed = deletion(Objective(model, TARGET), white(20), ranked)
    assert_allclose(removed.curve[0], [bright] * step + [dark] * (21 - step))
    assert_allclose(removed.normalized, removed.score / bright)


def test_equal_pixels_are_ranked_in_row_major_order() -> None:
    assert_array_equal(pixel_ranks(torch.zeros(2, 50, 40))[1].flatten(), np.arange(2000))
    five = torch.randint(5, (4, 60, 70), generator=torch.Generator().manual_seed(3)).float()
    for saliency, ranks in zip(five.numpy(), pixel_ranks(five).numpy(), strict=True):
        order = np.lexsort((np.arange(saliency.size), -saliency.ravel()))
        assert_array_equal(ranks.ravel()[order], np.arange(saliency.size))


def test_pixels_are_ranked_by_the_absolute_channel_sum() -> None:
    maps = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    maps[0, :, 0, 0] = torch.tensor([5.0, -5.0, 0.0])  # 0
    maps[0, :, 0, 1] = torch.tensor([1.0, 1.0, 0.0])  # 2
    maps[0, :, 1, 0] = torch.tensor([-3.0, 0.0, 0.0])  # 3
    maps[0, :, 1, 1] = torch.tensor([0.0, 0.0, 1.0])  # 1
    order = ((1, 0), (0, 1), (1, 1), (0, 0))
    for place, (row, column) in enumerate(order):
        curve = insertion(Objective(OnePixel(row, column), TARGET), white(2), maps).curve[0]
        assert int((curve < 0.9).sum()) == 5 * (place + 1)


def test_counts_are_rounded_down_and_reach_every_pixel() -> None:
    assert official_counts(50176) == (np.arange(21) * 50176 // 20).tolist()
    assert official_counts(7) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7]
    assert len(rise_counts(224 * 224)) == 225
    assert rise_counts(500) == [0, 224, 448, 500]
    assert rise_counts(448) == [0, 224, 448]


def test_normalized_is_not_clipped_and_nan_where_the_input_scores_zero() -> None:
    curve = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.2, 0.0]])
    result = Curve(torch.tensor([0.0, 0.5, 1.0]), curve, curve[:, -1])
    assert_allclose(result.score, [0.625, 0.1])
    assert_allclose(result.normalized, [1.25, np.nan])


def test_normalized_is_nan_where_the_input_scores_zero_but_for_rounding() -> None:
    """Beside a curve up to 1/2, f(x) of 1e-7 is the rounding of float32, in float64 a number."""
    curve = torch.tensor([[0.0, 0.5, 1e-7], [0.0, 0.5, -1e-7], [0.0, 2e-7, 1e-7], [0.0, 0.5, 1e-3]])
    fractions = torch.tensor([0.0, 0.5, 1.0])
    area = (2 * curve[:, 1] + curve[:, 2]) / 4
    found = Curve(fractions, curve, curve[:, -1]).normalized
    assert_allclose(found, [np.nan, np.nan, area[2] / 1e-7, area[3] / 1e-3], rtol=1e-6)
    exact = Curve(fractions, curve.double(), curve[:, -1].double()).normalized
    assert_allclose(exact, np.where([0, 1, 0, 0], np.nan, area.double() / curve[:, -1].double()), rtol=1e-6)
    # Logits are sums of larger numbers: 1e-6 is no number, however small the rest of the curve.
    small = 10 * curve[2:3]
    assert_allclose(Curve(fractions, small, small[:, -1], "logit").normalized, [np.nan])
    assert_allclose(Curve(fractions, small, small[:, -1]).normalized, [10 * area[2] / 1e-6], rtol=1e-6)


@pytest.mark.parametrize("name", ["insertion", "insertion_smoothed", "deletion", "road"])
def test_a_negative_logit_turns_no_direction(name: str) -> None:
    """Over f(x) = −99 the map with the larger area would have the smaller number: neither has one."""

    class Below(OnePixel):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) - images.new_tensor([109.0, 0.0])

    maps = torch.rand(2, 1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for model, undefined in ((OnePixel(2, 3), False), (Below(2, 3), True)):
        objective = Objective(model, TARGET, "logit")
        f_input = objective.values(white(8))
        batch = MapBatch(objective, white(8), maps, f_input, f_input.expand(2, 1))
        columns = METRICS[name].compute(batch)
        assert columns[name].isfinite().all()
        assert (columns[f"{name}_normalized"].isnan() == undefined).all()
        normalized = METRICS[name].summaries[1]
        assert normalized.of({key: values[:, 0] for key, values in columns.items()})[1] == 2 * undefined


def plain_curve(
    model: nn.Module, start: Tensor, end: Tensor, target: int, attribution: Tensor, counts
) -> list:
    """The definition, one picture at a time: copy the first pixels of the order, ask the model."""
    saliency = np.abs(attribution.numpy().sum(axis=0)).ravel()
    order = np.argsort(-saliency, kind="stable")
    values = []
    for count in counts:
        picture = start.numpy().copy().reshape(3, -1)
        picture[:, order[:count]] = end.numpy().reshape(3, -1)[:, order[:count]]
        with torch.no_grad():
            logits = model(torch.from_numpy(picture.reshape(1, *start.shape)))
        values.append(torch.softmax(logits, dim=1)[0, target].item())
    return values


def test_curves_of_a_real_network_equal_the_plain_definition(
    classifier: nn.Module, photos: Tensor, predictions: Tensor
) -> None:
    coffee, target = photos[2], int(predictions[2])
    noise = torch.randn(coffee.shape, generator=torch.Generator().manual_seed(5))
    attribution, black = noise.cumsum(-1) * coffee, torch.zeros_like(coffee)
    counts = [50176 * step // 20 for step in range(21)]
    arguments = (Objective(classifier, predictions[2:3]), coffee[None], attribution[None])
    inserted = insertion(*arguments)
    plain = plain_curve(classifier, black, coffee, target, attribution, counts)
    assert_allclose(inserted.curve[0], plain, atol=1e-5)
    assert inserted.score.item() == pytest.approx(np.trapezoid(plain, dx=0.05), abs=1e-5)
    removed = deletion(*arguments, f_end=inserted.curve[:, 0])
    plain = plain_curve(classifier, coffee, black, target, attribution, counts[::4])
    assert_allclose(removed.curve[0, ::4], plain, atol=1e-5)


def test_rise_starts_blurred_and_reveals_224_pixels_a_step(images: Tensor) -> None:
    image = nn.functional.interpolate(images[:1], (40, 40))
    maps = torch.rand(1, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    result = insertion(Objective(Mean(), TARGET), image, maps, convention="rise")
    counts = [0, 224, 448, 672, 896, 1120, 1344, 1568, 1600]
    plain = plain_curve(Mean(), rise_blur(image)[0], image[0], 0, maps[0], counts)
    assert_allclose(result.curve[0], plain, atol=1e-12)
    assert_allclose(result.score, [(sum(plain) - plain[0] / 2 - plain[-1] / 2) / 8])
    assert_allclose(result.fractions, np.array(counts) / 1600)
    removed = deletion(Objective(Mean(), TARGET), image, maps, convention="rise")
    assert_allclose(removed.curve[0, -1], 0.5)


def test_rise_kernel_is_the_filtered_impulse_of_its_window() -> None:
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    picture = torch.zeros(1, 3, 31, 31, dtype=torch.float64)
    picture[0, 1, 15, 15] = 1
    blurred = rise_blur(picture)
    assert_allclose(blurred[0, 1, 10:21, 10:21], gaussian_filter(impulse, 5), atol=1e-15)
    assert_allclose(blurred.sum(), 1.0)
    assert blurred[0, [0, 2]].abs().max() == 0


def test_batches_and_stacked_maps_change_nothing(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    maps = torch.randn(4, *images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    stacked = insertion(Objective(smooth_net, targets), images, maps)
    assert stacked.curve.shape == (4, 3, 21)
    assert stacked.score.shape == stacked.normalized.shape == (4, 3)
    for index, single in enumerate(maps):
        for size in (1, 7):
            alone = insertion(Objective(smooth_net, targets, internal_batch_size=size), images, single)
            assert alone.curve.shape == (3, 21)
            assert_allclose(alone.curve, stacked.curve[index], atol=1e-12)


def test_known_ends_are_taken_as_they_are(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    seen = []

    class Counting(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            seen.append(len(batch))
            return smooth_net(batch)

    counting = Counting().eval()
    free = insertion(Objective(counting, targets), images, images)
    assert sum(seen) == 3 * 21
    seen.clear()
    known = insertion(
        Objective(counting, targets), images, images, f_input=free.curve[:, -1], f_start=free.curve[:, 0]
    )
    assert sum(seen) == 3 * 19
    assert_array_equal(known.curve, free.curve)


def test_maps_of_one_image_alone_go_through_the_core(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """Five maps, four of them of image 2: the flat list of (image, map) pairs."""
    rows = torch.tensor([2, 0, 2, 2, 2])
    maps = torch.randn(5, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    black = torch.zeros_like(images)
    curves = replacement_curves(
        Objective(smooth_net, targets),
        Replacement(black, images),
        rows,
        pixel_ranks(maps.abs()),
        official_counts(36),
    )
    for row, attribution, curve in zip(rows.tolist(), maps, curves, strict=True):
        lone = insertion(
            Objective(smooth_net, targets[row, None]), images[row, None], attribution.expand(1, 3, -1, -1) / 3
        )
        assert_allclose(curve, lone.curve[0], atol=1e-12)


def test_metrics_write_their_columns(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    with torch.no_grad():
        f_input, f_black = (
            smooth_net(batch).softmax(1).gather(1, targets[:, None])[:, 0]
            for batch in (images, torch.zeros_like(images))
        )
    batch = MapBatch(
        Objective(smooth_net, targets),
        images,
        images[None] - 0.5,
        f_input=f_input,
        f_baseline=f_black[None],
    )
    for metric, function in ((INSERTION, insertion), (DELETION, deletion)):
        columns = metric.compute(batch)
        assert list(columns) == [column.name for column in metric.columns]
        score = function(Objective(smooth_net, targets), images, images - 0.5).score
        assert_allclose(columns[metric.name], score[None], atol=1e-12)
        assert metric.summaries[0].of({metric.name: score}) == (pytest.approx(score.mean().item()), 0)


@pytest.mark.parametrize("curve_of", [insertion, smoothed_insertion, deletion])
def test_bad_models_and_targets_are_named(
    curve_of: Callable[..., Curve], smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    model = nn.Sequential(nn.Dropout(0.5), smooth_net)
    with pytest.raises(ValueError, match="model: expected evaluation mode"):
        curve_of(Objective(model.train(), targets), images, images)
    model.eval().classes = 5
    with pytest.raises(ValueError, match="targets: expected class indices from 0 to 4"):
        curve_of(Objective(model, targets + 1), images, images)


def test_bad_maps_are_named(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    bad = images.clone()
    bad[1, 0, 0, 0] = torch.nan
    bad[2, 0, 3, 3] = torch.inf
    with pytest.raises(ValueError, match=r"maps: expected finite.*image\(s\) \[1, 2\]"):
        insertion(Objective(smooth_net, targets), images, torch.stack([images, bad]))
    with pytest.raises(ValueError, match=r"maps: expected the images' shape \(3, 3, 6, 6\).*\(3, 3, 6, 5\)"):
        deletion(Objective(smooth_net, targets), images, images[..., 1:])
    with pytest.raises(ValueError, match="maps: expected at least one map"):
        insertion(Objective(smooth_net, targets), images, images[None][:0])
    with pytest.raises(ValueError, match="convention: expected one of official, rise, got 'petsiuk'"):
        insertion(Objective(smooth_net, targets), images, images, convention="petsiuk")


def test_smoothing_is_a_gaussian_of_the_saliency() -> None:
    """On 28 rows σ is one pixel: scipy's filter, mirrored at the edges."""
    maps = torch.randn(2, 3, 3, 28, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = smoothed(maps)
    assert found.shape == maps.shape
    saliency = maps.sum(2).abs().numpy()
    expected = gaussian_filter(saliency, 1.0, mode="mirror", truncate=3, axes=(-2, -1))
    assert_allclose(found.sum(2).numpy(), expected, rtol=1e-10)


def test_smoothed_insertion_shows_the_surroundings_of_scattered_pixels() -> None:
    """A model that looks at one pixel: the map's peak lies beside it, so it appears early, but not first."""
    image = torch.full((1, 3, 28, 28), 0.9)
    maps = torch.zeros(1, 3, 28, 28)
    maps[0, 0, 14, 14] = 1.0
    maps[0, 0, 2, 2:6] = 0.3  # scattered elsewhere, ranked before the blur reaches the pixel
    model, target = OnePixel(14, 15), torch.tensor([0])
    plain = insertion(Objective(model, target), image, maps)
    smooth = smoothed_insertion(Objective(model, target), image, maps)
    in_full = 1 / (1 + np.exp(-9.0))
    # Unsmoothed, pixel (14, 15) has no saliency: it comes at its place in row-major order, past one half.
    assert plain.curve[0, 10].item() == pytest.approx(0.5)
    assert smooth.curve[0, 1].item() == pytest.approx(in_full, rel=1e-6)
    assert smooth.score.item() > plain.score.item()
    with pytest.raises(ValueError, match="NaN"):
        smoothed_insertion(Objective(model, target), image, maps * torch.nan)

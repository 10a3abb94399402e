import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFilter
from torch import Tensor, nn

from riemannopt_dist.metrics.information.blurred_images import BlurredImages, information_blur
from riemannopt_dist.metrics.information.conventions import CONVENTIONS
from riemannopt_dist.metrics.information.curves import information_curve
from riemannopt_dist.metrics.information.interpolation import fill_by_pyramid, fill_by_triangles
from riemannopt_dist.metrics.information.metric import INFORMATION_FAST
from riemannopt_dist.metrics.metric import MapBatch, Summary, area, unit_curve
from riemannopt_dist.objective import Objective

GOLDEN = Path(__file__).parents[1] / "golden" / "pic.npz"


class Templates(nn.Module):
    """Logits: the image's product with a template a class, and a constant for one class more."""

    def __init__(self, weights: Tensor, constant: float) -> None:
        super().__init__()
        self.weights, self.constant = weights.flatten(1), constant

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1) @ self.weights.T
        return torch.cat([logits, logits.new_full((len(logits), 1), self.constant)], dim=1)


class Case:
    """The golden images, their model, the blurred images of the golden masks and our curves."""

    def __init__(self) -> None:
        self.golden = {name: array for name, array in np.load(GOLDEN).items()}
        self.images = torch.from_numpy(self.golden["images"]).permute(0, 3, 1, 2).double() / 255
        weights = torch.from_numpy(self.golden["weights"]).permute(0, 3, 1, 2).double()
        self.model = Templates(weights, constant=2.0)
        self.targets = torch.arange(3)
        # |channel sum| of a map with the saliency in one channel is that saliency.
        self.maps = torch.zeros(3, 3, 3, *self.images.shape[2:], dtype=torch.float64)
        self.maps[:, :, 1] = -torch.from_numpy(self.golden["saliency"]).double()
        shown, masks = self.golden["images"], self.golden["masks"].copy()
        masks[:, [0, 0, -1, -1], [0, -1, 0, -1]] = True
        blurred = np.stack([fill_by_triangles(*pair) for pair in zip(shown, masks, strict=True)])
        self.blurred = BlurredImages(shown, blurred, masks)
        self.pair = information_curve(
            Objective(self.model, self.targets), self.images, self.maps, blurred=self.blurred
        )


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_pair_areas_equal_those_of_the_saliency_package(case: Case) -> None:
    result = case.pair
    # The size of a WebP depends a little on libwebp's version, so some slack on the horizontal axis.
    assert_allclose(result.sic, case.golden["sic"], atol=2e-3)
    assert_allclose(result.aic, case.golden["aic"], atol=2e-3)
    assert result.sic_skipped == result.aic_skipped == (None, None, None)


def test_pair_predictions_equal_those_of_the_saliency_package(case: Case) -> None:
    """The heights do not depend on the encoder: the same pictures, to the last bit, in the same order."""
    result = case.pair
    golden = case.golden["predictions"]
    start, steps, end = golden[..., :1], golden[..., 1:-1], golden[..., -1:]
    expected = np.maximum.accumulate(((steps - start) / (end - start)).clip(0, 1), axis=-1)
    assert_allclose(result.probability, expected, atol=1e-6)


def test_rebuilt_pictures_equal_those_of_the_saliency_package(case: Case) -> None:
    shown, kept = case.blurred.shown[0], case.blurred.kept[0]
    for saliency, pictures in zip(case.golden["saliency"][:, 0], case.golden["pictures"], strict=True):
        assert_array_equal(case.blurred.blurred[0], pictures[0])
        for threshold, picture in zip((0.005, 0.10, 0.75), pictures[1:4], strict=True):
            known = kept | (saliency >= np.quantile(saliency, 1 - threshold))
            assert_array_equal(fill_by_triangles(shown, known), picture)


def test_summary_of_sic_is_the_area_under_the_median_curve_of_the_saliency_package(case: Case) -> None:
    result = case.pair
    summary = Summary("sic", "area_of_median_curve", ("x", "y"), "higher")
    for index, expected in enumerate(case.golden["sic_median"]):
        columns = {"x": result.information[index].numpy(), "y": result.probability[index].numpy()}
        assert summary.of(columns)[0] == pytest.approx(expected, abs=2e-3)
    skipped = {name: np.vstack([values, np.full(13, np.nan)]) for name, values in columns.items()}
    assert summary.of(skipped) == (summary.of(columns)[0], 1)


def test_summaries_leave_out_images_with_nan() -> None:
    columns = {"gap": [1.0, -3.0, np.nan, 5.0], "change": [2.0, 4.0, 8.0, -2.0]}
    assert Summary("all", "ratio_of_sums", ("gap", "change"), "lower").of(columns)[0] == 9 / 8
    assert Summary("mean", "mean", ("gap",), "lower").of(columns)[0] == 1
    assert Summary("median", "median", ("change",), "lower").of(columns)[0] == 3
    assert np.isnan(Summary("none", "mean", ("gap",), "lower").of({"gap": [np.nan]})[0])


def test_a_plane_is_rebuilt_exactly_from_its_corners() -> None:
    rows, columns = np.mgrid[:9, :13]
    plane = np.stack([3 * rows + 2 * columns, 100 - 4 * columns, 0 * rows + 7], axis=-1).astype(np.uint8)
    corners = np.zeros((9, 13), dtype=bool)
    corners[np.ix_([0, -1], [0, -1])] = True
    assert_array_equal(fill_by_triangles(plane, corners), plane)
    assert_array_equal(fill_by_triangles(plane, np.ones_like(corners)), plane)


def test_a_row_or_column_is_rebuilt_between_neighbours() -> None:
    row = np.array([[[10, 7], [0, 0], [0, 0], [40, 7], [0, 0], [61, 9]]], dtype=np.uint8)
    known = np.array([[True, False, False, True, False, True]])
    # Halves go to the even number.
    rebuilt = [[[10, 7], [20, 7], [30, 7], [40, 7], [50, 8], [61, 9]]]
    assert_array_equal(fill_by_triangles(row, known), rebuilt)
    turned = fill_by_triangles(row.transpose(1, 0, 2), known.T)
    assert_array_equal(turned, np.transpose(rebuilt, (1, 0, 2)))
    # Beyond the known ones there is the mean colour, (111 + 2) / 6 and 23 / 6.
    known[0, 5] = False
    assert_array_equal(fill_by_triangles(row, known)[0, 4:], [[18, 4], [18, 4]])


@pytest.mark.parametrize("convention", ["pair", "fast", "official_png"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 300), (300, 1), (2, 150)])
def test_pictures_as_thin_as_can_be(convention: str, size: tuple[int, int]) -> None:
    """Their curves are areas or skipped with a reason, and those of a turned picture are the same."""
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = images.clone()
    # A class is one whole picture: its logit is 8 for that, and less for one whose contrast is lost.
    contrast = images - images.mean(dim=(1, 2, 3), keepdim=True)
    model = Templates(8 * contrast / (contrast * images).sum(dim=(1, 2, 3), keepdim=True), constant=4.0)
    targets = torch.arange(2)
    result = information_curve(Objective(model, targets), images, maps, convention=convention)
    for area_under, reason in zip(result.sic.tolist(), result.sic_skipped, strict=True):
        assert reason is not None if np.isnan(area_under) else 0 <= area_under <= 1
    if 1 in size:
        turned = Templates(model.weights.reshape(2, 3, *size).transpose(2, 3), model.constant)
        blurred = information_blur(images, convention=convention)
        sideways = BlurredImages(
            *(np.swapaxes(array, 1, 2).copy() for array in (blurred.shown, blurred.blurred, blurred.kept))
        )
        pictures = information_curve(
            Objective(turned, targets),
            images.transpose(2, 3).contiguous(),
            maps.transpose(2, 3).contiguous(),
            convention=convention,
            blurred=sideways,
        )
        assert_allclose(pictures.probability, result.probability, atol=1e-12)
    if max(size) == 300:
        assert result.sic_skipped == (None, None)


def test_thin_pictures_have_no_ms_ssim() -> None:
    images = torch.rand(1, 3, 1, 300)
    model = Templates(torch.rand(2, 3, 1, 300), constant=0.0)
    with pytest.raises(ValueError, match=r"images: MS-SSIM needs sides above 160, got \(1, 3, 1, 300\)"):
        information_curve(
            Objective(model, torch.zeros(1).long()), images, images, convention="official_ms_ssim"
        )


def test_unit_curve_is_the_polygon_through_its_points() -> None:
    assert area(unit_curve([], [])) == pytest.approx(0.5)
    curve = unit_curve([0.5, 0.25], [1.0, 0.5], points=8)
    assert_allclose(curve, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    # A jump at 0: the curve starts at the origin, and has jumped by the first sample.
    assert_allclose(unit_curve([0.0, 1e-9], [1.0, 1.0], points=2), [0, 1, 1])


def grain() -> Tensor:
    """Noise, (1, 3, 48, 48), in steps of 8 bits."""
    return torch.randint(256, (1, 3, 48, 48), generator=torch.Generator().manual_seed(0)) / 255


class RightContrast(nn.Module):
    """Logits 60 (c − 0.2) and 0, c being the mean distance from grey in the right half: 0.25 for noise."""

    def forward(self, images: Tensor) -> Tensor:
        logit = 60 * ((images[..., 24:] - 0.5).abs().mean(dim=(1, 2, 3)) - 0.2)
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


@pytest.mark.parametrize("convention", ["pair", "fast", "official_png"])
def test_a_map_of_what_the_model_sees_scores_above_a_map_of_the_rest(convention: str) -> None:
    right = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    right[..., 24:] += 1
    maps = torch.stack([right, right.flip(-1)])
    result = information_curve(
        Objective(RightContrast(), torch.tensor([0])), grain(), maps, convention=convention
    )
    assert result.sic.shape == result.aic.shape == (2, 1)
    assert result.sic[0, 0] > result.sic[1, 0] + 0.2
    assert result.aic[0, 0] > result.aic[1, 0] + 0.2
    for progress in (result.information, result.probability, result.correct):
        assert progress.min() >= 0
        assert progress.max() <= 1
    assert result.probability.diff(dim=-1).min() >= 0


class Constant(nn.Module):
    """The same logits for every image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([3.0, 0.0]).expand(len(images), -1)


def test_skipped_images_say_why_and_score_nan() -> None:
    grey = torch.full((1, 3, 48, 48), 0.5)
    images = torch.cat([grain(), grey])
    seen = information_curve(
        Objective(RightContrast(), torch.tensor([0, 1])), images, images, convention="fast"
    )
    assert seen.sic_skipped == seen.aic_skipped == (None, "no information gained over the blurred image")
    unsure = information_curve(
        Objective(RightContrast(), torch.tensor([1, 0])), images, images, convention="fast"
    )
    assert unsure.sic_skipped == unsure.aic_skipped
    assert unsure.sic_skipped[1] == "probability 0.0000 is below 0.8"
    same = information_curve(Objective(Constant(), torch.tensor([0, 0])), images, images, convention="fast")
    assert same.sic_skipped[0] == same.aic_skipped[0] == "no prediction gained over the blurred image"
    for result in (unsure, same):
        assert result.sic.isnan().all()
        assert result.aic.isnan().all()
    assert seen.sic.isfinite().tolist() == seen.aic.isfinite().tolist() == [True, False]


class OffByItsPlace(nn.Module):
    """The same probability, 0.953, for every image, but for rounding by its place in the batch."""

    def forward(self, images: Tensor) -> Tensor:
        off = torch.finfo(torch.float32).eps * torch.arange(-3, len(images) - 3)
        logits = 3 * (1 + off.to(images.dtype))
        return torch.stack([logits, torch.zeros_like(logits)], dim=1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_prediction_that_only_rounding_changes_is_not_gained(size: int) -> None:
    images = grain().flip(0).repeat(4, 1, 1, 1) * torch.tensor([1.0, 0.9, 0.8, 0.7])[:, None, None, None]
    result = information_curve(
        Objective(OffByItsPlace(), torch.zeros(4).long(), internal_batch_size=size),
        images,
        images,
        convention="fast",
    )
    assert (
        set(result.sic_skipped) == set(result.aic_skipped) == {"no prediction gained over the blurred image"}
    )
    assert result.sic.isnan().all()


class SureOfContrast(nn.Module):
    """`RightContrast`, off by rounding that depends on an image's place in the batch."""

    def forward(self, images: Tensor) -> Tensor:
        off = torch.finfo(torch.float32).eps * torch.arange(len(images))[:, None]
        return RightContrast()(images) * (1 + off)


@pytest.mark.parametrize("size", [3, 5])
def test_a_picture_that_is_the_blurred_image_or_the_input_has_its_prediction(size: int) -> None:
    """The official curve's first and last pictures, evaluated in other batches than the ends themselves."""
    images = torch.cat([grain(), grain().flip(2)])
    result = information_curve(
        Objective(SureOfContrast(), torch.zeros(2).long(), internal_batch_size=size),
        images,
        images,
        convention="official_png",
    )
    assert result.sic_skipped == (None, None)
    assert result.probability[:, 0].tolist() == [0.0, 0.0]
    assert result.probability[:, -1].tolist() == [1.0, 1.0]


def test_a_class_that_the_blurred_image_has_too_is_skipped_in_aic_alone() -> None:
    """Sure in the noise, less so but still right in the blurred image."""

    class Sure(RightContrast):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) / 60 + torch.tensor([2.0, 0.0])

    result = information_curve(Objective(Sure(), torch.tensor([0])), grain(), grain(), convention="fast")
    assert result.sic_skipped == (None,)
    assert result.aic_skipped == ("no prediction gained over the blurred image",)
    assert result.sic.isfinite().all()
    assert result.aic.isnan().all()


@pytest.mark.parametrize(("convention", "internal_batch_size"), [("fast", 5), ("pair", 1)])
def test_batches_maps_and_threads_change_nothing(
    case: Case, convention: str, internal_batch_size: int
) -> None:
    arguments = (Objective(case.model, case.targets), case.images, case.maps)
    together = information_curve(*arguments, convention=convention)
    for index in range(3):
        one = slice(index, index + 1)
        alone = information_curve(
            Objective(case.model, case.targets[one], internal_batch_size=internal_batch_size),
            case.images[one],
            case.maps[1, one],
            convention=convention,
            workers=3,
        )
        assert_array_equal(alone.information, together.information[1, one])
        assert_allclose(alone.probability, together.probability[1, one], atol=1e-12)
        assert_array_equal(alone.correct, together.correct[1, one])


def test_mask_keeps_one_percent_and_the_corners_and_follows_the_seed(case: Case) -> None:
    first, again, other = (information_blur(case.images, seed=seed) for seed in (0, 0, 1))
    assert_array_equal(first.kept, again.kept)
    assert (first.kept != other.kept).any(axis=(1, 2)).all()
    assert (first.kept[0] != first.kept[1]).any()
    assert first.kept[:, [0, 0, -1, -1], [0, -1, 0, -1]].all()
    assert (first.kept.sum(axis=(1, 2)) >= 40).all()
    assert (first.kept.sum(axis=(1, 2)) <= 44).all()
    assert_array_equal(first.blurred[first.kept], first.shown[first.kept])


def test_official_lays_the_pixels_over_the_blurred_image(case: Case) -> None:
    """Half of the pixels, the bright ones of a map of two values, are shown at count 12 of 24."""
    bright = torch.zeros_like(case.images[:1])
    bright[..., :32] = 1.0
    image, target = case.images[:1], case.targets[:1]
    result = information_curve(Objective(case.model, target), image, bright, convention="official_png")
    shown = case.blurred.shown[0]
    blurred = np.asarray(Image.fromarray(shown).filter(ImageFilter.GaussianBlur(20)))
    half = np.where(np.arange(64)[None, :, None] < 32, shown, blurred)
    pictures = np.stack([blurred, half, shown])
    inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255
    start, middle, end = case.model(inputs).softmax(1)[:, 0].tolist()
    start_size, middle_size, end_size = map(png_size, pictures)
    assert result.probability[0, 12] == pytest.approx((middle - start) / (end - start), abs=1e-6)
    assert result.information[0, 12] == pytest.approx((middle_size - start_size) / (end_size - start_size))
    assert result.information[0, [0, 24]].tolist() == result.probability[0, [0, 24]].tolist() == [0, 1]


def png_size(picture: np.ndarray) -> int:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return len(buffer.getvalue())


def test_pyramid_keeps_what_is_known_and_averages_around_it() -> None:
    picture = torch.tensor([[[10], [20]], [[30], [90]]], dtype=torch.uint8)[None]
    for known, expected in (
        ([[1, 0], [0, 0]], [[10, 10], [10, 10]]),
        ([[1, 0], [0, 1]], [[10, 50], [50, 90]]),
        ([[0, 1], [1, 1]], [[47, 20], [30, 90]]),
        ([[1, 1], [1, 1]], [[10, 20], [30, 90]]),
    ):
        filled = fill_by_pyramid(picture, torch.tensor(known, dtype=torch.bool)[None])
        assert filled[0, :, :, 0].tolist() == expected
    noise = torch.randint(50, 200, (5, 37, 90, 3), generator=torch.Generator().manual_seed(4)).to(torch.uint8)
    known = torch.rand(5, 37, 90, generator=torch.Generator().manual_seed(5)) < 0.02
    filled = fill_by_pyramid(noise, known)
    assert_array_equal(filled[known], noise[known])
    for image, result, mask in zip(noise, filled, known, strict=True):
        for channel in range(3):
            assert image[mask][:, channel].min() <= result[..., channel].min()
            assert result[..., channel].max() <= image[mask][:, channel].max()


def test_pyramid_is_near_the_triangles_on_a_smooth_picture() -> None:
    rows, columns = np.mgrid[:64, :64] / 64
    waves = 127 + 100 * np.sin(4 * rows) * np.cos(5 * columns)
    picture = np.round(waves).astype(np.uint8)[:, :, None]
    known = np.random.default_rng(0).random((64, 64)) < 0.1
    known[np.ix_([0, -1], [0, -1])] = True
    pyramid = fill_by_pyramid(torch.from_numpy(picture)[None], torch.from_numpy(known)[None])[0].numpy()
    for filled, tolerance in ((fill_by_triangles(picture, known), 1.5), (pyramid, 6.0)):
        assert np.abs(filled.astype(float) - waves[:, :, None]).mean() < tolerance


class Contrast(nn.Module):
    """Logits: 100 times the standard deviation of the image's Laplacian, and 2."""

    def forward(self, images: Tensor) -> Tensor:
        laplacian = 4 * images - sum(images.roll(shift, axis) for shift in (1, -1) for axis in (2, 3))
        logit = 100 * laplacian.std(dim=(1, 2, 3))
        return torch.stack([logit, torch.full_like(logit, 2.0)], dim=1)


def test_ms_ssim_is_taken_as_it_is_and_ends_at_one(photos: Tensor) -> None:
    photo = photos[2:3]
    result = information_curve(
        Objective(Contrast(), torch.tensor([0])), photo, photo, convention="official_ms_ssim"
    )
    assert result.sic_skipped == (None,)
    assert result.information[0, -1] == pytest.approx(1.0, abs=1e-3)
    assert 0.05 < result.information[0, 0] < 0.5
    assert result.information[0].diff().min() > -0.05


def test_metric_writes_its_columns(case: Case) -> None:
    f = torch.zeros(3)
    batch = MapBatch(
        Objective(case.model, case.targets), case.images, case.maps, f_input=f, f_baseline=f[None]
    )
    columns = INFORMATION_FAST.compute(batch)
    assert list(columns) == [column.name for column in INFORMATION_FAST.columns]
    result = information_curve(Objective(case.model, case.targets), case.images, case.maps, convention="fast")
    assert_array_equal(columns["sic_fast"], result.sic)
    summary = INFORMATION_FAST.summaries[1]
    assert summary.of({"aic_fast": columns["aic_fast"][0]}) == (pytest.approx(result.aic[0].mean().item()), 0)


def test_bad_arguments_are_named(case: Case) -> None:
    arguments = (Objective(case.model, case.targets), case.images)
    with pytest.raises(ValueError, match="convention: expected one of pair, fast"):
        information_curve(*arguments, case.maps, convention="best")
    with pytest.raises(ValueError, match=r"images: expected values in \[0, 1\], not so in image\(s\) \[1\]"):
        information_blur(case.images + torch.tensor([0.0, 1.0, 0.0])[:, None, None, None])
    model = nn.Sequential(nn.Dropout(0.5), case.model)
    with pytest.raises(ValueError, match="model: expected evaluation mode"):
        information_curve(Objective(model.train(), case.targets), case.images, case.maps)
    model.eval().classes = 4
    with pytest.raises(ValueError, match="targets: expected class indices from 0 to 3"):
        information_curve(Objective(model, case.targets + 2), case.images, case.maps)
    bad = case.maps.clone()
    bad[1, 2, 0, 5, 5] = torch.inf
    with pytest.raises(ValueError, match=r"maps: .*image\(s\) \[2\]"):
        information_curve(*arguments, bad)
    with pytest.raises(ValueError, match="images: MS-SSIM needs sides above 160"):
        information_curve(*arguments, case.maps, convention="official_ms_ssim")
    with pytest.raises(ValueError, match="blurred: expected"):
        information_curve(*arguments, case.maps, blurred=information_blur(case.images[:2]))
    assert set(CONVENTIONS) == {"pair", "fast", "official_png", "official_ms_ssim"}

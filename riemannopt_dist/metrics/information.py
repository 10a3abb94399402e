"""Performance information curves: how fast a prediction recovers with the information a map reveals.

SIC follows the probability of the target, AIC whether the target is the top class. An image starts
blurred and gets back the pixels that its map ranks highest; the horizontal axis is the information in
the picture shown, between the blurred image and the input. Kapishnikov et al., 2019 ("XRAI").
"""

import hashlib
import io
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.interpolate import LinearNDInterpolator
from torch import Tensor, nn

from riemannopt_dist.arguments import check_choice, check_images
from riemannopt_dist.metrics.insertion import check_maps, pixel_ranks, pixel_saliency
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary, area, unit_curve
from riemannopt_dist.objective import (
    Objective,
    explained_output,
    micro_batches,
    output_rounding,
)
from riemannopt_dist.precision import ieee_float32, sum_type
from riemannopt_dist.transfer import on_device, on_host

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Array = NDArray[Any]

MINIMUM_PROBABILITY = 0.8
KEPT_FRACTION = 0.01
THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
OFFICIAL_COUNTS = 25
OFFICIAL_BLUR_RADIUS = 20
# Five scales of halves, each at least as wide as a window of 11.
MS_SSIM_SIDE = 160
# Micro-batches of pictures in the making while the model looks at one.
LOOKAHEAD = 2


@dataclass(frozen=True)
class Convention:
    """How the pictures are made, and what their information is.

    `filling`: what stands in for the pixels not shown. Interpolation on "triangles" or a "pyramid" starts
    from a random 1 % of the pixels, which every picture keeps, and is done anew for every picture; "blur"
    is a Gaussian blur of the input, the same under every picture. `encoding`: what `PIL.Image.save` gets,
    the information being the file's size in bytes; None for MS-SSIM with the input.
    """

    filling: Literal["triangles", "pyramid", "blur"]
    encoding: dict[str, Any] | None

    @property
    def steps(self) -> int:
        """T, the number of pictures a map."""
        return OFFICIAL_COUNTS if self.filling == "blur" else len(THRESHOLDS)


CONVENTIONS = {
    "pair": Convention("triangles", {"format": "webp", "lossless": True, "quality": 100}),
    "fast": Convention("pyramid", {"format": "webp", "lossless": True, "quality": 0, "method": 0}),
    "official_png": Convention("blur", {"format": "png"}),
    "official_ms_ssim": Convention("blur", None),
}


@dataclass(frozen=True)
class BlurredImages:
    """B images as shown, in 8 bits, and where their curves start: all that is common to an image's maps.

    `shown` and `blurred` are (B, H, W, C); `kept` (B, H, W) marks the pixels that the blurred image has
    from the input.
    """

    shown: Picture
    blurred: Picture
    kept: Mask


@dataclass(frozen=True)
class InformationCurve:
    """The curves of B images (…, B), or of S maps of each (S, B), on the CPU in float64.

    `information`, `probability` and `correct` (…, B, T) are the T points of the curves, all in [0, 1]: the
    horizontal axis, the height of SIC and the height of AIC. They are NaN where the image is skipped;
    `sic_skipped` and `aic_skipped` (B) say why, or None.
    """

    information: Tensor
    probability: Tensor
    correct: Tensor
    sic_skipped: tuple[str | None, ...]
    aic_skipped: tuple[str | None, ...]

    @property
    def sic(self) -> Tensor:
        """The area under each SIC, in [0, 1]: (…, B). NaN where the image is skipped."""
        return _areas(self.information, self.probability)

    @property
    def aic(self) -> Tensor:
        """The area under each AIC, in [0, 1]: (…, B). NaN where the image is skipped."""
        return _areas(self.information, self.correct)


def information_blur(images: Tensor, *, convention: str = "pair", seed: int = 0) -> BlurredImages:
    """The blurred images at which the curves of `images` (B, C, H, W) in [0, 1] start.

    The random pixels of an image follow from `seed` and its own 8-bit content, so neither from the batch
    it is in nor from the maps it is evaluated with.
    """
    check_choice(convention, tuple(CONVENTIONS), "convention")
    shown = _eight_bits(images)
    filling = CONVENTIONS[convention].filling
    if filling == "blur":
        blur = ImageFilter.GaussianBlur(OFFICIAL_BLUR_RADIUS)
        blurred = np.stack([np.asarray(_pil(image).filter(blur)).reshape(image.shape) for image in shown])
        return BlurredImages(shown, blurred, np.zeros(shown.shape[:3], dtype=np.bool_))
    masks = np.stack([_random_mask(image, seed) for image in shown])
    if filling == "triangles":
        blurred = np.stack([fill_by_triangles(image, mask) for image, mask in zip(shown, masks, strict=True)])
    else:
        pictures, known = (torch.from_numpy(array).to(images.device) for array in (shown, masks))
        blurred = fill_by_pyramid(pictures, known).cpu().numpy()
    return BlurredImages(shown, blurred, masks)


def information_curve(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    convention: str = "pair",
    seed: int = 0,
    blurred: BlurredImages | None = None,
    workers: int | None = None,
) -> InformationCurve:
    """SIC and AIC of images (B, C, H, W) in [0, 1] for maps (B, C, H, W) or (S, B, C, H, W).

    Higher is better. Pixels are ranked by |channel sum|; the model sees pictures of 8 bits, and is asked for
    probabilities, whatever the objective's output. The conventions:

    - "pair", the package `saliency` 0.2.1: the blurred image is interpolated from a random 1 % of the
      pixels and the corners; 13 thresholds t reveal the pixels with a saliency of at least the quantile
      1 − t, ties all together; the rest is interpolated anew from all pixels shown; information is the
      size of the lossless WebP.
    - "fast": as "pair", but interpolated on a pyramid (see `fill_by_pyramid`), and WebP takes its fastest
      lossless setting. Far less work outside the model; its values are near those of "pair", not equal.
    - "official_png" and "official_ms_ssim", the code of arXiv 2410.04118: 25 equispaced counts laid over a
      blur of radius 20; information is the size of the PNG, or MS-SSIM with the input, taken as it is
      (needs `pytorch-msssim` and sides above 160 pixels).

    Information and prediction are placed between the blurred image (0) and the input (1) and clipped, the
    prediction never falls, and (0, 0) and (1, 1) complete the curve. An image is skipped where its
    probability is below 0.8, where the input has no more information than the blurred image, and in the
    curve whose prediction it does not raise (by more than rounding).

    `blurred` is the result of `information_blur` with this convention and seed, if at hand. `workers`
    threads (by default as many as torch uses) make and measure pictures while the model predicts. They
    change no result.
    """
    check_images(images)
    objective.check(images)
    check_maps(maps, images)
    size = objective.internal_batch_size
    how = _convention(convention, images)
    blurred = blurred or information_blur(images, convention=convention, seed=seed)
    if len(blurred.shown) != len(images) or blurred.shown.shape[1:3] != images.shape[2:]:
        raise ValueError(f"blurred: expected that of images {tuple(images.shape)}, got {blurred.shown.shape}")
    stacked = maps if maps.ndim == 5 else maps[None]
    with ThreadPoolExecutor(workers or torch.get_num_threads()) as pool:
        start, end = (
            _observe(objective, images, _end_chunks(pool, pictures, how, images.device, size))
            for pictures in (blurred.blurred, blurred.shown)
        )
        if how.encoding is None:
            start[0] = 0.0
        start[1] = _snapped(start[1], end[1], objective.rounding_type(images.dtype))
        gain = end - start
        sic_skipped, aic_skipped = (
            tuple(map(_skip_reason, end[1], gain[0], gain[curve])) for curve in (1, 2)
        )
        rows = [b for b in range(len(images)) if sic_skipped[b] is None or aic_skipped[b] is None]
        saliency = pixel_saliency(stacked[:, rows]).flatten(0, 1)
        chunks = _step_chunks(pool, blurred, rows * len(stacked), saliency, how, size)
        steps = _observe(objective, images, chunks).reshape(3, len(stacked), len(rows), how.steps)
    dtype = objective.rounding_type(sum_type(images.dtype))
    for side in (start, end):
        steps[1] = _snapped(steps[1], side[1, rows, None], dtype)
    progress = np.full((3, len(stacked), len(images), how.steps), np.nan)
    progress[:, :, rows] = _progress(steps, start[:, rows], gain[:, rows])
    information, probability, correct = torch.from_numpy(progress.reshape(3, *maps.shape[:-3], how.steps))
    return InformationCurve(information, probability, correct, sic_skipped, aic_skipped)


def _convention(name: str, images: Tensor) -> Convention:
    """The convention called `name`. Raises ValueError for none, and for images that it cannot measure."""
    check_choice(name, tuple(CONVENTIONS), "convention")
    how = CONVENTIONS[name]
    if how.encoding is None and min(images.shape[2:]) <= MS_SSIM_SIDE:
        raise ValueError(f"images: MS-SSIM needs sides above {MS_SSIM_SIDE}, got {tuple(images.shape)}")
    return how


def _progress(steps: Array, start: Array, gain: Array) -> Array:
    """The three numbers of each step (3, S, B, K) as shares of what they gain (3, B); NaN where nothing."""
    gain = np.where(gain > 0, gain, np.nan)
    progress = np.clip((steps - start[:, None, :, None]) / gain[:, None, :, None], 0.0, 1.0)
    progress[1:] = np.maximum.accumulate(progress[1:], axis=-1)
    return progress


def fill_by_triangles(image: Picture, known: Mask) -> Picture:
    """`image` (H, W, C) with the pixels outside `known` (H, W) rebuilt from those inside: piecewise linear.

    The pieces are the Delaunay triangles of the known pixels; outside of them all, the mean colour. In a
    picture of one row or column they are the stretches between neighbours. In any other the known pixels must
    not all lie on a line, as the four corners do not.
    """
    rebuilt = image.copy()
    if not known.all():
        places, colours, gaps = np.argwhere(known), image[known].astype(np.float64), np.argwhere(~known)
        rebuild = _on_a_line if 1 in known.shape else _on_triangles
        # Rounded through float32, as PAIR does: it decides the halves.
        values = rebuild(places, colours, gaps).astype(np.float32)
        mean = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        rebuilt[~known] = np.round(np.where(np.isnan(values), mean, values))
    return rebuilt


def _on_triangles(places: Array, colours: Array, gaps: Array) -> Array:
    """Colours (M, C) at `gaps` (M, 2) from those (K, C) at `places` (K, 2); NaN outside of all triangles."""
    return np.asarray(LinearNDInterpolator(places, colours)(gaps))


def _on_a_line(places: Array, colours: Array, gaps: Array) -> Array:
    """The same where all places are in one row or column; NaN beyond its ends."""
    at, to = places.sum(axis=1), gaps.sum(axis=1)
    return np.stack([np.interp(to, at, channel, np.nan, np.nan) for channel in colours.T], axis=1)


def fill_by_pyramid(pictures: Tensor, known: Tensor) -> Tensor:
    """`pictures` (N, H, W, C) of 8 bits with the pixels outside `known` (N, H, W) rebuilt from those inside.

    Pull and push (Gortler et al., 1996), on the tensors' device: the known pixels are averaged into a grid of
    half the size, and so on up to a single pixel; each level then fills its gaps from the one above,
    enlarged bilinearly. Every picture must have a known pixel.
    """
    weights = known[:, None].float()
    filled = _pull_and_push(pictures.permute(0, 3, 1, 2) * weights, weights)
    return filled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _pull_and_push(weighted: Tensor, weights: Tensor) -> Tensor:
    """One level: colours times their weights (N, C, H, W), and the weights (N, 1, H, W) in [0, 1]."""
    if weights[0].numel() == 1:
        return weighted / weights
    coarse, coarse_weights = (
        nn.functional.avg_pool2d(values, 2, ceil_mode=True) * 4 for values in (weighted, weights)
    )
    # One known pixel of the four is enough to know the coarse one.
    excess = coarse_weights.clamp_min(1.0)
    filled = _pull_and_push(coarse / excess, coarse_weights / excess)
    enlarged = nn.functional.interpolate(filled, weights.shape[-2:], mode="bilinear", align_corners=False)
    return weighted + (1 - weights) * enlarged


Shown = tuple[Picture, float]
Chunk = tuple[Tensor, list[Future[Shown]]]


def _end_chunks(
    pool: ThreadPoolExecutor, pictures: Picture, how: Convention, device: torch.device, size: int
) -> Iterator[Chunk]:
    """The B pictures as they are."""
    for part in micro_batches(len(pictures), size):
        rows = torch.arange(part.start, part.stop, device=device)
        yield rows, [pool.submit(_measured, picture, how) for picture in pictures[part]]


def _step_chunks(
    pool: ThreadPoolExecutor,
    blurred: BlurredImages,
    rows: list[int],
    saliency: Tensor,
    how: Convention,
    size: int,
) -> Iterator[Chunk]:
    """Every step of N maps, given by their images `rows` (N) and saliency (N, H, W), map by map."""
    levels, bounds = _reveal_order(saliency, how)
    device = saliency.device
    image_rows = torch.tensor(rows, device=device, dtype=torch.int64)
    shown, blurred_pictures, masks = (
        torch.from_numpy(array).to(device) for array in (blurred.shown, blurred.blurred, blurred.kept)
    )
    for part in micro_batches(bounds.numel(), size):
        job = torch.arange(part.start, part.stop, device=device)
        chosen, step = job // how.steps, job % how.steps
        image = image_rows[chosen]
        known = masks[image] | (levels[chosen] <= bounds[chosen, step, None, None])
        if how.filling == "triangles":
            places = np.array(rows)[np.arange(part.start, part.stop) // how.steps]
            masks_there, pairs = on_host(known), enumerate(blurred.shown[places])
            yield image, [pool.submit(_filled_and_measured, one, masks_there, n, how) for n, one in pairs]
            continue
        if how.filling == "pyramid":
            pictures = fill_by_pyramid(shown[image], known)
        else:
            pictures = torch.where(known[..., None], shown[image], blurred_pictures[image])
        there = on_host(pictures)
        yield image, [pool.submit(_measured_there, there, n, how) for n in range(len(pictures))]


def _reveal_order(saliency: Tensor, how: Convention) -> tuple[Tensor, Tensor]:
    """Levels (N, H, W) and bounds (N, T): step k reveals the pixels whose level is at most bound k."""
    pixels = saliency[0].numel() if len(saliency) else 1
    if how.filling != "blur":
        # The quantile lies between two saliencies; those of at least it are those of at least the upper one.
        # Rounding before the ceiling keeps a quantile that is itself a saliency from passing to the next.
        upper = [math.ceil(round((1 - threshold) * (pixels - 1), 6)) for threshold in THRESHOLDS]
        ascending = saliency.flatten(1).sort(dim=1).values
        return -saliency, -ascending[:, upper]
    counts = [pixels * step // (how.steps - 1) for step in range(how.steps)]
    bounds = torch.tensor(counts, device=saliency.device, dtype=torch.int32) - 1
    return pixel_ranks(saliency), bounds.expand(len(saliency), -1)


def _filled_and_measured(image: Picture, known: Callable[[], Mask], n: int, how: Convention) -> Shown:
    return _measured(fill_by_triangles(image, known()[n]), how)


def _measured_there(pictures: Callable[[], Picture], n: int, how: Convention) -> Shown:
    return _measured(pictures()[n], how)


def _measured(picture: Picture, how: Convention) -> Shown:
    """The picture with its size in bytes when encoded, or with NaN where information is not a size."""
    if how.encoding is None:
        return picture, math.nan
    buffer = io.BytesIO()
    _pil(picture).save(buffer, **how.encoding)
    return picture, float(buffer.tell())


def _observe(objective: Objective, images: Tensor, chunks: Iterable[Chunk]) -> NDArray[np.float64]:
    """Information, the target's probability and whether it is the top class, for all N pictures: (3, N)."""
    values = [torch.empty(3, 0, device=images.device, dtype=torch.float64)]
    with torch.no_grad():
        for rows, futures in _ahead(chunks):
            pictures, sizes = zip(*(future.result() for future in futures), strict=True)
            shown = on_device(np.stack(pictures), images.device).permute(0, 3, 1, 2)
            inputs = shown.contiguous().to(images.dtype) / 255
            logits = objective.logits(inputs)
            information = on_device(np.array(sizes, dtype=np.float64), images.device)
            if math.isnan(sizes[0]):
                information = _ms_ssim(inputs, images[rows])
            targets = objective.targets[rows]
            probability = explained_output(logits, targets)
            correct = logits.argmax(dim=1) == targets
            values.append(torch.stack([information.double(), probability.double(), correct.double()]))
    return torch.cat(values, dim=1).cpu().numpy()


def _ahead(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same chunks, each handed out only when LOOKAHEAD more are in the making."""
    waiting: deque[Chunk] = deque()
    for chunk in chunks:
        waiting.append(chunk)
        if len(waiting) > LOOKAHEAD:
            yield waiting.popleft()
    yield from waiting


def _ms_ssim(pictures: Tensor, images: Tensor) -> Tensor:
    from pytorch_msssim import ms_ssim

    pictures, images = (given.to(sum_type(given.dtype)) for given in (pictures, images))
    window = ms_ssim_window(images.shape[1], images.device, images.dtype)
    with ieee_float32():
        similarity: Tensor = ms_ssim(pictures, images, data_range=1, size_average=False, win=window)
    return similarity


@lru_cache(maxsize=16)
def ms_ssim_window(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The package's own window, on the device, where it would else be copied for every scale of a batch."""
    from pytorch_msssim import MS_SSIM

    window: Tensor = MS_SSIM(channel=channels).win
    return window.to(device, dtype)


def _snapped(
    probabilities: NDArray[np.float64], place: NDArray[np.float64], dtype: torch.dtype
) -> NDArray[np.float64]:
    """Probabilities, but `place`, which broadcasts, for those that only rounding in `dtype` keeps from it."""
    rounding = np.asarray(output_rounding(torch.from_numpy(place), dtype))
    return np.where(np.abs(probabilities - place) <= rounding, place, probabilities)


def _skip_reason(probability: float, information_gain: float, prediction_gain: float) -> str | None:
    if probability < MINIMUM_PROBABILITY:
        return f"probability {probability:.4f} is below {MINIMUM_PROBABILITY}"
    if information_gain <= 0:
        return "no information gained over the blurred image"
    if prediction_gain <= 0:
        return "no prediction gained over the blurred image"
    return None


def _eight_bits(images: Tensor) -> Picture:
    """Images (B, C, H, W) in [0, 1] as displayed: (B, H, W, C) of 8 bits."""
    check_images(images)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images: expected 1 or 3 channels to display, got shape {tuple(images.shape)}")
    outside = ((images < 0) | (images > 1)).flatten(1).any(1)
    if bool(outside.any()):
        raise ValueError(
            f"images: expected values in [0, 1], not so in image(s) {outside.nonzero().flatten().tolist()}"
        )
    pixels = images.to(sum_type(images.dtype)) * 255
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _random_mask(image: Picture, seed: int) -> Mask:
    """1 % of the pixels, rounded down, and the corners: (H, W)."""
    content = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
    random = np.random.default_rng([seed, int.from_bytes(content, "big")])
    mask = np.zeros(image.shape[:2], dtype=np.bool_)
    mask.flat[random.choice(mask.size, int(mask.size * KEPT_FRACTION), replace=False)] = True
    mask[np.ix_([0, -1], [0, -1])] = True
    return mask


def _pil(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def _areas(x: Tensor, y: Tensor) -> Tensor:
    """The area under each curve (…, T); NaN where it has a NaN."""
    knots = torch.stack([x, y], dim=-2).flatten(0, -3).numpy()
    areas = [area(unit_curve(*curve)) if not np.isnan(curve).any() else math.nan for curve in knots]
    return torch.tensor(areas, dtype=torch.float64).view(x.shape[:-1])


def _metric(convention: str, requires: str = "") -> Metric:
    """SIC and AIC under one convention, whose name ends the columns' names unless it is the default."""
    end = "" if convention == "pair" else f"_{convention}"

    def compute(batch: MapBatch) -> dict[str, Tensor | tuple[str | None, ...]]:
        result = information_curve(
            batch.objective, batch.images, batch.maps, convention=convention, seed=batch.seed
        )
        return {
            f"sic{end}": result.sic,
            f"aic{end}": result.aic,
            f"information{end}_x": result.information,
            f"sic{end}_y": result.probability,
            f"aic{end}_y": result.correct,
            f"sic{end}_skipped": result.sic_skipped,
            f"aic{end}_skipped": result.aic_skipped,
        }

    return Metric(
        name=f"information{end}",
        columns=_columns(end),
        summaries=(
            Summary(f"sic{end}", "area_of_median_curve", (f"information{end}_x", f"sic{end}_y"), "higher"),
            Summary(f"aic{end}", "mean", (f"aic{end}",), "higher"),
        ),
        compute=compute,
        passes_a_map=CONVENTIONS[convention].steps,
        passes_an_image=2,
        requires=requires,
        of_channel_sums=True,
    )


def _columns(end: str) -> tuple[Column, ...]:
    """Those of a convention, whose names end in `end`."""
    skipped: dict[str, Any] = {
        curve: {"undefined": "where the image is skipped", "reason": f"{curve}{end}_skipped"}
        for curve in ("sic", "aic")
    }
    return (
        Column(
            f"sic{end}", "area in [0, 1]", "higher", **skipped["sic"], meaning=f"the area under sic{end}_y"
        ),
        Column(
            f"aic{end}", "area in [0, 1]", "higher", **skipped["aic"], meaning=f"the area under aic{end}_y"
        ),
        Column(
            f"information{end}_x",
            "share of the input's information",
            kind="list",
            **skipped["sic"],
            meaning="how much of the picture is back, from the blurred image (0) to the input (1)",
        ),
        Column(
            f"sic{end}_y",
            "share of the input's probability",
            kind="list",
            **skipped["sic"],
            meaning="how much of the class's probability is back (SIC)",
            x=f"information{end}_x",
        ),
        Column(
            f"aic{end}_y",
            "top class or not",
            kind="list",
            **skipped["aic"],
            meaning="whether the class is the top one (AIC)",
            x=f"information{end}_x",
        ),
        Column(
            f"sic{end}_skipped", "reason", kind="text", meaning="why the image has no SIC; null if it has"
        ),
        Column(
            f"aic{end}_skipped", "reason", kind="text", meaning="why the image has no AIC; null if it has"
        ),
    )


INFORMATION = _metric("pair")
INFORMATION_FAST = _metric("fast")
INFORMATION_OFFICIAL_PNG = _metric("official_png")
INFORMATION_OFFICIAL_MS_SSIM = _metric("official_ms_ssim", "pytorch_msssim")

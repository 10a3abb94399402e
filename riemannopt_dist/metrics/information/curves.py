"""Performance information curves: SIC is of the target's probability, AIC of whether it is the top class.

An image starts blurred and gets back the pixels that its map ranks highest; the horizontal axis is the
information in the picture shown, between the blurred image and the input. Kapishnikov et al., 2019 ("XRAI").
"""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.metrics.information.blurred_images import BlurredImages, information_blur
from riemannopt_dist.metrics.information.content import ms_ssim_of
from riemannopt_dist.metrics.information.conventions import convention_for
from riemannopt_dist.metrics.information.pictures import Array
from riemannopt_dist.metrics.information.revealed_pictures import Chunk, ahead, end_chunks, step_chunks
from riemannopt_dist.metrics.insertion import check_maps, pixel_saliency
from riemannopt_dist.metrics.metric import area, unit_curve
from riemannopt_dist.objective import Objective, explained_output, output_rounding
from riemannopt_dist.precision import sum_type
from riemannopt_dist.transfer import on_device

MINIMUM_PROBABILITY = 0.8


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
    curve whose prediction it does not raise (by more than rounding). `saliency` asks for 0.8 of each curve's
    own prediction, so that its AIC takes every image of the right class; the code of arXiv 2410.04118 drops
    an image from both curves where one of them has a reason.

    `blurred` is the result of `information_blur` with this convention and seed, if at hand. `workers`
    threads (by default as many as torch uses) make and measure pictures while the model predicts. They
    change no result.
    """
    check_images(images)
    objective.check(images)
    check_maps(maps, images)
    size = objective.internal_batch_size
    how = convention_for(convention, images)
    blurred = blurred or information_blur(images, convention=convention, seed=seed)
    if len(blurred.shown) != len(images) or blurred.shown.shape[1:3] != images.shape[2:]:
        raise ValueError(f"blurred: expected that of images {tuple(images.shape)}, got {blurred.shown.shape}")
    stacked = maps if maps.ndim == 5 else maps[None]
    with ThreadPoolExecutor(workers or torch.get_num_threads()) as pool:
        start, end = (
            _observe(objective, images, end_chunks(pool, pictures, how, images.device, size))
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
        chunks = step_chunks(pool, blurred, rows * len(stacked), saliency, how, size)
        steps = _observe(objective, images, chunks).reshape(3, len(stacked), len(rows), how.steps)
    dtype = objective.rounding_type(sum_type(images.dtype))
    for side in (start, end):
        steps[1] = _snapped(steps[1], side[1, rows, None], dtype)
    progress = np.full((3, len(stacked), len(images), how.steps), np.nan)
    progress[:, :, rows] = _progress(steps, start[:, rows], gain[:, rows])
    information, probability, correct = torch.from_numpy(progress.reshape(3, *maps.shape[:-3], how.steps))
    return InformationCurve(information, probability, correct, sic_skipped, aic_skipped)


def _progress(steps: Array, start: Array, gain: Array) -> Array:
    """The three numbers of each step (3, S, B, K) as shares of what they gain (3, B); NaN where nothing."""
    gain = np.where(gain > 0, gain, np.nan)
    progress = np.clip((steps - start[:, None, :, None]) / gain[:, None, :, None], 0.0, 1.0)
    progress[1:] = np.maximum.accumulate(progress[1:], axis=-1)
    return progress


def _observe(objective: Objective, images: Tensor, chunks: Iterable[Chunk]) -> NDArray[np.float64]:
    """Information, the target's probability and whether it is the top class, for all N pictures: (3, N)."""
    values = [torch.empty(3, 0, device=images.device, dtype=torch.float64)]
    with torch.no_grad():
        for rows, futures in ahead(chunks):
            pictures, sizes = zip(*(future.result() for future in futures), strict=True)
            shown = on_device(np.stack(pictures), images.device).permute(0, 3, 1, 2)
            inputs = shown.contiguous().to(images.dtype) / 255
            logits = objective.logits(inputs)
            information = on_device(np.array(sizes, dtype=np.float64), images.device)
            if math.isnan(sizes[0]):
                information = ms_ssim_of(inputs, images[rows])
            targets = objective.targets[rows]
            probability = explained_output(logits, targets)
            correct = logits.argmax(dim=1) == targets
            values.append(torch.stack([information.double(), probability.double(), correct.double()]))
    return torch.cat(values, dim=1).cpu().numpy()


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


def _areas(x: Tensor, y: Tensor) -> Tensor:
    """The area under each curve (…, T); NaN where it has a NaN."""
    knots = torch.stack([x, y], dim=-2).flatten(0, -3).numpy()
    areas = [area(unit_curve(*curve)) if not np.isnan(curve).any() else math.nan for curve in knots]
    return torch.tensor(areas, dtype=torch.float64).view(x.shape[:-1])

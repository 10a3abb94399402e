"""Insertion and deletion: f while the pixels that a map ranks highest are revealed, or removed.

Both replace the pixels of one image by those of another in the map's order. Insertion goes from a
start image to the input, deletion from the input to black; the score is the area under the curve.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from riemannopt_dist.arguments import check_choice, check_images
from riemannopt_dist.metrics.metric import Column, Direction, MapBatch, Metric, Summary
from riemannopt_dist.objective import (
    Objective,
    Output,
    micro_batches,
    output_rounding,
)
from riemannopt_dist.precision import ieee_float32, sum_type

Convention = Literal["official", "rise"]
CONVENTIONS: tuple[str, ...] = ("official", "rise")

OFFICIAL_STEPS = 20
RISE_PIXELS_PER_STEP = 224
RISE_KERNEL_SIZE = 11
RISE_SIGMA = 5.0
SMOOTHING = 1 / 28
"""σ of the blur of `smoothed_insertion`, in units of the image's height."""


@dataclass(frozen=True)
class Curve:
    """f after each step of an insertion or deletion.

    `fractions` (K,) is the share of pixels replaced, from 0 to 1, or to 0.9 by ROAD; `curve` (…, B, K) is f
    there, and `f_input` (…, B) is f(x): the end of an insertion, the start of a deletion. All are float32 or
    wider; `output` says what f is, `computed_in` which type rounds as f does: that of the curve unless given.
    """

    fractions: Tensor
    curve: Tensor
    f_input: Tensor
    output: Output = "probability"
    computed_in: torch.dtype | None = None

    @property
    def score(self) -> Tensor:
        """The mean of the curve by the trapezoid, every step being as wide as the others: (…, B).

        It is the area under the curve where the shares go from 0 to 1.
        """
        ends = (self.curve[..., 0] + self.curve[..., -1]) / 2
        return (self.curve.sum(-1) - ends) / (self.curve.shape[-1] - 1)

    @property
    def normalized(self) -> Tensor:
        """The score over f(x), not clipped: (…, B). NaN where f(x) is not above the rounding of the curve.

        Over a negative logit, the better map would get the worse number.
        """
        dtype = self.computed_in or self.curve.dtype
        rounding = output_rounding(self.curve.abs().amax(-1), dtype, self.output)
        return torch.where(self.f_input <= rounding, torch.nan, self.score / self.f_input)


@dataclass(frozen=True, eq=False)
class Replacement:
    """Images `before` (B, C, H, W) whose pixels give way to those `after`; f of both, (B,), if known."""

    before: Tensor
    after: Tensor
    f_before: Tensor | None = None
    f_after: Tensor | None = None


def insertion(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    convention: Convention = "official",
    f_input: Tensor | None = None,
    f_start: Tensor | None = None,
) -> Curve:
    """f while the pixels of each image (B, C, H, W) appear in the order of its maps; higher is better.

    `maps` is (B, C, H, W), or (S, B, C, H, W) for S maps an image; scores are then (S, B). Pixels are
    ranked by |channel sum|, highest first, equal ones in row-major order.

    "official" is the code of arXiv 2410.04118: from black, 5 % of the pixels a step (21 points, counts
    rounded down). "rise" is Petsiuk et al., 2018: from a blurred image, 224 pixels a step.

    `f_input`, f(x), and `f_start`, f at the start image, both (B,), spare the evaluation of the curve's
    ends if known. Raises ValueError for maps of another shape or with NaN or infinity, for images and targets
    that do not fit, and for a model in training mode.
    """
    check_images(images)
    start = rise_blur(images) if convention == "rise" else torch.zeros_like(images)
    replacement = Replacement(start, images, f_start, f_input)
    fractions, curve = _replacement_curve(objective, replacement, maps, convention)
    return Curve(fractions, curve, curve[..., -1], objective.output, objective.rounding_type(curve.dtype))


def smoothed_insertion(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    f_input: Tensor | None = None,
    f_start: Tensor | None = None,
) -> Curve:
    """`insertion` in the order of |channel sum| after a Gaussian blur: regions appear, not scattered pixels.

    σ is `SMOOTHING` of the image's height, 8 pixels of 224. Gradients are noisy from pixel to pixel, and
    scattered pixels show a network little whatever their importance: unsmoothed, an edge detector scores
    above every gradient method. Arguments, result and errors are those of `insertion`.
    """
    check_images(images)
    check_maps(maps, images)
    return insertion(objective, images, smoothed(maps), f_input=f_input, f_start=f_start)


@ieee_float32()
def smoothed(maps: Tensor) -> Tensor:
    """Maps of the same shape (…, C, H, W) whose |channel sum| is that of `maps`, blurred, edges reflected."""
    # Loading torchvision takes seconds, which every worker that does not smooth is spared.
    from torchvision.transforms.functional import gaussian_blur

    saliency = pixel_saliency(maps)
    sigma = SMOOTHING * maps.shape[-2]
    # Torch reflects by less than a side.
    radius = min(math.ceil(3 * sigma), min(maps.shape[-2:]) - 1)
    blurred: Tensor = gaussian_blur(saliency.flatten(0, -3)[:, None], [2 * radius + 1] * 2, [sigma] * 2)
    channels = maps.shape[-3]
    return (blurred.view_as(saliency) / channels).unsqueeze(-3).expand(maps.shape)


def deletion(
    objective: Objective,
    images: Tensor,
    maps: Tensor,
    *,
    convention: Convention = "official",
    f_input: Tensor | None = None,
    f_end: Tensor | None = None,
) -> Curve:
    """f while the pixels of each image turn black in the order of its maps; lower is better.

    Arguments as in `insertion`; both conventions end at black, whose f is `f_end` (B,), and differ in
    their steps alone.
    """
    check_images(images)
    black = torch.zeros_like(images)
    replacement = Replacement(images, black, f_input, f_end)
    fractions, curve = _replacement_curve(objective, replacement, maps, convention)
    return Curve(fractions, curve, curve[..., 0], objective.output, objective.rounding_type(curve.dtype))


def _replacement_curve(
    objective: Objective, replacement: Replacement, maps: Tensor, convention: Convention
) -> tuple[Tensor, Tensor]:
    """Fractions (K,) and the curve (…, B, K) of a replacement in the order of maps (…, B, C, H, W)."""
    before = replacement.before
    check_choice(convention, CONVENTIONS, "convention")
    objective.check(before)
    objective.check(replacement.after)
    check_maps(maps, before)
    pixels = before.shape[-2] * before.shape[-1]
    counts = official_counts(pixels) if convention == "official" else rise_counts(pixels)
    saliency = pixel_saliency(maps)
    rows = torch.arange(len(before), device=before.device).expand(saliency.shape[:-2]).flatten()
    ranks = pixel_ranks(saliency.flatten(0, -3))
    curve = replacement_curves(objective, replacement, rows, ranks, counts)
    fractions = torch.tensor(counts, device=before.device, dtype=curve.dtype) / pixels
    return fractions, curve.view(*saliency.shape[:-2], len(counts))


def replacement_curves(
    objective: Objective, replacement: Replacement, rows: Tensor, ranks: Tensor, counts: Sequence[int]
) -> Tensor:
    """f as the pixels of B images give way to others, for N maps: (N, K).

    Map n belongs to image `rows[n]` and replaces its pixels in the order `ranks[n]`, (N, H, W), rank 0
    first. `counts` (K,) rises from 0 to H · W. The ends of a curve depend on the image alone: they are
    evaluated once for all its maps, unless they are known.
    """
    before, after = replacement.before, replacement.after
    f_before, f_after = replacement.f_before, replacement.f_after
    if f_before is None:
        f_before = objective.values(before)
    if f_after is None:
        f_after = objective.values(after)
    inner = torch.tensor(counts[1:-1], device=before.device, dtype=ranks.dtype)
    maps, steps = len(ranks), len(inner)
    job_maps = torch.arange(maps, device=before.device).repeat_interleave(steps)
    job_counts = inner.repeat(maps)
    values = [f_before.new_empty(0)]
    for part in micro_batches(maps * steps, objective.internal_batch_size):
        chosen = job_maps[part]
        image = rows[chosen]
        replaced = ranks[chosen] < job_counts[part, None, None]
        mixed = torch.where(replaced[:, None], after[image], before[image])
        values.append(objective.of(image).values(mixed))
    middle = torch.cat(values).view(maps, steps)
    return torch.cat([f_before[rows, None], middle, f_after[rows, None]], dim=1)


def pixel_saliency(maps: Tensor) -> Tensor:
    """How much a map says of each pixel, |channel sum|, float32 or wider: (…, H, W) of (…, C, H, W)."""
    return maps.sum(-3, dtype=sum_type(maps.dtype)).abs()


def pixel_ranks(saliency: Tensor) -> Tensor:
    """Each pixel's place in descending saliency (N, H, W), equal ones in row-major order: int32 (N, H, W)."""
    order = saliency.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device, dtype=torch.int32).expand_as(order)
    return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places).view(saliency.shape)


def official_counts(pixels: int) -> list[int]:
    """0, 5, …, 100 % of the pixels, rounded down."""
    return [pixels * step // OFFICIAL_STEPS for step in range(OFFICIAL_STEPS + 1)]


def rise_counts(pixels: int) -> list[int]:
    """0, 224, 448, … pixels, and all of them."""
    return [*range(0, pixels, RISE_PIXELS_PER_STEP), pixels]


@ieee_float32()
def rise_blur(images: Tensor) -> Tensor:
    """RISE's blurred start: an 11 × 11 Gaussian of σ 5, its tails folded back into the window, zero padding.

    The kernel is what `scipy.ndimage.gaussian_filter` (mode "reflect") makes of a single bright pixel in
    an 11 × 11 window, as in the code of Petsiuk et al. (2018).
    """
    impulse = np.zeros(RISE_KERNEL_SIZE)
    impulse[RISE_KERNEL_SIZE // 2] = 1.0
    wide = images.to(sum_type(images.dtype))
    line = torch.from_numpy(gaussian_filter1d(impulse, RISE_SIGMA)).to(wide)
    channels = images.shape[1]
    kernel = torch.outer(line, line).expand(channels, 1, -1, -1)
    blurred = nn.functional.conv2d(wide, kernel, padding=RISE_KERNEL_SIZE // 2, groups=channels)
    return blurred.to(images.dtype)


def check_maps(maps: Tensor, images: Tensor) -> None:
    """Raise ValueError unless `maps` is finite and (B, C, H, W) as the images, or (S, B, C, H, W)."""
    if not isinstance(maps, Tensor) or maps.ndim not in (4, 5) or maps.shape[-4:] != images.shape:
        kind = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps)
        expected = f"{tuple(images.shape)}, with or without a leading axis"
        raise ValueError(f"maps: expected the images' shape {expected}, got {kind}")
    if len(maps) == 0:
        raise ValueError("maps: expected at least one map an image, got none")
    if maps.device != images.device:
        raise ValueError(f"maps: expected on the images' device {images.device}, got {maps.device}")
    finite = torch.isfinite(maps).flatten(-3).all(-1).view(-1, len(images)).all(0)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"maps: expected finite values, found NaN or infinity for image(s) {bad}")


def _metric(
    name: str, curve_of: Callable[..., Curve], f_black: str, direction: Direction, shown: str
) -> Metric:
    """The metric of a curve of f as pixels are `shown`; `f_black` is its argument for f at black."""

    def compute(batch: MapBatch) -> dict[str, Tensor]:
        ends = {"f_input": batch.f_input, f_black: batch.f_black}
        result = curve_of(batch.objective, batch.images, batch.maps, **ends)
        return {name: result.score, f"{name}_normalized": result.normalized, f"{name}_curve": result.curve}

    return Metric(
        name=name,
        columns=(
            Column(
                name, "mean of f", direction, meaning=f"the area under the curve of f as pixels are {shown}"
            ),
            Column(
                f"{name}_normalized",
                "mean of f over f(x)",
                direction,
                undefined="where f(x) is 0 or less",
                meaning=f"{name} over f at the image",
            ),
            Column(
                f"{name}_curve",
                "f",
                kind="list",
                meaning=f"f as pixels are {shown}; x is their share, rounded down to whole pixels",
                x=tuple(step / OFFICIAL_STEPS for step in range(OFFICIAL_STEPS + 1)),
            ),
        ),
        summaries=(
            Summary(f"{name}_mean", "mean", (name,), direction),
            Summary(f"{name}_normalized_mean", "mean", (f"{name}_normalized",), direction),
        ),
        compute=compute,
        passes_a_map=OFFICIAL_STEPS - 1,
        needs_f_black=True,
        against_controls=name,
        of_channel_sums=True,
    )


INSERTION = _metric(
    "insertion", insertion, "f_start", "higher", "put on black, those of most attribution first"
)
SMOOTHED_INSERTION = _metric(
    "insertion_smoothed",
    smoothed_insertion,
    "f_start",
    "higher",
    "put on black in the order of a blurred map",
)
DELETION = _metric("deletion", deletion, "f_end", "lower", "made black, those of most attribution first")

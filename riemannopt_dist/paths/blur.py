"""Blur IG's path (Xu, Venugopalan & Sundararajan, CVPR 2020): from the blurred image to the image.

A Gaussian blur with zero padding is separable: blurring an image X of H × W is A X Aᵀ, with banded
Toeplitz matrices A (H × H on the left, W × W on the right) that hold the kernel's taps. A whole batch
of images, each with its own σ, is therefore a few batched matrix products.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from riemannopt_dist.arguments import check_choice, check_images
from riemannopt_dist.paths.base import SIGMA_MAX
from riemannopt_dist.precision import ieee_float32, sum_type

Parametrization = Literal["sigma", "variance", "log"]
Convention = Literal["closed_form", "original"]
CONVENTIONS: tuple[str, ...] = ("closed_form", "original")

ORIGINAL_STEP = 0.01
"""The step in σ of the original implementation's forward difference, in pixels."""

NARROWEST = 1e-3
"""Where a formula divides by σ, the least σ (pixels) it sees. Kernels as narrow are the identity."""


def linear_in_sigma(alphas: Tensor, sigma_max: float) -> tuple[Tensor, Tensor]:
    """σ = σ_max (1 − α) and dσ/dα."""
    return sigma_max * (1 - alphas), torch.full_like(alphas, -sigma_max)


def linear_in_variance(alphas: Tensor, sigma_max: float) -> tuple[Tensor, Tensor]:
    """σ = σ_max √(1 − α) and dσ/dα, which is infinite at α = 1 and cut off where the blur has ended."""
    sigma = sigma_max * (1 - alphas).sqrt()
    return sigma, -(sigma_max**2) / (2 * sigma.clamp_min(NARROWEST))


def linear_in_log(alphas: Tensor, sigma_max: float) -> tuple[Tensor, Tensor]:
    """σ = (1 + σ_max)^(1 − α) − 1, which spreads log(1 + σ) evenly, and dσ/dα."""
    rate = math.log1p(sigma_max)
    sigma = torch.expm1(rate * (1 - alphas))
    return sigma, -rate * (1 + sigma)


PARAMETRIZATIONS: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "sigma": linear_in_sigma,
    "variance": linear_in_variance,
    "log": linear_in_log,
}


@dataclass(frozen=True)
class BlurPath:
    """γ(α) = the image blurred with σ(α), from σ_max pixels at α = 0 to no blur at α = 1.

    The blur is that of `scipy.ndimage.gaussian_filter(mode="constant")` along rows and columns: zero
    padding and taps up to `truncate` · σ pixels, rounded. `parametrization` spaces σ over [0, 1]: "sigma"
    is the paper's σ_max (1 − α). `convention` says what dγ/dσ is: "closed_form" differentiates the taps,
    "original" is the forward difference of step 0.01 that PAIR's implementation takes.

    Each time the kernel gains a tap, γ jumps by about exp(−truncate²/2), which no derivative sees: ∫ dγ/dα
    misses 0.3 % of γ(1) − γ(0) for `truncate` 4, and 0.005 % for 5.

    Raises ValueError unless images are a finite floating-point batch (B, C, H, W), sigma_max and truncate
    are positive and finite, and the names are known.
    """

    images: Tensor
    sigma_max: float = SIGMA_MAX
    truncate: float = 4.0
    parametrization: Parametrization = "sigma"
    convention: Convention = "closed_form"

    def __post_init__(self) -> None:
        check_images(self.images)
        object.__setattr__(self, "images", self.images.detach())  # as StraightPath does
        for name, value in (("sigma_max", self.sigma_max), ("truncate", self.truncate)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive finite number, got {value!r}")
        check_choice(self.parametrization, tuple(PARAMETRIZATIONS), "parametrization")
        check_choice(self.convention, CONVENTIONS, "convention")

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """γ(α) and dγ/dα, each (N, C, H, W), for image indices `rows` (N,) and positions `alphas` (N,).

        Both are computed in float32 or wider; γ is then rounded to the images' type.
        """
        sigma, speed = PARAMETRIZATIONS[self.parametrization](alphas.double(), self.sigma_max)
        taps, slopes, end = self._kernels(sigma)
        taps, slopes, end = (k.to(self._folded) for k in (taps, slopes * speed[:, None], end))
        blurred, velocity = blur(self._folded[rows], self.images.shape[2:], taps, slopes, end)
        sharp = taps[:, 0, None, None, None] == 1
        return torch.where(sharp, self.images[rows], blurred.to(self.images.dtype)), velocity

    @cached_property
    def _folded(self) -> Tensor:
        """The images, float32 or wider, folded along rows and columns: (B, 2, ⌈H/2⌉, 2, C, ⌈W/2⌉)."""
        images = self.images.to(sum_type(self.images.dtype))
        return fold(fold(images, 3), 3).permute(2, 0, 4, 1, 3, 5).contiguous()

    def _kernels(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The taps at σ, their change per unit of σ, and the taps at the end of the step of that change."""
        size = max(self.images.shape[2:]) + 1
        reach = math.ceil(self.truncate * (self.sigma_max + ORIGINAL_STEP)) + 1
        distances = torch.arange(max(size, reach + 1), dtype=torch.float64, device=sigma.device)
        taps, slopes = gaussian_taps(sigma, distances, self.truncate)
        end = taps
        if self.convention == "original":
            end, _ = gaussian_taps(sigma + ORIGINAL_STEP, distances, self.truncate)
            slopes = (end - taps) / ORIGINAL_STEP
        return taps[:, :size], slopes[:, :size], end[:, :size]


def gaussian_taps(sigma: Tensor, distances: Tensor, truncate: float) -> tuple[Tensor, Tensor]:
    """The normalised kernel k and dk/dσ at `distances` 0, 1, … (R,), which reach every tap: (N, R) each.

    With m = d²/σ³ = ∂ log(unnormalised tap)/∂σ, dk/dσ = k (m − Σ k m), the sum running over both sides.
    """
    radius = (truncate * sigma + 0.5).floor()
    width = sigma.clamp_min(NARROWEST)[:, None]
    taps = torch.where(distances <= radius[:, None], torch.exp(-0.5 * (distances / width) ** 2), 0.0)
    taps = taps / _both_sides(taps)
    growth = distances**2 / width**3
    return taps, taps * (growth - _both_sides(taps * growth))


def _both_sides(taps: Tensor) -> Tensor:
    """Σ over a symmetric kernel given its taps at distances 0, 1, … (N, R): (N, 1)."""
    return 2 * taps.sum(1, keepdim=True) - taps[:, :1]


@ieee_float32()
def blur(
    folded: Tensor, size: Sequence[int], taps: Tensor, slopes: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """A X Aᵀ and dA X Eᵀ + A X dAᵀ, (N, C, H, W), with A, dA, E from taps, slopes, end (N, > max(H, W)).

    X are images of `size` (H, W), folded along rows and columns: (N, 2, ⌈H/2⌉, 2, C, ⌈W/2⌉). With E = A the
    second is the derivative of the first by the product rule. With E = A + h dA it is its forward difference
    over h, free of the cancellation that subtracting two blurs would bring.
    """
    n, _, h, _, c, w = folded.shape
    height, width = size
    matrices = [folded_toeplitz(kernel, h) for kernel in (taps, slopes)]
    rows = torch.cat(matrices, dim=1).bmm(folded.view(2 * n, h, 2 * c * w)).view(n, 2, 2, h, 2, c, w)
    rows = unfold(rows.permute(1, 2, 0, 4, 3, 5, 6), 3, height)  # A X and dA X; image, part, H, C, ⌈W/2⌉
    blurred_rows, changed_rows = rows.reshape(2, 2 * n, height * c, w)
    if w != h:
        matrices = [folded_toeplitz(kernel, w) for kernel in (taps, slopes)]
    both = blurred_rows.bmm(torch.cat(matrices, dim=2))
    change = torch.baddbmm(both[:, :, w:], changed_rows, folded_toeplitz(end, w))
    blurred, change = (
        part.view(n, 2, height, c, w).permute(1, 0, 3, 2, 4) for part in (both[:, :, :w], change)
    )
    return unfold(blurred, 3, width), unfold(change, 3, width)


def fold(x: Tensor, dim: int) -> Tensor:
    """The even and odd parts of x under reversal of `dim`, on their first halves: (2, …, ⌈n/2⌉, …).

    A symmetric Toeplitz matrix commutes with reversal, so it maps even to even and odd to odd: two products
    of half the size instead of one, half of the arithmetic. A zero is appended where n is odd.
    """
    if x.shape[dim] % 2:
        x = torch.cat([x, torch.zeros_like(x.narrow(dim, 0, 1))], dim)
    first, second = x.chunk(2, dim)
    mirrored = second.flip(dim)
    return torch.stack([first + mirrored, first - mirrored]) / 2


def unfold(parts: Tensor, dim: int, size: int) -> Tensor:
    """The tensor, `size` long along `dim`, that `fold` would turn into `parts`."""
    even, odd = parts
    return torch.cat([even + odd, (even - odd).flip(dim)], dim).narrow(dim, 0, size)


def folded_toeplitz(taps: Tensor, half: int) -> Tensor:
    """M[i, j] = taps[|i − j|] of size 2 · half acting on even and on odd parts: (N · 2, half, half).

    Entry j of a half stands for itself and, with the part's sign, for its mirror image 2 · half − 1 − j.
    """
    near = torch.cat([taps[:, 1:half].flip(1), taps[:, :half]], dim=1).unfold(1, half, 1).flip(1)
    mirrored = taps[:, 1 : 2 * half].flip(1).unfold(1, half, 1)
    return torch.stack([near + mirrored, near - mirrored], dim=1).flatten(0, 1)

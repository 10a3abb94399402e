"""Profiles: how fast the integrand changes along a path, |g′|(α), estimated from images.

Algorithm 1 of arXiv 2410.04118: the integrand is sampled at k points of each image's path, the magnitude
of its divided differences is averaged over features and then over images.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from riemannopt_dist.arguments import check_model, check_targets
from riemannopt_dist.gradients import DEFAULT_INTERNAL_BATCH_SIZE, Output, sample_path
from riemannopt_dist.paths import Path
from riemannopt_dist.precision import sum_type
from riemannopt_dist.schedule import Array

PROFILE_SAMPLES = 128


@dataclass(frozen=True)
class Profile:
    """|g′|(α): magnitudes at increasing points of [0, 1], linear between them and constant beyond.

    standard_errors are those of the mean over images (NaN for a single image). Magnitudes are in units of
    the explained output per unit of α, per feature. roughness, where known, is the mean over images of
    (Δg)² / Δα, g in units of the image's own ∫|g′|: the variance that a random walk gathers per unit of α.
    """

    points: tuple[float, ...]
    magnitudes: tuple[float, ...]
    standard_errors: tuple[float, ...]
    images: int
    roughness: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        points, magnitudes = np.asarray(self.points), np.asarray(self.magnitudes)
        if len(points) == 0 or len({len(points), len(magnitudes), len(self.standard_errors)}) != 1:
            raise ValueError(
                f"profile: expected as many magnitudes and standard errors as points and at least one, got "
                f"{len(points)} points, {len(magnitudes)} magnitudes, {len(self.standard_errors)} errors"
            )
        if not (points[0] >= 0 and points[-1] <= 1 and np.all(np.diff(points) > 0)):
            raise ValueError(f"profile: expected increasing points in [0, 1], got {self.points}")
        if not np.all(np.isfinite(magnitudes)) or np.any(magnitudes < 0):
            raise ValueError(f"profile: expected finite magnitudes of at least 0, got {self.magnitudes}")
        if self.roughness is not None and (
            len(self.roughness) != len(points) or not all(0 <= value < np.inf for value in self.roughness)
        ):
            raise ValueError(
                f"profile: expected a finite roughness of at least 0 for each point, got {self.roughness}"
            )

    def __call__(self, alphas: ArrayLike) -> Array:
        """|g′| at positions `alphas`."""
        return np.interp(np.asarray(alphas, dtype=np.float64), self.points, self.magnitudes)

    def to_json(self) -> str:
        """The profile as a JSON object; floats survive the round trip exactly, and NaN is null."""
        errors = [None if math.isnan(error) else error for error in self.standard_errors]
        return json.dumps(asdict(self) | {"standard_errors": errors}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Profile":
        """The profile that `to_json` wrote. Raises ValueError on anything else."""
        try:
            return cls.from_fields(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"profile: expected a JSON object ({error})") from None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Profile":
        """The profile of a parsed JSON object. Raises ValueError where a field is missing or bad."""
        try:
            return cls(
                tuple(fields["points"]),
                tuple(fields["magnitudes"]),
                tuple(math.nan if error is None else error for error in fields["standard_errors"]),
                fields["images"],
                tuple(fields["roughness"]) if fields.get("roughness") else None,
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"profile: expected the JSON object of a profile ({error!r})") from None


@dataclass(frozen=True, eq=False)
class ProfileSum:
    """A mean over images in the making: its size does not grow with the images it has seen.

    `alphas` (k,) are the positions sampled; mean and squares (k − 1,) are Welford's running mean and sum of
    squared deviations of the images' variations, roughness (k − 1,) the sum of what `Profile` means by it.
    """

    alphas: Array
    count: int
    mean: Array
    squares: Array
    roughness: Array

    @classmethod
    def empty(cls, alphas: ArrayLike) -> "ProfileSum":
        """Nothing seen yet, at positions `alphas`."""
        positions = np.asarray(alphas, dtype=np.float64)
        zeros = np.zeros(len(positions) - 1)
        return cls(positions, 0, zeros, zeros, zeros)

    def add(self, variations: Array) -> "ProfileSum":
        """The sum with further images' variations (B, k − 1) in it."""
        if variations.ndim != 2 or variations.shape[1:] != self.mean.shape:
            raise ValueError(f"variations: expected (B, {len(self.mean)}), got {variations.shape}")
        count, mean, squares, roughness = self.count, self.mean, self.squares, self.roughness
        widths = np.diff(self.alphas)
        for variation in variations:
            total = float(variation @ widths)
            roughness = roughness + (variation / total) ** 2 * widths if total > 0 else roughness
            count += 1
            deviation = variation - mean
            mean = mean + deviation / count
            squares = squares + deviation * (variation - mean)
        return ProfileSum(self.alphas, count, mean, squares, roughness)

    def profile(self) -> Profile:
        """The mean as a profile, placed at the middles of the sampled intervals."""
        if self.count == 0:
            raise ValueError("profile: expected at least one image, got none")
        middles = (self.alphas[:-1] + self.alphas[1:]) / 2
        variance = self.squares / (self.count - 1) if self.count > 1 else np.full_like(self.mean, np.nan)
        errors = np.sqrt(variance / self.count)
        columns = (middles, self.mean, errors)
        points, magnitudes, standard_errors = (tuple(column.tolist()) for column in columns)
        roughness = tuple((self.roughness / self.count).tolist())
        return Profile(points, magnitudes, standard_errors, self.count, roughness)


def equispaced(samples: int) -> Array:
    """`samples` ≥ 2 equispaced positions from 0 to 1, both ends included."""
    if samples < 2:
        raise ValueError(f"samples: a profile needs at least 2, got {samples}")
    return np.linspace(0.0, 1.0, samples)


def path_variation(
    model: nn.Module,
    path: Path,
    targets: Tensor,
    alphas: Array,
    *,
    output: Output = "probability",
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Array:
    """Mean over features of |g(α_{i+1}) − g(α_i)| / (α_{i+1} − α_i) for each image, (B, k − 1).

    Memory is that of one micro-batch: of the samples already seen only the last is kept.
    """
    check_model(model)
    check_targets(targets, path.images, model)
    changes = torch.zeros((len(targets), len(alphas)), dtype=torch.float64, device=targets.device)
    positions = np.broadcast_to(alphas, (len(targets), len(alphas)))
    last = torch.zeros_like(path.images[:1], dtype=sum_type(path.images.dtype))
    for samples in sample_path(
        model, path, targets, positions, output=output, internal_batch_size=internal_batch_size
    ):
        integrand = samples.integrand
        previous = torch.cat([last, integrand[:-1]])
        changes[samples.rows, samples.columns] = (integrand - previous).abs().flatten(1).mean(1).double()
        last = integrand[-1:]
    # Column 0 compares with another image's last sample, and is dropped.
    return np.asarray(changes[:, 1:].cpu().numpy() / np.diff(alphas))

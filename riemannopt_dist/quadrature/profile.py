"""Profiles: how fast the integrand changes along a path, |g′|(α), estimated from images.

Algorithm 1 of arXiv 2410.04118: the integrand is sampled at k points of each image's path, the magnitude
of its divided differences is averaged over features and then over images. The paper takes the mean over
images, its authors' code the median of images that are normalised first.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from riemannopt_dist.choices import AVERAGES, DEFAULT_AVERAGE, Average, check_choice
from riemannopt_dist.quadrature.schedule import Array

PROFILE_SAMPLES = 128


@dataclass(frozen=True)
class Profile:
    """|g′|(α): magnitudes at increasing points of [0, 1], linear between them and constant beyond.

    standard_errors are those of the average over images (NaN for a single image). `average` names it: of the
    "mean" magnitudes are in units of the explained output per unit of α, per feature, of "normalised_mean"
    and "normalised_median" in units of each image's own ∫|g′|. roughness, where known, is the mean over
    images of (Δg)² / Δα, g in units of the image's own ∫|g′|: the variance that a random walk gathers per
    unit of α. medians, where known, are those over images of the shares of an image's variation that lie in
    each of len(medians) equal intervals: what the placement "riemannopt" takes.
    """

    points: tuple[float, ...]
    magnitudes: tuple[float, ...]
    standard_errors: tuple[float, ...]
    images: int
    roughness: tuple[float, ...] | None = None
    medians: tuple[float, ...] | None = None
    average: Average = "mean"

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
        if self.medians is not None and not (
            self.medians and all(0 <= value < np.inf for value in self.medians)
        ):
            raise ValueError(f"profile: expected finite medians of at least 0, got {self.medians}")
        check_choice(self.average, AVERAGES, "profile: average")

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
                tuple(fields["medians"]) if fields.get("medians") else None,
                fields.get("average", "mean"),
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"profile: expected the JSON object of a profile ({error!r})") from None


@dataclass(frozen=True, eq=False)
class Variations:
    """How fast each image's integrand changes between the same positions of its path.

    `alphas` (k,) are the positions, increasing in [0, 1], `values` (images, k − 1) the |Δg / Δα| between
    them, means over features. Raises ValueError for other shapes, no image, or values that are negative or
    not finite.
    """

    alphas: Array
    values: Array

    def __post_init__(self) -> None:
        alphas, values = self.alphas, self.values
        if alphas.ndim != 1 or len(alphas) < 2 or np.any(np.diff(alphas) <= 0) or not _within(alphas):
            raise ValueError(f"alphas: expected at least 2 increasing positions in [0, 1], got {alphas}")
        if values.ndim != 2 or values.shape[1] != len(alphas) - 1:
            raise ValueError(f"variations: expected (images, {len(alphas) - 1}), got {values.shape}")
        if not len(values):
            raise ValueError("variations: expected at least one image, got none")
        if not np.all(np.isfinite(values)) or np.any(values < 0):
            raise ValueError("variations: expected finite values of at least 0")

    @property
    def widths(self) -> Array:
        """The lengths of the intervals, (k − 1,)."""
        return np.diff(self.alphas)

    @property
    def normalised(self) -> Array:
        """The values of those images that vary at all, each in units of its own ∫|g′|."""
        totals = self.values @ self.widths
        return np.asarray(self.values[totals > 0] / totals[totals > 0, None])

    def profile(self, average: Average = DEFAULT_AVERAGE) -> Profile:
        """Their `average` as a profile, placed at the middles of the sampled intervals."""
        check_choice(average, AVERAGES, "average")
        normalised, widths, images = self.normalised, self.widths, len(self.values)
        averaged = self.values if average == "mean" else normalised
        magnitudes, errors = _AVERAGING[average](averaged if len(averaged) else self.values)
        even = np.allclose(self.alphas, equispaced(len(self.alphas)), rtol=0, atol=1e-9)
        medians = np.median(normalised * widths, axis=0) if len(normalised) else np.zeros_like(widths)
        return Profile(
            _numbers((self.alphas[:-1] + self.alphas[1:]) / 2),
            _numbers(magnitudes),
            _numbers(errors),
            images,
            _numbers((normalised**2).sum(axis=0) * widths / images),
            _numbers(medians) if even else None,
            average,
        )


def profile_from_variations(
    alphas: ArrayLike, variations: ArrayLike, average: Average = DEFAULT_AVERAGE
) -> Profile:
    """The profile of images' variations |Δg / Δα| (images, k − 1) between positions `alphas` (k,) in [0, 1].

    `average` is over images: their "mean" as in Algorithm 1 of arXiv 2410.04118; "normalised_mean", with each
    image in units of its own ∫|g′|; or "normalised_median", as the authors' code has it. The placement
    "riemannopt" takes the medians whatever the average; for these, positions are equispaced from 0 to 1.
    Raises ValueError for positions that do not increase, and for variations of another shape, negative or
    not finite.
    """
    positions, values = (np.asarray(given, dtype=np.float64) for given in (alphas, variations))
    return Variations(positions, values).profile(average)


def _mean(values: Array) -> tuple[Array, Array]:
    """The mean over images of values (images, k − 1), and its standard error."""
    if len(values) == 1:
        return values[0], np.full_like(values[0], np.nan)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(len(values))


def _median(values: Array) -> tuple[Array, Array]:
    """The median over images, and half of the interval between the quantiles a standard error from it."""
    if len(values) == 1:
        return values[0], np.full_like(values[0], np.nan)
    reach = 0.5 / math.sqrt(len(values))  # the standard error of a share of ½
    low, median, high = np.quantile(values, [0.5 - reach, 0.5, 0.5 + reach], axis=0)
    return median, (high - low) / 2


_AVERAGING: dict[Average, Callable[[Array], tuple[Array, Array]]] = {
    "mean": _mean,
    "normalised_mean": _mean,
    "normalised_median": _median,
}


def _within(alphas: Array) -> bool:
    return bool(np.all((alphas >= 0) & (alphas <= 1)))


def _numbers(values: Array) -> tuple[float, ...]:
    return tuple(values.tolist())


def equispaced(samples: int) -> Array:
    """`samples` ≥ 2 equispaced positions from 0 to 1, both ends included."""
    if samples < 2:
        raise ValueError(f"samples: a profile needs at least 2, got {samples}")
    return np.linspace(0.0, 1.0, samples)

"""Equal shares of a monitor function's integral: of |g′|^½, which bounds the error, or of roughness^⅓."""

import numpy as np

from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import gauss_legendre, linear_partition
from riemannopt_dist.quadrature.schedule import Array, Schedule

DENSITY_KNOTS = 4096
DENSITY_FLOOR = 1e-3


def density_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions with equal shares of ∫|g′|^½, which minimise the integral bound as the count grows.

    The same for every rule: `rule` is taken for the sake of one signature for all placements.
    """
    alphas, shares, _ = density_coordinate(profile)
    return [np.interp(linear_partition(count), shares, alphas) for count in counts]


def warped_gauss_legendre(profile: Profile, samples: int) -> Schedule:
    """Gauss-Legendre points in the density's coordinate u: α = T(u), weights ω/2 · dα/du.

    T is no polynomial, so the weights come out near 1 in sum; they are scaled to sum to 1, which keeps
    the rule exact on constants.
    """
    nodes, weights = (np.asarray(values) for values in gauss_legendre(samples))
    alphas, shares, density = density_coordinate(profile)
    points = np.interp(nodes, shares, alphas)
    warped = weights / np.interp(points, alphas, density)
    return Schedule(tuple(points), tuple(warped / warped.sum()))


def rough_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions with equal shares of ∫roughness^⅓: the best for integrands that behave like random walks.

    Networks with kinks have gradients whose changes between neighbouring samples are nearly independent. The
    squared error of a sum is then Σ_k h_k² ∫_k roughness dα, up to a factor that is the same for all rules,
    in units of each image's own variation and in the mean over images; equal shares minimise it as the count
    grows. The same for every rule. Raises ValueError for a profile without roughness.
    """
    alphas, shares, _ = rough_coordinate(profile)
    return [np.interp(linear_partition(count), shares, alphas) for count in counts]


def density_coordinate(profile: Profile) -> tuple[Array, Array, Array]:
    """Positions α, the share u(α) of ∫|g′|^½ to their left (from 0 to 1), and du/dα there."""
    return share_coordinate(profile, profile.magnitudes, 1 / 2)


def rough_coordinate(profile: Profile) -> tuple[Array, Array, Array]:
    """As `density_coordinate`, of ∫roughness^⅓. Raises ValueError for a profile without roughness."""
    if profile.roughness is None:
        raise ValueError("profile: placing by roughness needs one with roughness (estimate it again)")
    return share_coordinate(profile, profile.roughness, 1 / 3)


def share_coordinate(profile: Profile, values: tuple[float, ...], power: float) -> tuple[Array, Array, Array]:
    """Positions α, the share u(α) of ∫values^power to their left, and du/dα there.

    A thousandth of their mean is added everywhere, so that u increases where they are zero.
    """
    alphas = np.union1d(np.linspace(0.0, 1.0, DENSITY_KNOTS + 1), profile.points)
    heights = np.interp(alphas, profile.points, values)
    mean = float(np.trapezoid(heights, alphas))
    root = (heights + DENSITY_FLOOR * mean) ** power if mean > 0 else np.ones_like(alphas)
    areas = np.append(0.0, np.cumsum(np.diff(alphas) * (root[1:] + root[:-1]) / 2))
    return alphas, areas / areas[-1], root / areas[-1]

"""Named integrands on [0, 1] with their exact integrals and slopes, and named profiles |g′|(α)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.schedule import Array, Schedule

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Integrand:
    """g, its derivative and ∫_0^1 g; `kinks` are the places where the derivative jumps."""

    value: Function
    slope: Function
    integral: float
    kinks: tuple[float, ...] = ()


INTEGRANDS: dict[str, Integrand] = {
    "constant": Integrand(lambda t: np.full_like(t, 2.0), np.zeros_like, 2.0),
    "line": Integrand(lambda t: 3 * t - 1, lambda t: np.full_like(t, 3.0), 0.5),
    "exponential": Integrand(np.exp, np.exp, math.e - 1),
    "wave": Integrand(lambda t: np.cos(9 * t), lambda t: -9 * np.sin(9 * t), math.sin(9) / 9),
    "bell": Integrand(  # Runge's function, centred
        lambda t: 1 / (1 + 25 * (2 * t - 1) ** 2),
        lambda t: -100 * (2 * t - 1) / (1 + 25 * (2 * t - 1) ** 2) ** 2,
        math.atan(5) / 5,
    ),
    "saturating": Integrand(  # a probability that rises late
        lambda t: 1 / (1 + np.exp(-20 * (t - 0.7))),
        lambda t: 5 / np.cosh(10 * (t - 0.7)) ** 2,
        (math.log1p(math.exp(6)) - math.log1p(math.exp(-14))) / 20,
    ),
    "kink": Integrand(lambda t: np.abs(t - 1 / 3), lambda t: np.sign(t - 1 / 3), 5 / 18, kinks=(1 / 3,)),
}


def monomial(degree: int) -> Integrand:
    """t^degree."""
    return Integrand(
        lambda t: t**degree,
        lambda t: degree * t ** max(degree - 1, 0),
        1 / (degree + 1),
    )


def quadrature_error(integrand: Integrand, schedule: Schedule) -> float:
    """Σ w_k g(α_k) − ∫ g, signed."""
    return float(np.dot(schedule.weights, integrand.value(np.array(schedule.points)))) - integrand.integral


def profile_of(magnitude: Function, samples: int = 128) -> Profile:
    """|g′| = `magnitude` at the middles of `samples` − 1 equal intervals, as in an estimate."""
    edges = np.linspace(0, 1, samples)
    middles = (edges[1:] + edges[:-1]) / 2
    magnitudes = magnitude(middles)
    return linear_profile(middles, magnitudes)


def linear_profile(points: Array, magnitudes: Array) -> Profile:
    """The profile that is linear between the points given, as of a single image."""
    shares = magnitudes / (magnitudes.sum() or 1.0)
    roughness = shares**2  # up to a factor
    return Profile(
        tuple(points.tolist()),
        tuple(magnitudes.tolist()),
        (0.0,) * len(points),
        1,
        tuple(roughness.tolist()),
        tuple(shares.tolist()),
    )


CONSTANT = profile_of(lambda t: np.full_like(t, 3.0))
RISING = linear_profile(np.array([0.0, 1.0]), np.array([0.0, 1.0]))  # |g′|(t) = t

PROFILES: dict[str, Profile] = {
    "constant": CONSTANT,
    "rising": RISING,
    "decaying": profile_of(lambda t: np.exp(-6 * t)),
    "late": profile_of(lambda t: np.exp(-(((t - 0.95) / 0.06) ** 2))),  # Blur IG's looks like this
    "narrow peak": profile_of(lambda t: np.maximum(0, 1 - np.abs(t - 0.63) / 0.03)),
    "two peaks": profile_of(
        lambda t: np.exp(-(((t - 0.2) / 0.02) ** 2)) + 0.3 * np.exp(-(((t - 0.8) / 0.05) ** 2))
    ),
    "roughness": profile_of(lambda t: np.random.default_rng(0).exponential(size=len(t))),
}

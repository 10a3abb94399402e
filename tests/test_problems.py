"""The tables that other tests rely on say the truth about themselves."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from riemannopt_dist.testing.problems import INTEGRANDS, PROFILES, RISING, Integrand, monomial

INTEGRANDS_AND_MONOMIALS = {**INTEGRANDS, **{f"degree {n}": monomial(n) for n in range(6)}}


@pytest.mark.parametrize("integrand", INTEGRANDS_AND_MONOMIALS.values(), ids=INTEGRANDS_AND_MONOMIALS)
def test_integrals_and_slopes_agree_with_adaptive_quadrature(integrand: Integrand) -> None:
    value, _ = quad(lambda t: integrand.value(np.array(t)), 0, 1, points=integrand.kinks, epsabs=1e-12)
    rise, _ = quad(lambda t: integrand.slope(np.array(t)), 0, 1, points=integrand.kinks, epsabs=1e-12)
    ends = integrand.value(np.array([0.0, 1.0]))
    assert math.isclose(value, integrand.integral, abs_tol=1e-11)
    assert math.isclose(rise, ends[1] - ends[0], abs_tol=1e-11)


def test_profiles_are_what_their_names_say() -> None:
    mass = {name: np.mean(profile(np.linspace(0, 1, 4001))) for name, profile in PROFILES.items()}
    late = PROFILES["late"](np.linspace(0.8, 1, 801)).mean() * 0.2
    assert late > 0.95 * mass["late"]
    peak = PROFILES["narrow peak"](np.linspace(0, 1, 4001))
    assert np.mean(peak > 0) < 0.1
    assert peak[0] == peak[-1] == 0
    np.testing.assert_array_equal(RISING(np.array([0.0, 0.25, 1.0])), [0.0, 0.25, 1.0])

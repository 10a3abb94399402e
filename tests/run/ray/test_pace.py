"""How long calls may take, by hand."""

import math

import pytest

from riemannopt_dist.run.ray.pace import ENOUGH, HUNG, KEPT, LEAST, SLOW, Pace


def test_the_limit_follows_the_median_once_there_is_one() -> None:
    pace = Pace(3600.0)
    for seconds in (10.0, 40.0, 20.0, 90.0):
        pace.took(seconds, 1)
    assert (pace.median, pace.limit, pace.slow) == (None, 3600.0, math.inf)
    pace.took(60.0, 2)  # two parts of thirty seconds
    assert ENOUGH == 5
    assert pace.median == 30.0
    assert (pace.limit, pace.slow) == (HUNG * 30, SLOW * 30) == (1800.0, 300.0)


def test_a_limit_is_neither_too_short_nor_longer_than_was_asked_for() -> None:
    quick, slow = Pace(3600.0), Pace(100.0)
    for _ in range(ENOUGH):
        quick.took(0.01, 1)
        slow.took(50.0, 1)
    assert quick.limit == LEAST
    assert slow.limit == 100.0


def test_the_median_forgets() -> None:
    pace = Pace(math.inf)
    for seconds in [1.0] * KEPT + [100.0] * (KEPT // 2 + 1):
        pace.took(seconds, 1)
    assert pace.median == pytest.approx(100.0)

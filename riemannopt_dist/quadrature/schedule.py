"""Schedules: the points and weights of a Riemann sum on [0, 1], as frozen values.

A partition 0 = b_0 < … < b_n = 1 and a rule give a schedule. Its cost is its number of points: every
point is one gradient evaluation, so the trapezoid with k points has k − 1 intervals.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
WEIGHT_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Schedule:
    """Sample points α_k in [0, 1], non-decreasing, and the weights w_k of Σ w_k g(α_k), which sum to `reach`.

    `reach` in (0, 1] is how far along the path the sum goes: to its end, 1, but for `released_linear`.
    Raises ValueError if a point lies outside [0, 1] or out of order, a weight is negative or not finite,
    the numbers of points and weights differ, or the weights do not sum to `reach`.
    """

    points: tuple[float, ...]
    weights: tuple[float, ...]
    reach: float = 1.0

    def __post_init__(self) -> None:
        points, weights = _floats(self.points, "points"), _floats(self.weights, "weights")
        if len(points) != len(weights) or not points:
            raise ValueError(
                f"schedule: expected as many weights as points and at least one, "
                f"got {len(points)} points and {len(weights)} weights"
            )
        if points[0] < 0 or points[-1] > 1 or any(b < a for a, b in pairwise(points)):
            raise ValueError(f"points: expected non-decreasing values in [0, 1], got {points}")
        if not 0 < self.reach <= 1:
            raise ValueError(f"reach: expected a number above 0 and at most 1, got {self.reach!r}")
        total = math.fsum(weights)
        if min(weights) < 0 or abs(total - self.reach) > WEIGHT_SUM_TOLERANCE:
            raise ValueError(
                f"weights: expected values of at least 0 that sum to {self.reach:g}, got {total}: {weights}"
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "weights", weights)

    def __len__(self) -> int:
        """The number of points, which is the number of gradient evaluations."""
        return len(self.points)

    def to_json(self) -> str:
        """The schedule as a JSON object; floats survive the round trip exactly."""
        return json.dumps({"points": self.points, "weights": self.weights, "reach": self.reach})

    @classmethod
    def from_json(cls, text: str) -> "Schedule":
        """The schedule that `to_json` wrote. Raises ValueError on anything else."""
        try:
            fields = json.loads(text)
            return cls(tuple(fields["points"]), tuple(fields["weights"]), fields.get("reach", 1.0))
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"schedule: expected a JSON object with points and weights ({error!r})"
            ) from None


def _floats(values: Iterable[float], name: str) -> tuple[float, ...]:
    """`values` as Python floats; ValueError if one is not a finite number."""
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers, got {values!r}") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}: expected finite numbers, got {numbers}")
    return numbers

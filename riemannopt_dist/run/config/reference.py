"""The converged maps that others are compared with."""

from typing import Annotated

from pydantic import Field

from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import PositiveInt


class ReferenceConfig(Strict):
    """The converged maps that the metric `reference` compares with.

    A trapezoid of `intervals` on the path's profile (equal intervals without one); for Guided IG, 8 intervals
    on each step of each schedule's own walk. For the first `images` of those evaluated, in the order in which
    they were drawn, or for all if not given.
    """

    images: PositiveInt | None = None
    intervals: Annotated[int, Field(ge=2, multiple_of=2)] = 1024

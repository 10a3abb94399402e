"""Points of each image's own, placed by f at some points of its path: forward passes and no profile."""

from collections.abc import Callable
from dataclasses import dataclass

from riemannopt_dist.quadrature.schedule import Array, Schedule


@dataclass(frozen=True)
class OutputPlacement:
    """An entry of OUTPUT_PLACEMENTS.

    `asked` tells the positions (k,), from 0 to 1, at which f is asked for a number of samples; `schedule`
    makes one of that many from the values (k,) there and a rule. One that is `partial` leaves out some of the
    path, and is for estimators that count nothing there.
    """

    asked: Callable[[int], Array]
    schedule: Callable[[Array, str, int], Schedule]
    partial: bool = False


@dataclass(frozen=True)
class PointsByOutput:
    """Where an image's `samples` are under a rule, once f is known where it is `asked`."""

    placement: OutputPlacement
    rule: str
    samples: int

    @property
    def asked(self) -> Array:
        """The positions (k,) at which f is asked."""
        return self.placement.asked(self.samples)

    def schedule(self, values: Array) -> Schedule:
        """That of an image with f of `values` (k,) there."""
        return self.placement.schedule(values, self.rule, self.samples)

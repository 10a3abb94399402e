"""What an estimator of the path integral is: from n evaluations along a path to an attribution map.

Nothing here needs torch: which estimators, paths and placements go together is known without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from riemannopt_dist.paths.base import paths_an_image

if TYPE_CHECKING:
    from riemannopt_dist.attribution import Attribution
    from riemannopt_dist.choices import Output
    from riemannopt_dist.estimators.passes import Sums
    from riemannopt_dist.models.classifier import Classifier
    from riemannopt_dist.objective import Objective
    from riemannopt_dist.paths.base import Path, PathFamily
    from riemannopt_dist.paths.draws import Draws
    from riemannopt_dist.paths.guided import GuidedPath
    from riemannopt_dist.quadrature.placement.output import PointsByOutput
    from riemannopt_dist.quadrature.profile import Profile
    from riemannopt_dist.quadrature.schedule import Schedule

LINEAR = "linear"
"""The placement of equal intervals, which needs no profile."""
NONE = "none"
"""The path and the placement of a control map, which has neither."""
ADAPTIVE = "adaptive"
"""The placement that is each image's own, from a profile and from what its samples tell."""


@dataclass(frozen=True)
class Placed:
    """Where samples are: on a `schedule`, or, without one, where each image needs them.

    Those of an image's own are placed `by_output`, or start from a `profile`; there are `samples` of them,
    or, with a `tolerance`, at most so many until the estimated error is no larger.
    """

    samples: int
    schedule: Schedule | None = None
    profile: Profile | None = None
    tolerance: float | None = None
    by_output: PointsByOutput | None = None

    @property
    def fixed(self) -> Schedule:
        """The schedule. Raises ValueError where points are each image's own."""
        if self.schedule is None:
            raise ValueError(f"placement: expected a schedule, got points per image ({self.samples})")
        return self.schedule

    @property
    def known_profile(self) -> Profile:
        """The profile that points per image start from. Raises ValueError without one."""
        if self.profile is None:
            raise ValueError("profile: points per image need one (estimate_profile)")
        return self.profile


class Cost(NamedTuple):
    """What an image costs: gradients, and forward passes beside them."""

    gradients: int
    passes: int = 0


class Estimator(Protocol):
    """An entry of ESTIMATORS."""

    @property
    def name(self) -> str:
        """What it is called in configurations and tables."""
        ...

    @property
    def sums(self) -> type[Sums] | None:
        """How it adds up samples that it shares with others along one pass; None where they are its own."""
        ...

    @property
    def early(self) -> tuple[float, ...]:
        """The ends of the path at which f is needed before the samples there, as those of `sums`."""
        ...

    @property
    def takes_tolerance(self) -> bool:
        """Whether it can go on until an image's error is within a tolerance."""
        ...

    @property
    def tends_to_integral(self) -> bool:
        """Whether its maps tend to the path integral, with which they can then be compared.

        An estimator whose maps are complete by construction has an attribute `complete` that is true.
        """
        ...

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """Why it does not go with a path, a placement and a count; None where it does."""
        ...

    def check(self, model: Classifier) -> None:
        """Raise ValueError for a model that it cannot explain."""
        ...

    def rule(self, path: PathFamily) -> str:
        """The quadrature rule whose points it takes."""
        ...

    def cost(self, path: PathFamily, placed: Placed, output: Output, at_once: int) -> Cost:
        """What an image costs, with micro-batches of `at_once`."""
        ...

    def attribute(self, objective: Objective, path: Any, placed: Placed) -> Attribution:
        """A map for each image along a Path or a GuidedPath. Raises ValueError for a model that it cannot
        explain.

        An estimator with an attribute `takes_draws` that is true is given Draws instead, where there are
        several of a baseline; of others the maps are averaged over them.
        """
        ...


def refusal(
    estimator: Estimator, path: PathFamily, placement: str, samples: int, tolerance: float | None = None
) -> str | None:
    """Why these do not go together; None where they do."""
    if tolerance is not None and (placement != ADAPTIVE or not estimator.takes_tolerance):
        return f"tolerance: expected the placement {ADAPTIVE} and an estimator that takes one"
    return estimator.refusal(path, placement, samples)


def cost_together(
    path: PathFamily, members: Sequence[tuple[Estimator, Placed]], output: Output, at_once: int
) -> Cost:
    """What an image costs under several estimators along one path, with the samples that they share."""
    shared = [(estimator, placed) for estimator, placed in members if shares(estimator, placed)]
    early = {end for estimator, _ in shared for end in estimator.early}
    costs = [Cost(*path.sampling([placed.fixed for _, placed in shared], early))] if shared else []
    costs += [
        estimator.cost(path, placed, output, at_once)
        for estimator, placed in members
        if not (shares(estimator, placed) or takes_draws(estimator))
    ]
    times = paths_an_image(path)
    totals = [times * sum(part) for part in zip(Cost(0), *costs, strict=True)]
    whole = [one.cost(path, placed, output, at_once) for one, placed in members if takes_draws(one)]
    return Cost(*(sum(part) for part in zip(totals, *whole, strict=True)))


def attribute_together(
    objective: Objective, path: Path | GuidedPath | Draws, members: Sequence[tuple[Estimator, Placed]]
) -> list[Attribution]:
    """A map for each member and image, in order; samples that members share are taken once.

    Of several draws of a baseline the mean over them.
    """
    from riemannopt_dist.attribution import mean_attributions
    from riemannopt_dist.paths.draws import Draws

    if not isinstance(path, Draws):
        return _on_one_path(objective, path, members)
    others = [member for member in members if not takes_draws(member[0])]
    means = iter(mean_attributions(_on_one_path(objective, one, others) for one in path.members))
    return [
        one.attribute(objective, path, placed) if takes_draws(one) else next(means) for one, placed in members
    ]


def takes_draws(estimator: Estimator) -> bool:
    """Whether an estimator takes several draws of a baseline as a whole; of others the maps are averaged."""
    return bool(getattr(estimator, "takes_draws", False))


def suited_placement(estimator: Estimator) -> str:
    """The placement by a profile that suits an estimator best: exact, unless its attribute `suits` tells."""
    return str(getattr(estimator, "suits", "exact"))


def has_gap(estimator: Estimator) -> bool:
    """Whether a completeness gap tells how near its maps are to the path integral.

    It does not of maps that tend to something else, nor of those that are complete by construction.
    """
    return estimator.tends_to_integral and not getattr(estimator, "complete", False)


def _on_one_path(
    objective: Objective, path: Path | GuidedPath, members: Sequence[tuple[Estimator, Placed]]
) -> list[Attribution]:
    from riemannopt_dist.estimators.passes import sums_along

    shared = [
        (place, estimator.sums, placed.fixed)
        for place, (estimator, placed) in enumerate(members)
        if shares(estimator, placed) and estimator.sums is not None
    ]
    requests = [(kind, schedule) for _, kind, schedule in shared]
    results = sums_along(path, objective, requests) if requests else []
    attributions = dict(zip([place for place, *_ in shared], results, strict=True))
    for place, (estimator, placed) in enumerate(members):
        if place not in attributions:
            attributions[place] = estimator.attribute(objective, path, placed)
    return [attributions[place] for place in range(len(members))]


def shares(estimator: Estimator, placed: Placed) -> bool:
    """Whether an estimator's samples there are shared with others."""
    return estimator.sums is not None and placed.schedule is not None

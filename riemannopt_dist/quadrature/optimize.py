"""From a profile |g′|(α) to the schedule that makes a Riemann sum's error bound small.

Five placements: "riemannopt" is RiemannOpt as its authors' code runs it, and "eq9" minimises the bound that
their paper prints (arXiv 2410.04118); "exact" minimises the bound before its Taylor step by dynamic
programming; "equidistribution" is that bound's limit for many samples; "roughness" minimises not a bound but
the expected error of integrands that behave like random walks.
"""

import logging
from collections.abc import Iterable

from riemannopt_dist.choices import check_choice
from riemannopt_dist.quadrature.placement.equidistribution import (
    warped_gauss_legendre,
)
from riemannopt_dist.quadrature.placement.table import PLACEMENTS
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import (
    FITTED_RULES,
    intervals,
    schedule_from_partition,
)
from riemannopt_dist.quadrature.schedule import Schedule

logger = logging.getLogger(__name__)


def optimize_schedule(
    profile: Profile, samples: int, rule: str = "trapezoid", placement: str = "exact"
) -> Schedule:
    """The schedule of `samples` gradient evaluations that `placement` gives for `profile` under `rule`.

    RiemannOpt as its authors run it is the placement "riemannopt" with the rule "released" for Integrated
    Gradients, "right" for Blur IG and "left", which is that of a walk's steps, for Guided IG.

    Raises ValueError for an unknown rule or placement, for "gauss_legendre" with a placement that makes
    partitions (all but "equidistribution"): its points need that one's coordinate; and for a profile that
    lacks what the placement needs.
    """
    return optimize_schedules(profile, [samples], [rule], placement)[rule, samples]


def optimize_schedules(
    profile: Profile, samples: Iterable[int], rules: Iterable[str], placement: str = "exact"
) -> dict[tuple[str, int], Schedule]:
    """`optimize_schedule` for every (rule, samples), sharing the work between sample counts."""
    counts = list(samples)
    if not counts:
        raise ValueError("samples: expected at least one sample count, got none")
    PLACEMENTS.check(placement)
    schedules: dict[tuple[str, int], Schedule] = {}
    for rule in rules:
        check_choice(rule, FITTED_RULES, "rule")
        if rule == "gauss_legendre":
            if placement != "equidistribution":
                raise ValueError(
                    f"placement: the rule gauss_legendre goes with equidistribution, got {placement!r}"
                )
            schedules |= {(rule, count): warped_gauss_legendre(profile, count) for count in counts}
            continue
        partitions = PLACEMENTS[placement](profile, rule, [intervals(count, rule) for count in counts])
        if not isinstance(partitions, list | tuple) or len(partitions) != len(counts):
            raise ValueError(
                f"placement: {placement!r}: expected a list of partitions, one for each of {len(counts)} "
                f"counts, got {partitions!r:.80}"
            )
        schedules |= {
            (rule, count): schedule_from_partition(partition, rule)
            for count, partition in zip(counts, partitions, strict=True)
        }
    return schedules

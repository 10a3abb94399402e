"""How many samples a Riemann sum would have needed to be as near to the converged map as other maps are."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from riemannopt_dist.estimators.passes import sums_along
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path
from riemannopt_dist.quadrature.rules import linear_schedule

RULES = ("left", "midpoint", "trapezoid")
"""The rules that are tried, each on equal intervals."""
DENSE = 8
"""Numbers of intervals tried for each doubling: 1, 2, …, 16, 18, …, 32, 36, …, 64, 72, …"""
ROUNDING = 1e-5
"""By what share of a map's error that of a sum may exceed it and count as no more: float32's rounding."""


def interval_counts(most: int) -> Iterator[list[int]]:
    """The numbers of intervals that are tried, up to `most`, a doubling at a time."""
    yield [*range(1, min(DENSE, most) + 1)]
    step = 1
    while DENSE * step < most:
        start = DENSE * step
        yield [count for count in range(start + step, 2 * start + 1, step) if count <= most]
        step *= 2


def samples_needed(
    objective: Objective, path: Path, errors: Tensor, most: int, error_of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """For each of RULES the least number of samples tried whose sum is off by no more than `errors` (S,).

    (S,), int64; 0 where more than `most` intervals are needed, and where an error is NaN. A trapezoid has one
    sample more than intervals. `path` leads to one image; `error_of` gives the errors (N,) of maps of it,
    (N, C, H, W).
    """
    needed = {rule: torch.zeros(len(errors), dtype=torch.int64) for rule in RULES}
    limits = errors.cpu() * (1 + ROUNDING)
    for counts in interval_counts(most):
        open_rules = [rule for rule in RULES if bool(((needed[rule] == 0) & ~limits.isnan()).any())]
        if not open_rules:
            break
        candidates = [(rule, n + 1 if rule == "trapezoid" else n) for rule in open_rules for n in counts]
        requests = [(RiemannSums, linear_schedule(samples, rule)) for rule, samples in candidates]
        maps = torch.cat([result.maps for result in sums_along(path, objective, requests)])
        for (rule, samples), error in zip(candidates, error_of(maps).tolist(), strict=True):
            needed[rule][(needed[rule] == 0) & (error <= limits)] = samples
    return needed

"""The least integral bound among partitions on a grid of candidates, by dynamic programming."""

import numpy as np

from riemannopt_dist.quadrature.bounds import Moments, moment_bound, pairwise_bounds
from riemannopt_dist.quadrature.placement.equidistribution import density_partitions
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.quadrature.schedule import Array

CANDIDATES = 512
BLOCK = 64
"""Last edges at a time in the dynamic programme."""


def exact_partitions(profile: Profile, rule: str, counts: list[int]) -> list[Array]:
    """Partitions whose integral bound is the least among those with edges in a grid of candidates.

    Dynamic programming over the last edge: one table serves all counts up to 256, another up to 512, and so
    on, so that an interval has at least two candidates and a partition does not depend on the other counts.
    Half of the candidates are equispaced and half follow the density, so that a concentrated profile is
    resolved too. Where equal intervals or the density's, whose edges need not be candidates, are better
    still, they are taken. A profile of zeros, which all partitions suit alike, gets equal intervals.
    """
    if not any(profile.magnitudes):
        return [linear_partition(count) for count in counts]
    solved: dict[int, Array] = {}
    sizes = [_candidates(count) for count in counts]
    for size in set(sizes):
        (candidates,) = density_partitions(profile, rule, [size // 2])
        grid = np.union1d(linear_partition(size // 2), candidates)
        alike = [count for count, other in zip(counts, sizes, strict=True) if other == size]
        partitions = least_cost_partitions(grid, pairwise_bounds(profile, grid, rule), alike)
        solved |= zip(alike, partitions, strict=True)
    dense = density_partitions(profile, rule, counts)
    moments = Moments.of(profile)
    return [
        min(
            (solved[count], linear_partition(count), density),
            key=lambda edges: moment_bound(moments, edges, rule),
        )
        for count, density in zip(counts, dense, strict=True)
    ]


def _candidates(count: int) -> int:
    """How many candidates partitions into `count` intervals choose from: CANDIDATES, doubled until enough."""
    size = CANDIDATES
    while size < 2 * count:
        size *= 2
    return size


def least_cost_partitions(grid: Array, costs: Array, counts: list[int]) -> list[Array]:
    """The partitions of `grid`'s span into each of `counts` intervals that cost least in all.

    costs[i, j] is the cost of the interval from grid[i] to grid[j]: at least 0, infinite unless i < j.
    """
    if max(counts) >= len(grid):
        raise ValueError(f"intervals: at most {len(grid) - 1} fit the candidate edges, got {max(counts)}")
    least = costs[0]
    origins = [np.zeros(len(grid), dtype=np.int64)]
    closing = np.ascontiguousarray(costs.T)  # a row for each end: its minimum is found several times faster
    blocks = [slice(start, min(start + BLOCK, len(grid))) for start in range(0, len(grid), BLOCK)]
    cheapest = [closing[block, : block.stop].min(axis=0) for block in blocks]
    for intervals, limit in enumerate(_cost_limits(costs, counts)[1:], start=1):
        origin = np.zeros(len(grid), dtype=np.int64)
        for block, cheap in zip(blocks, cheapest, strict=True):
            # The best partition has no interval that costs more than all of another, and `made` before this.
            first = min(max(int((cheap <= limit).argmax()), intervals), block.stop - 1)
            totals = closing[block, first : block.stop] + least[first : block.stop]
            origin[block] = first + totals.argmin(axis=1)
        least = least[origin] + closing[np.arange(len(grid)), origin]
        origins.append(origin)
    return [grid[_trace(origins[:count])] for count in counts]


def _cost_limits(costs: Array, counts: list[int]) -> Array:
    """What the best partitions into `counts` of at least 1, 2, … intervals cost at most, (max(counts),).

    Those with as many candidates in each interval cost that; the limit for k is the largest for counts ≥ k.
    """
    limits = np.zeros(max(counts))
    for count in counts:
        edges = np.linspace(0, len(costs) - 1, count + 1).round().astype(np.int64)
        limits[count - 1] = costs[edges[:-1], edges[1:]].sum()
    return np.asarray(np.maximum.accumulate(limits[::-1])[::-1])


def _trace(origins: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> list[int]:
    """The grid indices of the best partition, from its end back to its start."""
    edges = [len(origins[0]) - 1]
    for origin in reversed(origins):
        edges.append(int(origin[edges[-1]]))
    return edges[::-1]

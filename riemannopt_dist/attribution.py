"""What an estimator gives: attribution maps, f at both ends of the path, and what they cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from riemannopt_dist.objective import Output


@dataclass(frozen=True, eq=False)
class Attribution:
    """Attribution maps (B, C, H, W) and what it takes to judge them.

    f_input and f_baseline (B,) are the explained output at the path's two ends, gradient_evaluations (B,)
    (int64) the number of gradients that each map alone costs. Maps and f are of the images' type, but of
    float32 for float16 and bfloat16, which would round away what the sums know. What rounding f has tell
    `output`, what f is, and `computed_in`, the type that the model computes in: that of f unless given.
    """

    maps: Tensor
    f_input: Tensor
    f_baseline: Tensor
    gradient_evaluations: Tensor
    output: Output = "probability"
    computed_in: torch.dtype | None = None


def mean_attributions(of_draws: Iterable[Sequence[Attribution]]) -> list[Attribution]:
    """The means of maps along several paths to the same images: lists of one length, a path after another.

    f at the paths' starts is their mean as well, and costs are added up.
    """
    totals: list[Attribution] = []
    paths = 0
    for results in of_draws:
        totals = [_plus(*pair) for pair in zip(totals, results, strict=True)] if totals else [*results]
        paths += 1
    return [replace(one, maps=one.maps / paths, f_baseline=one.f_baseline / paths) for one in totals]


def _plus(one: Attribution, other: Attribution) -> Attribution:
    return replace(
        one,
        maps=one.maps + other.maps,
        f_baseline=one.f_baseline + other.f_baseline,
        gradient_evaluations=one.gradient_evaluations + other.gradient_evaluations,
    )

"""What an estimator gives: attribution maps, f at both ends of the path, and what they cost."""

from dataclasses import dataclass

import torch
from torch import Tensor

from riemannopt_dist.objective import (
    Output,
)


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

"""Completeness: how far a map's sum is from f(x) − f(x′), which the exact path integral equals.

A lower bound of the error only: over- and underestimates of single features cancel in the sum.
"""

import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution


def attribution_sum(result: Attribution) -> Tensor:
    """Σ_i a_i over all features of each map, (B,), summed in float64."""
    return result.maps.flatten(1).sum(dim=1, dtype=torch.float64)


def completeness_delta(result: Attribution) -> Tensor:
    """Σ_i a_i − (f(x) − f(x′)), signed, (B,); zero for an exact integral."""
    return attribution_sum(result) - _output_change(result)


def relative_error(result: Attribution) -> Tensor:
    """|Σ_i a_i − (f(x) − f(x′))| / |f(x) − f(x′)|, (B,), lower is better (arXiv 2410.04118).

    Not defined where the output does not change along the path: infinite there, or NaN for a zero map.
    """
    return completeness_delta(result).abs() / _output_change(result).abs()


def ratio_of_sums(result: Attribution) -> Tensor:
    """Σ|Σ_i a_i − (f(x) − f(x′))| / Σ|f(x) − f(x′)| with both sums over images, a scalar; lower is better."""
    return completeness_delta(result).abs().sum() / _output_change(result).abs().sum()


def _output_change(result: Attribution) -> Tensor:
    return result.f_input.double() - result.f_baseline.double()

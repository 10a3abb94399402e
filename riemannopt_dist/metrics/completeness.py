"""Completeness: how far a map's sum is from f(x) − f(x′), which the exact path integral equals.

A lower bound of the error only: over- and underestimates of single features cancel in the sum.
"""

import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary


def attribution_sum(result: Attribution) -> Tensor:
    """Σ_i a_i over all features of each map, (B,), summed in float64."""
    return result.maps.flatten(1).sum(dim=1, dtype=torch.float64)


def completeness_delta(result: Attribution) -> Tensor:
    """Σ_i a_i − (f(x) − f(x′)), signed, (B,); zero for an exact integral."""
    return attribution_sum(result) - _output_change(result)


def relative_error(result: Attribution) -> Tensor:
    """|Σ_i a_i − (f(x) − f(x′))| / |f(x) − f(x′)|, (B,), lower is better (arXiv 2410.04118).

    NaN where the output does not change along the path.
    """
    return _relative(completeness_delta(result), _output_change(result))


def ratio_of_sums(result: Attribution) -> Tensor:
    """Σ|Σ_i a_i − (f(x) − f(x′))| / Σ|f(x) − f(x′)| with both sums over images, a scalar; lower is better."""
    return completeness_delta(result).abs().sum() / _output_change(result).abs().sum()


def _output_change(result: Attribution) -> Tensor:
    return result.f_input.double() - result.f_baseline.double()


def _relative(delta: Tensor, change: Tensor) -> Tensor:
    return torch.where(change == 0, torch.nan, delta.abs() / change.abs())


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    total = batch.maps.flatten(2).sum(dim=2, dtype=torch.float64)
    change = batch.f_input.double() - batch.f_baseline.double()
    return {
        "attribution_sum": total,
        "output_change": change,
        "completeness_delta": total - change,
        "relative_error": _relative(total - change, change),
    }


COMPLETENESS = Metric(
    name="completeness",
    cost="none",
    columns=(
        Column("attribution_sum", "f"),
        Column("output_change", "f", undefined="for a control, which has no path"),
        Column("completeness_delta", "f", undefined="for a control, which has no path"),
        Column(
            "relative_error", "1", "lower", undefined="where the output does not change, and for a control"
        ),
    ),
    summaries=(
        Summary("relative_error_mean", "mean", ("relative_error",), "lower"),
        Summary("relative_error_median", "median", ("relative_error",), "lower"),
        Summary("ratio_of_sums", "ratio_of_sums", ("completeness_delta", "output_change"), "lower"),
    ),
    compute=_compute,
)

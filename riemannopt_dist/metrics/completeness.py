"""Completeness: how far a map's sum is from f(x) − f(x′), which the exact path integral equals.

Over- and underestimates of single features cancel in the sum: the gap is at most the map's L1 distance from
the exact one. As shares neither bounds the other: the gap is told as one of |f(x) − f(x′)|, the distance as
one of the exact map's L1 norm, which is no less than that.

Of an estimator that integrates something else the gap is no measure (idg, left_ig, path_weighted_*), and of
one that is complete by construction it is 0 whatever the map (idgi*, rescale).
"""

import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary
from riemannopt_dist.objective import Output, output_rounding


def attribution_sum(result: Attribution) -> Tensor:
    """Σ_i a_i over all features of each map, (B,), summed in float64."""
    return result.maps.flatten(1).sum(dim=1, dtype=torch.float64)


def completeness_delta(result: Attribution) -> Tensor:
    """Σ_i a_i − (f(x) − f(x′)), signed, (B,); zero for an exact integral."""
    return attribution_sum(result) - _output_change(result)


def relative_error(result: Attribution) -> Tensor:
    """|Σ_i a_i − (f(x) − f(x′))| / |f(x) − f(x′)|, (B,), lower is better (arXiv 2410.04118).

    NaN where the output does not change along the path, up to what rounding alone makes of it (see
    `output_rounding`): f at the two ends goes through the model in batches of other images.
    """
    return _relative(completeness_delta(result), _change_beyond_rounding(result))


def ratio_of_sums(result: Attribution) -> Tensor:
    """Σ|Σ_i a_i − (f(x) − f(x′))| / Σ|f(x) − f(x′)| with both sums over images, a scalar; lower is better.

    A change within rounding counts as none; NaN where no image's output changes by more.
    """
    change = _change_beyond_rounding(result).abs().sum()
    return torch.where(change == 0, torch.nan, completeness_delta(result).abs().sum() / change)


def _output_change(result: Attribution) -> Tensor:
    return result.f_input.double() - result.f_baseline.double()


def _change_beyond_rounding(result: Attribution) -> Tensor:
    dtype = result.computed_in or result.f_input.dtype
    return beyond_rounding(result.f_input, result.f_baseline, dtype, result.output)


def beyond_rounding(f_input: Tensor, f_baseline: Tensor, dtype: torch.dtype, output: Output) -> Tensor:
    """f(x) − f(x′) (…), float64, of a model that computes in `dtype`; 0 where it may be rounding alone."""
    change = f_input.double() - f_baseline.double()
    size = torch.maximum(f_input.double().abs(), f_baseline.double().abs())
    return torch.where(change.abs() <= output_rounding(size, dtype, output), 0.0, change)


def _relative(delta: Tensor, change: Tensor) -> Tensor:
    return torch.where(change == 0, torch.nan, delta.abs() / change.abs())


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    total = batch.maps.flatten(2).sum(dim=2, dtype=torch.float64)
    dtype = batch.computed_in or batch.images.dtype
    change = beyond_rounding(batch.f_input, batch.f_baseline, dtype, batch.objective.output)
    delta = total - (batch.f_input.double() - batch.f_baseline.double())
    return {
        "attribution_sum": total,
        "output_change": change,
        "completeness_delta": delta,
        "relative_error": _relative(delta, change),
    }


PATHLESS = "for a control, which has no path"

COMPLETENESS = Metric(
    name="completeness",
    columns=(
        Column("attribution_sum", "f", meaning="the sum of the map over pixels and channels"),
        Column("output_change", "f", undefined=PATHLESS, meaning="f(x) − f(x′); 0 where it may be rounding"),
        Column(
            "completeness_delta",
            "f",
            undefined=PATHLESS,
            meaning="the map's sum less f(x) − f(x′), signed; 0 for an exact integral",
        ),
        Column(
            "relative_error",
            "1",
            "lower",
            undefined="where the output does not change, and for a control",
            meaning="|completeness_delta| / |output_change|: what is off in the map's sum, in which errors "
            "of pixels cancel. It may be less or more than reference_error, a share of the converged map's "
            "L1 norm. Of idg, left_ig and path_weighted_* it is by design, of idgi* and rescale 0 by "
            "construction: placements and runs are not compared by these",
        ),
    ),
    summaries=(
        Summary("relative_error_mean", "mean", ("relative_error",), "lower"),
        Summary("relative_error_median", "median", ("relative_error",), "lower"),
        Summary("ratio_of_sums", "ratio_of_sums", ("completeness_delta", "output_change"), "lower"),
    ),
    compute=_compute,
    of_channel_sums=True,
)

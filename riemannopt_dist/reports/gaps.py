"""Completeness gaps of result rows, and what they tell."""

import json
import math

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.metrics.metric import WITHOUT_GAP, summaries_of

GAP = "relative_error"
"""The completeness gap: what cells are judged by in a run without the true error."""
GAPS = (GAP, "completeness_delta")
"""The columns that tell it, as a share and in f."""
KNOWN = (
    *("idg", "left_ig", "path_weighted_early", "path_weighted_middle", "path_weighted_late"),
    *("idgi", "idgi_right", "idgi_trapezoid", "rescale"),
)
"""The estimators without a gap in a run that does not tell its own, as one made before these were written."""


def without_gap(results: pa.Table) -> list[str]:
    """The estimators of result rows whose gap is no measure of how near a map is to the path integral.

    Their maps tend to something else, and have a gap by design, or are complete by construction.
    """
    told = (results.schema.metadata or {}).get(WITHOUT_GAP.encode())
    return [*KNOWN] if told is None else json.loads(told)


def gauged(results: pa.Table) -> pa.Table:
    """Result rows with NaN for the gaps that are no measure (`without_gap`)."""
    told = pc.is_in(results["estimator"].cast(pa.string()), pa.array(without_gap(results), pa.string()))
    for name in GAPS:
        if name in results.column_names:
            place = results.schema.get_field_index(name)
            values = pc.if_else(told, pa.scalar(math.nan, pa.float64()), results[name])
            results = results.set_column(place, results.schema.field(place), values)
    return results


def gauged_summary(summary: pd.DataFrame, results: pa.Table) -> pd.DataFrame:
    """The summary of result rows, with NaN for what is made of such gaps."""
    told = summary["estimator"].isin(without_gap(results))
    names = [one.name for one in summaries_of(results) if {*one.columns} & {*GAPS} and one.name in summary]
    return summary.assign(**{name: summary[name].mask(told) for name in names})

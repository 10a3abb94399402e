"""Completeness gaps of result rows, and what they tell."""

import math

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.choices import WITHOUT_GAP
from riemannopt_dist.metrics.metric import summaries_of

GAP = "relative_error"
"""The completeness gap: what cells are judged by in a run without the true error."""
GAPS = (GAP, "completeness_delta")
"""The columns that tell it, as a share and in f."""


def gauged(results: pa.Table) -> pa.Table:
    """Result rows with NaN for the gaps that say nothing of how near a map is to the path integral.

    They are those of estimators whose maps tend to something else, or are complete by construction.
    """
    told = pc.is_in(results["estimator"].cast(pa.string()), pa.array(WITHOUT_GAP))
    for name in GAPS:
        if name in results.column_names:
            place = results.schema.get_field_index(name)
            values = pc.if_else(told, pa.scalar(math.nan, pa.float64()), results[name])
            results = results.set_column(place, results.schema.field(place), values)
    return results


def gauged_summary(summary: pd.DataFrame, results: pa.Table) -> pd.DataFrame:
    """The summary of result rows, with NaN for what is made of such gaps."""
    told = summary["estimator"].isin(WITHOUT_GAP)
    names = [one.name for one in summaries_of(results) if {*one.columns} & {*GAPS} and one.name in summary]
    return summary.assign(**{name: summary[name].mask(told) for name in names})

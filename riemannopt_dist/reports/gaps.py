"""Completeness gaps of result rows, and what they tell."""

import math

import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.choices import WITHOUT_GAP

GAP = "relative_error"
"""The completeness gap: what cells are judged by in a run without the true error."""


def gauged(results: pa.Table) -> pa.Table:
    """Result rows with NaN for the gaps that say nothing of how near a map is to the path integral.

    They are those of estimators whose maps tend to something else, or are complete by construction.
    """
    if GAP not in results.column_names:
        return results
    place = results.schema.get_field_index(GAP)
    told = pc.is_in(results["estimator"].cast(pa.string()), pa.array(WITHOUT_GAP))
    return results.set_column(
        place, results.schema.field(place), pc.if_else(told, pa.scalar(math.nan, pa.float64()), results[GAP])
    )

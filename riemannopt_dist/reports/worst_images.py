"""The images that each cell of the grid serves worst, so that a mean can be traced to what makes it."""

import numpy as np
import pandas as pd

from riemannopt_dist.choices import CELL
from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.pivot import Pivot
from riemannopt_dist.reports.statistics import cell_fields, without_tolerance
from riemannopt_dist.reports.summary import csv_of

WORST = 10
ERRORS = ("reference_error", "relative_error")
"""The true error, and where a run does not measure it, the completeness gap's."""

WORST_COLUMNS = {
    "rank": "1 for the image of the cell with the largest error, to 10",
    "image_id": "the image's id in images.parquet",
    "reference_error": "its true error; relative_error, its completeness gap, of a run without true errors",
    "share": "what part of the sum of the cell's errors it has, in [0, 1]",
}
"""What the columns of report/worst.csv are, beside those of the cell."""


def worst_files(data: RunData) -> dict[str, bytes]:
    """report/worst.csv: the WORST images of each cell by its error; no file without an error."""
    error = next((name for name in ERRORS if name in data.results.column_names), None)
    return {} if error is None else {"report/worst.csv": csv_of(worst_images(data, error)).encode()}


def worst_images(data: RunData, error: str) -> pd.DataFrame:
    """Cell, rank from 1, image_id and error of the WORST images of each cell; where it is undefined, none.

    `share` is the part that the image has in the sum of the cell's errors, in [0, 1].
    """
    pivot = Pivot.of(data.results)
    rows = []
    for cell, values in zip(pivot.cells, pivot.values(error), strict=True):
        if cell[0] == NONE:
            continue
        total = np.nansum(values)
        # NaN is the last in this order; of equal errors the first image comes first.
        worst = np.argsort(-values, kind="stable")[: min(WORST, np.count_nonzero(~np.isnan(values)))]
        for rank, image in enumerate(worst, 1):
            place = {
                "rank": rank,
                "image_id": pivot.images[image].as_py(),
                error: values[image],
                "share": values[image] / (total or 1),
            }
            rows.append(cell_fields(cell) | place)
    return without_tolerance(pd.DataFrame(rows, columns=[*CELL, "rank", "image_id", error, "share"]))

"""The images that each cell of the grid serves worst, so that a mean can be traced to what makes it."""

import pandas as pd
import pyarrow.compute as pc

from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.statistics import CELL, NONE, cell_fields, rows_of, without_tolerance
from riemannopt_dist.reports.summary import csv_of

WORST = 10
ERRORS = ("reference_error", "relative_error")
"""The true error, and where a run does not measure it, the completeness gap's."""


def worst_files(data: RunData) -> dict[str, bytes]:
    """report/worst.csv: the WORST images of each cell by its error; no file without an error."""
    error = next((name for name in ERRORS if name in data.results.column_names), None)
    return {} if error is None else {"report/worst.csv": csv_of(worst_images(data, error)).encode()}


def worst_images(data: RunData, error: str) -> pd.DataFrame:
    """Cell, rank from 1, image_id and error of the WORST images of each cell; where it is undefined, none.

    `share` is the part that the image has in the sum of the cell's errors, in [0, 1].
    """
    ids = pc.unique(data.results["image_id"]).sort()
    frame = rows_of(data.results, error)
    defined = frame[frame[error].notna() & (frame["path"] != NONE)]
    rows = []
    for cell, group in defined.groupby(CELL, observed=True):
        total = group[error].sum()
        worst = group.nlargest(WORST, error)
        for rank, (image, value) in enumerate(zip(worst["image"], worst[error], strict=True), 1):
            place = {
                "rank": rank,
                "image_id": ids[image].as_py(),
                error: value,
                "share": value / (total or 1),
            }
            rows.append(cell_fields(cell) | place)
    return without_tolerance(pd.DataFrame(rows, columns=[*CELL, "rank", "image_id", error, "share"]))

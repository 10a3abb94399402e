"""The summary of a run: a row for every cell of the grid, over all images evaluated."""

import numpy as np
import pandas as pd
import pyarrow as pa

from riemannopt_dist.run.storage import Storage

CELL = ["method", "schedule", "rule", "samples"]
SUMMARY = "summary"


def read_results(storage: Storage) -> pd.DataFrame:
    """All result rows of a run. Raises ValueError where there are none."""
    names = [name for name in storage.list("results") if name.endswith(".parquet")]
    if not names:
        raise ValueError(
            f"{storage.root}: no results in it (expected a run directory with results/*.parquet)"
        )
    frame: pd.DataFrame = pa.concat_tables([storage.read_table(name) for name in names]).to_pandas()
    return frame


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Per cell: images, mean and median relative error, ratio of sums, seconds and gradients an image.

    `undefined` counts the images whose output does not change along the path: their relative error does not
    exist, and they are in neither mean nor median. `ratio_of_sums` is Σ|delta| / Σ|f(x) − f(x′)| over images.
    """
    frame = results.assign(change=(results["f_input"].astype(float) - results["f_baseline"]).abs())
    frame["delta"] = (frame["attribution_sum"] - (frame["f_input"].astype(float) - frame["f_baseline"])).abs()
    finite = np.isfinite(frame["relative_error"])
    frame["undefined"] = ~finite
    frame["relative_error"] = frame["relative_error"].where(finite)
    cells = frame.groupby(CELL, sort=True)
    sums = cells[["delta", "change"]].sum()
    summary = pd.DataFrame(
        {
            "images": cells["image_id"].nunique(),
            "relative_error_mean": cells["relative_error"].mean(),
            "relative_error_median": cells["relative_error"].median(),
            "ratio_of_sums": sums["delta"] / sums["change"],
            "undefined": cells["undefined"].sum(),
            "gradient_evaluations": cells["gradient_evaluations"].mean(),
            "seconds": cells["seconds"].mean(),
        }
    )
    return summary.reset_index()


def write_summary(storage: Storage, summary: pd.DataFrame) -> list[str]:
    """Write summary.parquet and summary.csv into the run directory; their names."""
    storage.write_table(f"{SUMMARY}.parquet", pa.Table.from_pandas(summary, preserve_index=False))
    storage.write_bytes(f"{SUMMARY}.csv", summary.to_csv(index=False).encode())
    return [f"{SUMMARY}.parquet", f"{SUMMARY}.csv"]

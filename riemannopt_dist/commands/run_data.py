"""A run as its report is made of it."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.summary import summarize
from riemannopt_dist.run.directory import RUN, RunDirectory, shard_files
from riemannopt_dist.run.stages.names import FIT, REFINE
from riemannopt_dist.run.status import read_status
from riemannopt_dist.storage.base import Storage

SINGLE = 6
"""Images of the fit subset whose own profiles a report shows."""


def run_data(storage: Storage, results: pa.Table) -> RunData:
    """What a report on result rows of a run is made of."""
    model, promised = _model_and_images(storage, results)
    paths = [name.rsplit("/", 1)[-1].removesuffix(".json") for name in storage.list("schedules")]
    fitted = {path: RunDirectory(storage).read_schedules(path) or {} for path in paths}
    singles = {path: _single_images(storage, path) for path in paths}
    return RunData(results, summarize(results), model, promised, fitted, singles)


def _model_and_images(storage: Storage, results: pa.Table) -> tuple[str, int]:
    """The model's name, and how many images the run is to evaluate; of bare results those that are there."""
    there = pc.count_distinct(results["image_id"]).as_py()
    if not storage.exists(RUN):
        return "a model that is not told", there
    status = read_status(storage)
    return status.model, status.stages[-1].images or there


def _single_images(storage: Storage, path: str) -> list[dict[str, Any]]:
    """The variations of the first SINGLE images of the fit subset, from the finest pass over them."""
    for folder in (REFINE, FIT):
        rows: list[dict[str, Any]] = []
        for table in RunDirectory(storage).tables(shard_files(storage, folder).values()):
            rows += [row for row in table.to_pylist() if row["path"] == path]
            if len(rows) >= SINGLE:
                break
        if rows:
            return rows[:SINGLE]
    return []

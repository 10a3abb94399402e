"""A run as its report is made of it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.commands.curves import mean_curves
from riemannopt_dist.reports.data import CellKey, Picture, RunData
from riemannopt_dist.reports.summary import summarize
from riemannopt_dist.run import results as stored
from riemannopt_dist.run.directory import IMAGES, RUN, RunDirectory, shard_files
from riemannopt_dist.run.outputs.maps import FOLDER
from riemannopt_dist.run.schemas import CELL
from riemannopt_dist.run.stages.names import FIT, REFINE, RESULTS
from riemannopt_dist.run.status import read_status
from riemannopt_dist.storage.base import Storage

SINGLE = 6
"""Images of the fit subset whose own profiles a report shows."""


def results_so_far(storage: Storage) -> pa.Table:
    """The result rows of a run, none of one that has not come to them yet.

    Raises ValueError where there is neither a run nor results, StorageError as `read_results` does.
    """
    if storage.exists(RUN) and not shard_files(storage, RESULTS):
        return pa.schema(CELL).empty_table()
    return stored.read_results(storage)


def run_data(storage: Storage, results: pa.Table) -> RunData:
    """What a report on result rows of a run is made of."""
    model, promised = _model_and_images(storage, results)
    paths = [name.rsplit("/", 1)[-1].removesuffix(".json") for name in storage.list("schedules")]
    fitted = {path: RunDirectory(storage).read_schedules(path) or {} for path in paths}
    singles = {path: _single_images(storage, path) for path in paths}
    more = _of_run(RunDirectory(storage)) if storage.exists(RUN) else {}
    return RunData(results, summarize(results), model, promised, fitted, singles, **more)


def _of_run(directory: RunDirectory) -> dict[str, Any]:
    """What only a run's directory tells, beside bare results."""
    return {
        "about": directory.read_run(),
        "images": directory.table(IMAGES) if directory.storage.exists(IMAGES) else None,
        "failures": [vars(failure) for failure in directory.read_failures()],
        "curves": partial(mean_curves, directory),
        "pictures": partial(_pictures, directory),
        "mapped": _mapped(directory.storage),
    }


def _mapped(storage: Storage) -> frozenset[CellKey]:
    """The cells of which maps are stored, as the names of their files tell."""
    folders = {tuple(name.split("/")[1:-1]) for name in storage.list(FOLDER) if name.endswith(".parquet")}
    return frozenset(
        (path, estimator, placement, int(samples), float(tolerance[0]) if tolerance else 0.0)
        for path, estimator, placement, samples, *tolerance in folders
    )


def _pictures(
    directory: RunDirectory, image_ids: Sequence[str], cells: Sequence[CellKey]
) -> Mapping[str, Picture]:
    from riemannopt_dist.commands.pictures import read_pictures  # late: photos need torch

    return read_pictures(directory, image_ids, cells)


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

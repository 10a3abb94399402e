"""A run as its report is made of it: what its directory holds, as plain tables and values."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.summary import summarize
from riemannopt_dist.run.directory import IMAGES, RUN, RunDirectory, shard_files
from riemannopt_dist.run.stages.names import FIT, REFINE
from riemannopt_dist.storage.base import Storage

SINGLE = 6
"""Images of the fit subset whose own profiles a report shows."""


def run_data(storage: Storage, results: pa.Table) -> RunData:
    """What a report on result rows of a run is made of."""
    directory = RunDirectory(storage)
    model, promised = _model_and_images(directory, results)
    paths = [name.rsplit("/", 1)[-1].removesuffix(".json") for name in storage.list("schedules")]
    fitted = {path: directory.read_schedules(path) or {} for path in paths}
    return RunData(results, summarize(results), model, promised, fitted, _single_images(directory, paths))


def _model_and_images(directory: RunDirectory, results: pa.Table) -> tuple[str, int]:
    """The model's name, and how many images the run is to evaluate; of bare results those that are there."""
    there: int = pc.count_distinct(results["image_id"]).as_py()
    if not directory.storage.exists(RUN):
        return "a model that is not told", there
    run = directory.read_run()
    config, model = run["config"], run["config"]["model"]["name"]
    if not directory.storage.exists(IMAGES):
        return model, there
    usable: int = pc.sum(directory.checked(IMAGES, run, columns=["selected"])["selected"]).as_py() or 0
    left = max(0, usable - config["fit"]["images"])
    return model, left if config["limit"] is None else min(left, config["limit"])


def _single_images(directory: RunDirectory, paths: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Of each path the variations of the first SINGLE images of the fit subset, from the finest pass over it.

    Shards are read once, until there are enough.
    """
    singles: dict[str, list[dict[str, Any]]] = {path: [] for path in paths}
    for folder in (REFINE, FIT):
        missing = {path: rows for path, rows in singles.items() if not rows}
        for table in directory.tables(shard_files(directory.storage, folder).values() if missing else ()):
            for path, rows in missing.items():
                of_path = table.filter(pc.equal(table["path"], path))
                rows += of_path.slice(0, SINGLE - len(rows)).to_pylist()
            if all(len(rows) == SINGLE for rows in missing.values()):
                break
    return singles

"""What a run's directory holds for its report, as plain tables and values."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.reports.data import Picture, RunData
from riemannopt_dist.reports.gaps import gauged
from riemannopt_dist.reports.pivot import CellKey
from riemannopt_dist.reports.summary import summarize, without_curves
from riemannopt_dist.run.directory import IMAGES, RUN, RunDirectory, shard_files
from riemannopt_dist.run.draw import divided
from riemannopt_dist.run.maps import FOLDER
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.schemas import RESULT
from riemannopt_dist.run.stages.names import FIT, REFINE, RESULTS
from riemannopt_dist.run_data.curves import mean_curves
from riemannopt_dist.storage.base import Storage, only

SINGLE = 6
"""Images of the fit subset whose own profiles a report shows."""


def results_so_far(storage: Storage) -> pa.Table:
    """The result rows of a run, none of one that has not come to them yet.

    Raises ValueError where there is neither a run nor results, StorageError as `read_results` does.
    """
    if storage.exists(RUN) and not shard_files(storage, RESULTS):
        return pa.schema(RESULT).empty_table()
    return read_results(storage)


def run_data(storage: Storage) -> RunData:
    """What a report on a run is made of, without gaps that are no measure (`gauged`).

    Errors are those of `results_so_far`.
    """
    results, directory = gauged(results_so_far(storage)), RunDirectory(storage)
    summary = summarize(results)
    results = without_curves(results)
    model, promised = _model_and_images(directory, results)
    paths = [name.rsplit("/", 1)[-1].removesuffix(".json") for name in storage.list("schedules")]
    fitted = {path: directory.read_schedules(path) or {} for path in paths}
    singles = _single_images(directory, paths)
    more = _of_run(directory) if storage.exists(RUN) else {}
    return RunData(results, summary, model, promised, fitted, singles, **more)


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
    from riemannopt_dist.run_data.pictures import read_pictures  # late: photos need torch

    return read_pictures(directory, image_ids, cells)


def _model_and_images(directory: RunDirectory, results: pa.Table) -> tuple[str, int]:
    """The model's name, and how many images the run is to evaluate; of bare results those that are there.

    Those that it gave up on then are not among them.
    """
    evaluated = {*pc.unique(results["image_id"]).to_pylist()}
    there = len(evaluated)
    if not directory.storage.exists(RUN):
        return "a model that is not told", there
    run = directory.read_run()
    config, model = run["config"], run["config"]["model"]["name"]
    if not directory.storage.exists(IMAGES):
        return model, there
    usable: int = pc.sum(directory.checked(IMAGES, run, columns=only("selected"))["selected"]).as_py() or 0
    drawn = len(divided(range(usable), config["fit"]["images"], config["limit"])[1])
    given_up = {failure.image_id for failure in directory.read_failures() if failure.stage == RESULTS}
    return model, drawn - len(given_up - evaluated)


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

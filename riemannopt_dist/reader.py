"""A run as its reader has it: results, summary, images, schedules and maps, from its directory alone.

    run = ro.open_run("s3://bucket/runs/best")
    run.results(path="ig", samples=16).to_pandas()
    for image_id, attribution in run.maps(path="ig", estimator="rescale", samples=16): ...

Neither torch nor Ray is needed. Every file's digest and origin are checked when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.choices import CELL
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.schedule import Schedule
from riemannopt_dist.run.directory import IMAGES, RunDirectory, shard_files
from riemannopt_dist.run.maps import FOLDER, about_maps, maps_of
from riemannopt_dist.run.naming import NAME, NAMES, named
from riemannopt_dist.run.results import read_results, result_rows
from riemannopt_dist.run.stages.names import RESULTS
from riemannopt_dist.run.uses import uses
from riemannopt_dist.storage.base import Storage, only

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCORES = "scores"
"""The folder of scores of stored maps in a run directory; each metric has one in it."""


@dataclass(frozen=True)
class StoredMaps:
    """The files of a cell's maps, one a shard; `name` is the cell's, `about` what the files tell of them."""

    name: str
    files: tuple[str, ...]
    about: dict[str, Any]


@dataclass(frozen=True)
class RunReader:
    """The run in a directory. Tables are Arrow's: `.to_pandas()` makes frames of them.

    Cells are chosen by `path`, `estimator`, `placement`, `samples` and `tolerance`, each a value or a list of
    values; ValueError for another name.
    """

    directory: RunDirectory

    @property
    def about(self) -> dict[str, Any]:
        """What run.json tells: the configuration, versions, digests."""
        return self.directory.read_run()

    def results(self, columns: Sequence[str] | None = None, **cells: Any) -> pa.Table:
        """Result rows of the chosen cells, of all columns or of those named.

        Only these columns are decoded, and rows of other cells are dropped file by file. Beside a class index
        stands the class's name: `label_name`, `target_name`. Raises ValueError where there are no rows, or no
        such column.
        """
        _check(cells)
        names = [name.removesuffix(NAME) if name in NAMES else name for name in columns or ()]
        there: dict[str, None] = {}

        def chosen(schema: pa.Schema) -> list[str]:
            there.update(dict.fromkeys(schema.names))
            return [n for n in schema.names if columns is None or n in names or n in cells]

        rows = result_rows(self.directory, chosen, lambda table: _of_cells(table, cells))
        if unknown := [name for name in names if name not in there]:
            raise ValueError(f"columns: expected some of {', '.join(there)}, got {unknown[0]!r}")
        rows = named(rows, self.directory.read_class_names())
        return rows if columns is None else rows.select([*columns])

    def summary(self) -> pa.Table:
        """A row for each cell, as `riemannopt summarize` has it, of the results that are there now."""
        from riemannopt_dist.reports.summary import summarize

        return pa.Table.from_pandas(summarize(read_results(self.directory.storage)), preserve_index=False)

    def images(self) -> pa.Table:
        """Every input: label and prediction with their classes' names, and its `use` in the run.

        That is what became of it until now, such as evaluated, fit, misclassified or given up on; see
        `riemannopt_dist.run.uses`. Names are null where the run does not tell them.
        """
        images = self.directory.table(IMAGES)
        done = shard_files(self.directory.storage, RESULTS)
        rows = result_rows(self.directory, only("image_id"))["image_id"] if done else pa.array([])
        failures = self.directory.read_failures()
        words = uses(images.to_pylist(), self.about["config"], failures, {*pc.unique(rows).to_pylist()})
        images = named(images, self.directory.read_class_names())
        return images.append_column("use", pa.array(words).dictionary_encode())

    def profile(self, path: str) -> Profile:
        """The profile |g′| of a path. Raises ValueError where none was fitted."""
        return Profile.from_fields(self._fitted(path)["profile"])

    def schedules(self, path: str) -> dict[tuple[str, str, int], Schedule]:
        """The schedules fitted to a path's profile, by estimator, placement and samples."""
        return {
            (e["estimator"], e["placement"], e["samples"]): Schedule(
                tuple(e["points"]), tuple(e["weights"]), e.get("reach", 1.0)
            )
            for e in self._fitted(path)["schedules"]
        }

    def scores(self, metric: str, **cells: Any) -> pa.Table:
        """What `riemannopt score` has computed of a metric from the chosen cells' stored maps: result rows.

        Raises ValueError where there is nothing of the metric.
        """
        files = shard_files(self.directory.storage, f"{SCORES}/{metric}").values()
        if tables := [_of_cells(table, cells) for table in self.directory.tables(files)]:
            return pa.concat_tables(tables)
        raise ValueError(f"{self.directory.storage.root}: no scores of {metric!r} in it (riemannopt score)")

    def maps(self, **cells: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Image ids and stored maps, (H, W) summed over channels or (C, H, W), of the chosen cells.

        Raises ValueError where no maps of such cells are stored.
        """
        for table in self.map_tables(**cells):
            yield from maps_of(table)

    def map_tables(self, **cells: Any) -> Iterator[pa.Table]:
        """The tables of stored maps of the chosen cells, one a shard and cell; see `about_maps`."""
        for stored in self.stored_maps(**cells):
            yield from self.directory.tables(stored.files)

    def stored_maps(self, **cells: Any) -> list[StoredMaps]:
        """The files of the chosen cells' maps, by cells.

        Raises ValueError where no maps of such cells are stored.
        """
        _check(cells)
        storage = self.directory.storage
        names = [name for name in storage.list(FOLDER) if name.endswith(".parquet")]
        folders = groupby(_whose_folder(names, cells), lambda name: name.rpartition("/")[0])
        stored = [_stored_maps(storage, folder, tuple(files)) for folder, files in folders]
        if chosen := [one for one in stored if _chosen(one.about["cell"], cells)]:
            return chosen
        what = ", ".join(f"{key} {value}" for key, value in cells.items()) or "any cell"
        raise ValueError(f"{storage.root}: no maps of {what} are stored in it")

    def _fitted(self, path: str) -> dict[str, Any]:
        fitted = self.directory.read_schedules(path)
        if fitted is None:
            raise ValueError(f"{self.directory.storage.root}: no profile of the path {path!r} in it")
        return fitted

    def _repr_html_(self) -> str:
        """For notebooks: what the run is, and its summary."""
        config = self.about["config"]
        head = f"<p><b>{config['model']['name']}</b> on {config['images']}</p>"
        table: str = self.summary().to_pandas().to_html(index=False, float_format=lambda v: f"{v:.4g}")
        return head + table


def open_run(uri: str) -> RunReader:
    """The run in a directory: a local path, s3:// or gs://.

    Raises ValueError where there is none, or one of another version.
    """
    directory = RunDirectory(Storage(uri))
    directory.read_run()
    return RunReader(directory)


def _check(cells: dict[str, Any]) -> None:
    for name in cells:
        if name not in CELL:
            raise ValueError(f"{name}: cells are chosen by {', '.join(CELL)}")


def _values(choice: Any) -> list[Any]:
    return list(choice) if isinstance(choice, list | tuple | set | frozenset) else [choice]


def _of_cells(table: pa.Table, cells: dict[str, Any]) -> pa.Table:
    for name, choice in cells.items():
        values = pa.array(_values(choice), table.schema.field(name).type)
        table = table.filter(pc.is_in(table[name], values))
    return table


def _stored_maps(storage: Storage, folder: str, files: tuple[str, ...]) -> StoredMaps:
    about = about_maps(storage.read_schema(files[0]).empty_table())
    return StoredMaps(folder.removeprefix(f"{FOLDER}/"), files, about)


def _whose_folder(names: Sequence[str], cells: dict[str, Any]) -> list[str]:
    """The files whose folder does not rule them out, so that the others are not read."""
    path = cells.get("path")
    allowed = None if path is None else {f"{FOLDER}/{value}/" for value in _values(path)}
    return [name for name in names if allowed is None or any(map(name.startswith, allowed))]


def _chosen(cell: dict[str, Any], cells: dict[str, Any]) -> bool:
    return all(cell[name] in _values(choice) for name, choice in cells.items())

"""The maps of a run in another format: a folder that is there entire, or not at all."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riemannopt_dist.map_files.base import CellMaps, ImageFacts, Map, MapExport
from riemannopt_dist.map_files.table import EXPORTERS
from riemannopt_dist.reader import RunReader, StoredMaps
from riemannopt_dist.run.maps import maps_of
from riemannopt_dist.run.progress import Meter, meter
from riemannopt_dist.run.targets import target_of
from riemannopt_dist.storage.redaction import URI, without_secrets


def export_maps(run: RunReader, kind: str, destination: str, **cells: Any) -> list[str]:
    """Write the stored maps of the chosen cells into the folder `destination`; the names of the cells.

    `kind` is a name in EXPORTERS. The folder is written under a hidden name beside it and renamed at the end,
    so that a part of an export never passes for one. Raises ValueError for a destination that is no local
    folder, or not empty, for cells without maps, and where the format's package is not installed.
    """
    write, folder = EXPORTERS[kind], _free_folder(destination)
    stored = run.stored_maps(**cells)
    counts = [sum(map(run.directory.storage.count_rows, one.files)) for one in stored]
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    temporary.mkdir(parents=True)
    try:
        with meter("export", sum(counts)) as progress:
            content = (
                CellMaps(_name(one), one.about, count, _counted(run, one.files, progress))
                for one, count in zip(stored, counts, strict=True)
            )
            write(MapExport(content, _facts(run), _classes(run)), temporary)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [_name(one) for one in stored]


def _name(stored: StoredMaps) -> str:
    """What a cell is called: one with a tolerance lies beside the one without, where Zarr has an array."""
    if stored.about["cell"]["tolerance"] is None:
        return stored.name
    return "-within-".join(stored.name.rsplit("/", 1))


def _free_folder(destination: str) -> Path:
    """The folder at a path, which is empty or not there."""
    if URI.match(destination):
        raise ValueError(f"dest: expected a local folder, got {without_secrets(destination)}")
    folder = Path(destination).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"dest: expected a folder, got the file {destination}")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"dest: expected an empty folder, or none yet, {destination} holds something")
    return folder


def _counted(run: RunReader, files: tuple[str, ...], progress: Meter) -> Iterator[tuple[str, Map]]:
    for table in run.directory.tables(files):
        yield from maps_of(table)
        progress.advance(len(table))


def _facts(run: RunReader) -> dict[str, ImageFacts]:
    """What images.parquet tells of the images that are classified."""
    targets = run.about["config"].get("targets", "label")
    rows = sorted(run.images().to_pylist(), key=lambda row: str(row["image_id"]))
    return {
        row["image_id"]: ImageFacts(
            index,
            target_of(row, targets),
            row["prediction"],
            row["probability"],
        )
        for index, row in enumerate(rows)
        if row["prediction"] is not None
    }


def _classes(run: RunReader) -> int:
    """How many classes the model has, as its probes tell; else as many as the images need."""
    if probes := run.directory.read_probes():
        return len(probes[0].logits)
    return 1 + max(max(fact.prediction, fact.target) for fact in _facts(run).values())

"""HDF5 as ViRelAy lays out its attribution databases: a file a cell, <cell>.h5.

`attribution` (images, channels, H, W), `label`, the class explained, `prediction` (images, classes) and
`index`, the image's place among all, sorted by id; for other readers also `image_id`. Maps that are summed
over channels have one channel. Of a prediction a run knows one class, the predicted one: the others are 0.
The layout: https://virelay.readthedocs.io, "Database Specification".
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riemannopt_dist.map_files.base import (
    CellMaps,
    ForeignMaps,
    MapExport,
    name_below,
    path_of,
    placed,
    required,
)

ABOUT = "maps"
"""The attribute of a file that tells of its maps what their files in the run do, as JSON."""
COMPRESSION = "gzip"
"""What every build of HDF5 can undo."""


def write(export: MapExport, folder: Path) -> None:
    """A file a cell."""
    h5py = required("h5py", "hdf5")
    for cell in export.cells:
        path = folder / f"{cell.name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file.attrs[ABOUT] = json.dumps(cell.about)
            _fill(file, cell, export, h5py.string_dtype())


def _fill(file: Any, cell: CellMaps, export: MapExport, text: Any) -> None:
    shape = cell.shape if len(cell.shape) == 4 else (cell.count, 1, *cell.shape[1:])
    kinds = {"label": np.uint32, "index": np.uint32, "image_id": text}
    columns = {name: file.create_dataset(name, (cell.count,), kind) for name, kind in kinds.items()}
    attribution = file.create_dataset(
        "attribution", shape, np.float32, chunks=(1, *shape[1:]), compression=COMPRESSION
    )
    prediction = file.create_dataset(
        "prediction", (cell.count, export.classes), np.float32, compression=COMPRESSION
    )
    for part, ids, maps in cell.batches():
        facts = [export.images[image_id] for image_id in ids]
        attribution[part] = maps.reshape(len(ids), *shape[1:])
        columns["image_id"][part] = ids
        columns["label"][part] = [fact.target for fact in facts]
        columns["index"][part] = [fact.index for fact in facts]
        rows = np.zeros((len(ids), export.classes), dtype=np.float32)
        rows[range(len(ids)), [fact.prediction for fact in facts]] = [fact.probability for fact in facts]
        prediction[part] = rows


def read(folder: Path, files: Sequence[Path]) -> Iterator[ForeignMaps]:
    """The maps of each file: those of a group by its keys, else by `image_id`, or by `index`.

    Without either they are those of the first images, as in ViRelAy.
    """
    h5py = required("h5py", "hdf5")
    for path in files:
        try:
            file = h5py.File(path, "r")
            maps = file["attribution"]
        except (OSError, KeyError) as error:
            raise ValueError(f"{path}: expected HDF5 with attributions: {error}") from None
        if isinstance(maps, h5py.Group):
            yield ForeignMaps(name_below(folder, path), {key: maps[key] for key in maps}, np.asarray)
        else:
            places = _places(file, len(maps), str(path))
            along = path_of(json.loads(file.attrs.get(ABOUT, "{}")))
            name, targets = name_below(folder, path), _targets(file, places)
            yield ForeignMaps(name, places, maps.__getitem__, targets, along)


def _places(file: Any, count: int, source: str) -> dict[str | int, int]:
    if "image_id" in file:
        return placed([*file["image_id"].asstr()[:]], count, source)
    numbers = file["index"][:].tolist() if "index" in file else range(count)
    return {number: place for place, number in enumerate(numbers)}


def _targets(file: Any, places: dict[str | int, int]) -> dict[str | int, int]:
    """The class explained of each image, where one is told."""
    if "label" not in file or file["label"].ndim != 1:
        return {}
    labels = file["label"][:].tolist()
    return {key: labels[place] for key, place in places.items()}

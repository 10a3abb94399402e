"""NumPy's .npy: a file a cell, <cell>.npy, and beside it <cell>.json, with the ids of the images.

From other tools also a file a map, named after its image, and ids in <name>.txt, one a line.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from riemannopt_dist.map_files.base import ForeignMaps, MapExport, name_below, path_of, placed

IDS = "image_ids"
"""The key of the ids in a .json file."""


def write(export: MapExport, folder: Path) -> None:
    """A file a cell, (images, …) in float32, with its ids and what else is known of it beside."""
    for cell in export.cells:
        path = folder / f"{cell.name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = open_memmap(path, mode="w+", dtype=np.float32, shape=cell.shape)
        names: list[str] = []
        for part, ids, maps in cell.batches():
            values[part] = maps
            names += ids
        values.flush()
        text = json.dumps({**cell.about, IDS: names}, indent=2, ensure_ascii=False)
        path.with_suffix(".json").write_text(text, encoding="utf-8")


def read(folder: Path, files: Sequence[Path]) -> Iterator[ForeignMaps]:
    """The maps of each file with ids beside it, and those of all others, a map a file, together."""
    single: dict[str | int, Any] = {}
    for path in files:
        ids, about = _beside(path)
        if ids is None:
            single[path.relative_to(folder if folder.is_dir() else folder.parent).as_posix()[:-4]] = path
        else:
            values = load(path)
            places = placed(ids, len(values), str(path))
            yield ForeignMaps(name_below(folder, path), places, values.__getitem__, path=path_of(about))
    if single:
        yield ForeignMaps(folder.stem, single, load)


def load(path: Path) -> NDArray[Any]:
    """The array in a file, mapped into memory. Raises ValueError where there is none."""
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array of numbers: {error}") from None
    return values


def _beside(path: Path) -> tuple[list[str] | None, Any]:
    """The ids that belong to a file of many maps, None where there are none, and all that stands there."""
    if (text := path.with_suffix(".txt")).is_file():
        return text.read_text(encoding="utf-8").splitlines(), None
    if not (file := path.with_suffix(".json")).is_file():
        return None, None
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return [str(name) for name in (about[IDS] if isinstance(about, dict) else about)], about
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: expected a list of image ids, or one under {IDS!r}") from None

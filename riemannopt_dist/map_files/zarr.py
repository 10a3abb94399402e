"""Zarr, version 3: a group with an array a cell, <cell>, whose attributes tell the ids of the images.

Axes are image, channel (where maps are not summed over them), y and x.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from riemannopt_dist.map_files.base import AT_ONCE, ForeignMaps, MapExport, path_of, placed, required
from riemannopt_dist.map_files.npy import IDS


def write(export: MapExport, folder: Path) -> None:
    """An array a cell, (images, …) in float32, in chunks of `AT_ONCE` maps."""
    group = required("zarr", "zarr").open_group(folder, mode="w", zarr_format=3)
    for cell in export.cells:
        axes = ("image", "y", "x") if len(cell.shape) == 3 else ("image", "channel", "y", "x")
        array = group.create_array(
            cell.name,
            shape=cell.shape,
            dtype=np.float32,
            chunks=(min(AT_ONCE, cell.count), *cell.shape[1:]),
            dimension_names=axes,
        )
        names: list[str] = []
        for part, ids, maps in cell.batches():
            array[part] = maps
            names += ids
        array.attrs.update({**cell.about, IDS: names})


def read(folder: Path, files: Sequence[Path]) -> Iterator[ForeignMaps]:
    """The maps of each array of a group, or of the one array that a folder is."""
    zarr = required("zarr", "zarr")
    root = zarr.open(folder, mode="r")
    arrays = {folder.name: root} if isinstance(root, zarr.Array) else dict(root.members(max_depth=None))
    for name, array in arrays.items():
        if isinstance(array, zarr.Array):
            if IDS not in array.attrs:
                raise ValueError(f"{folder / name}: expected the ids of its images in the attribute {IDS!r}")
            places = placed(array.attrs[IDS], array.shape[0], str(folder / name))
            yield ForeignMaps(name, places, array.__getitem__, path=path_of(array.attrs.asdict()))

"""Attribution maps on disk: a Parquet file a shard and cell, maps/<cell>/shard-00042.parquet.

A row is an image: its map is a fixed-size list of H · W numbers summed over channels, or of C · H · W, row by
row of pixels. In float16 a map is stored in units of its largest magnitude, `scale`: each value is then off
by at most 2^-11 of that magnitude (IEEE binary16 has 11 bits), and mostly by far less. In float32 it is 1.
The file's metadata tell the cell, the shape, the units and what the channels are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.schemas import field

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from riemannopt_dist.run.config.config import Config

FOLDER = "maps"
CONVERGED = "converged"
"""What stands for an estimator in the cells of converged maps."""
ABOUT = b"maps"
"""The key of a file's metadata under which a JSON object describes its maps."""

MAPS = pa.schema(
    [
        field("image_id", pa.string(), "the image's id in images.parquet"),
        field("scale", pa.float32(), "what the map's numbers are in units of; 1 in float32", "f"),
        field(
            "map",
            pa.list_(pa.float32()),
            "H · W numbers, or C · H · W, row by row of pixels: a list of this fixed size, of float16 unless "
            "maps.dtype is float32",
            "scale",
        ),
    ]
)
"""The columns of a file of maps, whose lists have the type and length of its run."""

Channels = Literal["sum", "all"]
StoredType = Literal["float16", "float32"]
CHANNELS = {1: "grey", 3: "red, green, blue"}
"""What the channels of a map are, by their number."""
_TYPES = {"float16": pa.float16(), "float32": pa.float32()}


@dataclass(frozen=True)
class MapOutput:
    """Which maps are stored, and how: those of `cells`, of `images` or of all (None).

    `converged` are cells that stand for the converged maps of a path, of the images `compared` with them.
    """

    cells: frozenset[Cell]
    images: frozenset[str] | None
    channels: Channels
    dtype: StoredType
    converged: frozenset[Cell] = frozenset()
    compared: frozenset[str] = frozenset()

    def files(self, shard: str, image_ids: Collection[str]) -> dict[str, frozenset[str]]:
        """The files of a shard of such images, and the ids of those that have a map in each."""
        chosen = {cell: self.chosen(cell, image_ids) for cell in sorted(self.cells | self.converged)}
        return {map_file(cell, shard): names for cell, names in chosen.items() if names}

    def chosen(self, cell: Cell, image_ids: Collection[str]) -> frozenset[str]:
        """Those of the images whose map of a cell is stored."""
        names = frozenset(image_ids if self.images is None else self.images.intersection(image_ids))
        return names & self.compared if cell in self.converged else names

    def only(self, cells: Collection[Cell]) -> MapOutput:
        """Those of some cells, and the converged ones of their paths."""
        paths = {cell.path for cell in cells}
        converged = frozenset(cell for cell in self.converged if cell.path in paths)
        return replace(self, cells=self.cells.intersection(cells), converged=converged)

    def bytes_of(self, image_ids: Collection[str], shape: tuple[int, int, int]) -> int:
        """What the maps of such images take before compression, the images being of `shape` (C, H, W)."""
        maps = sum(len(self.chosen(cell, image_ids)) for cell in self.cells | self.converged)
        values = shape[1] * shape[2] * (1 if self.channels == "sum" else shape[0])
        return maps * values * (2 if self.dtype == "float16" else 4)

    def table(self, cell: Cell, image_ids: Sequence[str], maps: Tensor) -> pa.Table:
        """The table of maps (B, C, H, W) of a cell, as far as these images have one."""
        chosen = self.chosen(cell, image_ids)
        places = [n for n, name in enumerate(image_ids) if name in chosen]
        values = maps[places].float()
        if self.channels == "sum":
            values = values.sum(1, keepdim=True)
        shape = list(values.shape[2:] if self.channels == "sum" else values.shape[1:])
        about = {
            "cell": asdict(cell),
            "shape": shape,
            "channels": "summed" if self.channels == "sum" else CHANNELS[maps.shape[1]],
            "unit": "f, the explained output",
            "value": "map * scale",
        }
        flat = values.flatten(1).cpu().numpy()
        scales = np.ones(len(flat), dtype=np.float32)
        if self.dtype == "float16":
            largest = np.abs(flat).max(axis=1, initial=0.0)
            scales = np.where(largest > 0, largest, 1.0).astype(np.float32)
            flat = (flat / scales[:, None]).astype(np.float16)
        kind = _TYPES[self.dtype]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), kind), flat.shape[1])
        fields = [MAPS.field("image_id"), MAPS.field("scale"), MAPS.field("map").with_type(lists.type)]
        schema = pa.schema(fields, {ABOUT: json.dumps(about)})
        return pa.table([[image_ids[n] for n in places], scales, lists], schema=schema)


def converged_cell(path: str, intervals: int) -> Cell:
    """What stands for the converged maps of a path, from the trapezoid on so many intervals."""
    return Cell(path, CONVERGED, NONE, intervals)


def map_output(config: Config, image_ids: Sequence[str]) -> MapOutput | None:
    """Which maps are stored of a run that evaluates these images, in the order they were drawn, and how."""
    if config.maps is None:
        return None
    maps, fixed = config.maps, [label for label, path in config.paths().items() if not path.walked]
    converged = (converged_cell(path, config.reference.intervals) for path in fixed)
    return MapOutput(
        cells=maps.chosen(config.cells()),
        images=None if maps.images is None else frozenset(image_ids[: maps.images]),
        channels=maps.channels,
        dtype=maps.dtype,
        converged=frozenset(converged if maps.converged else ()),
        compared=compared_images(config, image_ids),
    )


def compared_images(config: Config, image_ids: Sequence[str]) -> frozenset[str]:
    """Those of the evaluated images whose maps are compared with converged ones."""
    return frozenset(image_ids[: config.reference.images])


def map_file(cell: Cell, shard: str) -> str:
    """The file of a cell's maps of a shard, relative to the run directory."""
    return f"{FOLDER}/{cell}/{shard}.parquet"


def about_maps(table: pa.Table) -> dict[str, Any]:
    """What a file of maps tells of them. Raises ValueError where it is none."""
    text = (table.schema.metadata or {}).get(ABOUT)
    if text is None:
        raise ValueError("expected a file of maps, found none of their metadata in it")
    about: dict[str, Any] = json.loads(text)
    return about


def maps_of(table: pa.Table) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The image ids and maps, (H, W) or (C, H, W), of a file, in float32: views where they were so."""
    shape = about_maps(table)["shape"]
    for batch in table.to_batches():
        values = batch["map"].flatten().to_numpy(zero_copy_only=True).reshape(len(batch), *shape)
        scales = batch["scale"].to_numpy()
        for name, scale, value in zip(batch["image_id"].to_pylist(), scales, values, strict=True):
            yield (
                name,
                value if value.dtype == np.float32 and scale == 1 else value.astype(np.float32) * scale,
            )


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """One table of the batches of a shard, in one piece."""
    return pa.concat_tables(parts).combine_chunks()

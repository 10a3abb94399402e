"""What the formats of map files have in common: what is written to them, and what is read from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
AT_ONCE = 16
"""Maps that are written at a time, and in formats with chunks those of one."""


@dataclass(frozen=True)
class CellMaps:
    """The maps of one cell: `count` pairs of an image's id and its map, in units of the explained output.

    `about` is what their files in the run tell: the cell, the shape of a map, its channels, its unit.
    """

    name: str
    about: Mapping[str, Any]
    count: int
    maps: Iterable[tuple[str, Map]]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of all maps together, (count, H, W) or (count, C, H, W)."""
        return (self.count, *self.about["shape"])

    def batches(self) -> Iterator[tuple[slice, list[str], Map]]:
        """The maps, `AT_ONCE` at a time: their places among all, the ids of their images, and the values."""
        pairs, start = iter(self.maps), 0
        while part := list(islice(pairs, AT_ONCE)):
            ids, values = zip(*part, strict=True)
            yield slice(start, start + len(part)), list(ids), np.stack(values)
            start += len(part)
        if start != self.count:
            raise ValueError(f"{self.name}: expected {self.count} maps, as its files tell, got {start}")


@dataclass(frozen=True)
class ImageFacts:
    """What a run knows of an image: its place among all, sorted by id; its classes, and its confidence."""

    index: int
    target: int
    prediction: int
    probability: float


@dataclass(frozen=True)
class MapExport:
    """What is written: the maps of cells, and what is known of their images, by ids, and of the model."""

    cells: Iterable[CellMaps]
    images: Mapping[str, ImageFacts]
    classes: int


Exporter = Callable[[MapExport, Path], None]
"""Writes maps into an empty folder."""


@dataclass(frozen=True)
class ForeignMaps:
    """Maps of one method, from whatever tool: `read` gives the map at a place.

    `places` are by the image's id, or by its number where the file holds no ids: that among all images,
    sorted by id. `targets` are the classes explained and `path` is what they integrate along, as far as the
    file tells.
    """

    name: str
    places: Mapping[str | int, Any]
    read: Callable[[Any], NDArray[Any]]
    targets: Mapping[str | int, int] = field(default_factory=dict)
    path: str = ""


MapReader = Callable[[Path, Sequence[Path]], Iterator[ForeignMaps]]
"""Reads files of a format, given with the folder that they are below."""


def required(package: str, kind: str) -> ModuleType:
    """A package that a format needs. Raises ValueError where it is not installed."""
    try:
        return import_module(package)
    except ImportError:
        raise ValueError(f"{kind}: needs {package}: pip install 'riemannopt-dist[export]'") from None


def placed(ids: Sequence[str], count: int, source: str) -> dict[str | int, int]:
    """The places 0 … count − 1 by the ids of images. Raises ValueError for other ids than one a map."""
    if len(ids) != count:
        raise ValueError(f"{source}: expected an image id a map, got {len(ids)} ids and {count} maps")
    places: dict[str | int, int] = {}
    for place, image_id in enumerate(ids):
        if image_id in places:
            raise ValueError(f"{source}: expected one map an image, got two of {image_id!r}")
        places[image_id] = place
    return places


def path_of(about: Any) -> str:
    """The path of maps that a run stored, from what is known of them; "" of others."""
    cell = about.get("cell") if isinstance(about, Mapping) else None
    return str(cell.get("path", "")) if isinstance(cell, Mapping) else ""


def name_below(folder: Path, path: Path) -> str:
    """What the maps of a file are called: its path below the folder, if that is one, without its suffix."""
    return path.relative_to(folder).with_suffix("").as_posix() if path != folder else path.stem

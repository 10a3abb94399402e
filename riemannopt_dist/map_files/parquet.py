"""Parquet with the columns `image_id` and `map`, a list of numbers, flat or nested; so are those of a run.

Where there is a column `scale`, maps are in units of it; where there is a column `target`, it is the class
explained.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from riemannopt_dist.map_files.base import ForeignMaps, path_of
from riemannopt_dist.run.maps import ABOUT

NEEDED = ("image_id", "map")


def read(folder: Path, files: Sequence[Path]) -> Iterator[ForeignMaps]:
    """The maps of each folder of files, as shards of one table."""
    tables: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        tables[path if path == folder else path.parent].append(path)
    for place, parts in tables.items():
        name = folder.name if place == folder else place.relative_to(folder).as_posix()
        yield _of_parts(name, parts)


def _of_parts(name: str, parts: Sequence[Path]) -> ForeignMaps:
    places: dict[str | int, Any] = {}
    targets: dict[str | int, int] = {}
    for path in parts:
        for group, table in _groups(path):
            rows = table.to_pylist()
            for row, values in enumerate(rows):
                if values["image_id"] in places:
                    raise ValueError(f"{path}: expected one map an image, got two of {values['image_id']!r}")
                places[values["image_id"]] = (path, group, row)
                targets |= {values["image_id"]: values["target"]} if "target" in values else {}

    @lru_cache(maxsize=1)
    def table_of(path: Path, group: int) -> pa.Table:
        with pq.ParquetFile(path) as file:
            return file.read_row_group(group)

    def map_at(place: tuple[Path, int, int]) -> NDArray[Any]:
        path, group, row = place
        return _map(table_of(path, group), row)

    about = json.loads((pq.read_schema(parts[0]).metadata or {}).get(ABOUT, b"{}"))
    return ForeignMaps(name, places, map_at, targets, path_of(about))


def _groups(path: Path) -> Iterator[tuple[int, pa.Table]]:
    """The ids, and targets, of a file's row groups."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not set(NEEDED) <= {*names}:
                raise ValueError(f"{path}: expected columns {' and '.join(NEEDED)}, got {', '.join(names)}")
            columns = [name for name in ("image_id", "target") if name in names]
            for group in range(file.num_row_groups):
                yield group, file.read_row_group(group, columns)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {error}") from None


def _map(table: pa.Table, row: int) -> NDArray[Any]:
    """A flat map, in its unit."""
    values = table["map"][row].values
    while pa.types.is_nested(values.type):
        values = values.flatten()
    scale = table["scale"][row].as_py() if "scale" in table.column_names else 1.0
    numbers: NDArray[Any] = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64) * scale
    return numbers

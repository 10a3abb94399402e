"""Result rows by cell and image: each column a matrix, so that millions of rows are grouped once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from riemannopt_dist.choices import CELL

CellKey = tuple[str, str, str, int, float]
"""A cell by its `CELL`. A tolerance of 0 stands for none."""


@dataclass(frozen=True, eq=False)
class Pivot:
    """The rows of `results` by C cells and I images, both in order.

    `rows` (C, I) are the numbers of the rows, −1 where a cell has none of an image.
    """

    results: pa.Table
    cells: tuple[CellKey, ...]
    images: pa.Array
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, results: pa.Table) -> "Pivot":
        """Raises ValueError where an image is there twice in a cell."""
        cells, cell = _coded_cells(results)
        images, image = _coded(results["image_id"])
        numbers, rows = np.arange(len(results)), np.full((len(cells), len(images)), -1)
        rows[cell, image] = numbers
        for row in np.flatnonzero(rows[cell, image] != numbers)[:1]:
            raise ValueError(
                f"results: {images[image[row]]} is there twice in the cell {cells[cell[row]]}: expected an "
                "image once (riemannopt verify tells the file)"
            )
        return cls(results, cells, images, rows)

    @cached_property
    def there(self) -> NDArray[np.bool_]:
        """Which cells have a row of which images, (C, I)."""
        return np.asarray(self.rows >= 0)

    def column(self, name: str) -> NDArray[np.float64]:
        """A column of numbers as the rows are, (rows,); NaN where there is no value."""
        numbers: NDArray[np.float64] = self.results[name].to_numpy().astype(np.float64, copy=False)
        return numbers

    def values(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, (C, I); NaN where there is no row, or no value in it."""
        # The number −1 of a row that is not there is that of the NaN at the end.
        return np.append(self.column(name), np.nan)[self.rows]

    def curves(self, name: str) -> NDArray[np.float32]:
        """A column of lists as the rows are, (rows, K); NaN where there is no list.

        Raises ValueError where their lengths differ.
        """
        lengths = pc.list_value_length(self.results[name]).to_numpy()
        known = ~np.isnan(lengths)
        size, *others = np.unique(lengths[known]).astype(int).tolist() or [0]
        if others:
            raise ValueError(f"{name}: expected curves of one length, found {size} and {others[0]}")
        parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in self.results[name].chunks]
        flat = np.concatenate([np.zeros(0, dtype=np.float32), *parts]).reshape(int(known.sum()), size)
        if known.all():
            return flat
        curves = np.full((len(known), size), np.nan, dtype=np.float32)
        curves[known] = flat
        return curves

    def where(self, **fields: Any) -> list[int]:
        """The numbers of the cells whose fields have these values."""
        chosen = {CELL.index(name): value for name, value in fields.items()}
        return [n for n, cell in enumerate(self.cells) if all(cell[k] == v for k, v in chosen.items())]


def _coded_cells(results: pa.Table) -> tuple[tuple[CellKey, ...], NDArray[np.int64]]:
    """The cells of result rows in order, and the place of each row's among them."""
    tolerance = pc.fill_null(results["tolerance"], 0.0)
    columns = [*(results[name] for name in CELL[:-1]), pc.if_else(pc.is_nan(tolerance), 0.0, tolerance)]
    levels, codes = zip(*map(_coded, columns), strict=True)
    shape = tuple(max(1, len(level)) for level in levels)
    present, places = np.unique(np.ravel_multi_index(codes, shape), return_inverse=True)
    values = [level.to_pylist() for level in levels]
    keys = zip(*np.unravel_index(present, shape), strict=True)
    cells: list[Any] = [tuple(of[n] for of, n in zip(values, key, strict=True)) for key in keys]
    return tuple(cells), places


def _coded(column: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """The different values of a column in order, and the place of each row's among them."""
    values = pc.unique(column).sort()
    return values, pc.index_in(column, values).to_numpy().astype(np.int64)

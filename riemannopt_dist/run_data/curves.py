"""Mean curves of a run's cells, such as those of insertion, added up shard by shard."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from riemannopt_dist.reports.cells import cell_key
from riemannopt_dist.reports.data import Curve
from riemannopt_dist.reports.pivot import CELL, CellKey
from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.stages.names import RESULTS

END = "_curve"
"""How the columns end that hold an image's curve at equal shares of its pixels, from none to all."""

Sums = dict[tuple[str, CellKey], tuple[int, NDArray[np.float64]]]


def mean_curves(directory: RunDirectory) -> list[Curve]:
    """The mean curve of each score and cell, over the images for which it is defined."""
    sums: Sums = {}
    for table in directory.tables(shard_files(directory.storage, RESULTS).values()):
        cells, places = _cells(table)
        for name in table.column_names:
            if name.endswith(END) and pa.types.is_list(table.schema.field(name).type):
                _add(sums, name.removesuffix(END), table[name].combine_chunks(), cells, places)
    return [
        Curve(score, cell, images, np.linspace(0, 1, len(total)), total / images)
        for (score, cell), (images, total) in sorted(sums.items(), key=lambda item: item[0])
        if images
    ]


def _cells(table: pa.Table) -> tuple[list[CellKey], NDArray[np.int64]]:
    """The cells in a shard, and for each row the place of its own among them."""
    codes = np.zeros(len(table), dtype=np.int64)
    for name in CELL:
        column = table[name].combine_chunks().dictionary_encode()
        missing = len(column.dictionary)
        codes = codes * (missing + 1) + column.indices.fill_null(missing).to_numpy()
    _, first, places = np.unique(codes, return_index=True, return_inverse=True)
    return [cell_key(row) for row in table.select(CELL).take(first).to_pylist()], places


def _add(
    sums: Sums, score: str, curves: pa.ListArray, cells: Sequence[CellKey], places: NDArray[np.int64]
) -> None:
    """Add the curves of a shard's rows, all of one length, to the sums of their cells."""
    there = curves.is_valid().to_numpy(zero_copy_only=False)
    if not there.any():
        return
    values = curves.drop_null().flatten().to_numpy().astype(np.float64).reshape(there.sum(), -1)
    defined = ~np.isnan(values).any(axis=1)
    values, places = values[defined], places[there][defined]
    for place, cell in enumerate(cells):
        kept = values[places == place]
        images, total = sums.get((score, cell), (0, np.zeros(values.shape[1])))
        sums[score, cell] = images + len(kept), total + kept.sum(0)

"""Mean curves of a run's cells, such as those of insertion, added up shard by shard."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from riemannopt_dist.reports.data import CellKey, Curve
from riemannopt_dist.reports.statistics import CELL
from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.stages.names import RESULTS

END = "_curve"
"""How the columns end that hold an image's curve at equal shares of its pixels, from none to all."""

Sums = dict[tuple[str, CellKey], tuple[int, NDArray[np.float64]]]


def mean_curves(directory: RunDirectory) -> list[Curve]:
    """The mean curve of each score and cell, over the images for which it is defined."""
    sums: Sums = {}
    for table in directory.tables(shard_files(directory.storage, RESULTS).values()):
        for name in table.column_names:
            if name.endswith(END) and pa.types.is_list(table.schema.field(name).type):
                _add(sums, name.removesuffix(END), table, name)
    return [
        Curve(score, cell, images, np.linspace(0, 1, len(total)), total / images)
        for (score, cell), (images, total) in sorted(sums.items(), key=lambda item: item[0])
        if images
    ]


def _add(sums: Sums, score: str, table: pa.Table, name: str) -> None:
    """Add the curves of a shard's rows to the sums of their cells."""
    rows: dict[CellKey, list[list[float]]] = defaultdict(list)
    for cell, curve in zip(_cells(table), table[name].to_pylist(), strict=True):
        if curve is not None:
            rows[cell].append(curve)
    for cell, curves in rows.items():
        values = np.asarray(curves, dtype=np.float64)
        defined = values[~np.isnan(values).any(axis=1)]
        images, total = sums.get((score, cell), (0, np.zeros(values.shape[1])))
        sums[score, cell] = images + len(defined), total + defined.sum(0)


def _cells(table: pa.Table) -> Iterator[CellKey]:
    path, estimator, placement, samples, tolerance = (table[name].to_pylist() for name in CELL)
    yield from zip(path, estimator, placement, samples, [t or 0.0 for t in tolerance], strict=True)

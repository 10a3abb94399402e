"""Mean curves of a run's cells, such as those of insertion, added up shard by shard."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from riemannopt_dist.reports.cells import cell_key
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
                _add(sums, name.removesuffix(END), table.filter(pc.is_valid(table[name])), name)
    return [
        Curve(score, cell, images, np.linspace(0, 1, len(total)), total / images)
        for (score, cell), (images, total) in sorted(sums.items(), key=lambda item: item[0])
        if images
    ]


def _add(sums: Sums, score: str, rows: pa.Table, name: str) -> None:
    """Add the curves of a shard's rows, all of one length, to the sums of their cells."""
    if not len(rows):
        return
    values = rows[name].combine_chunks().flatten().to_numpy().astype(np.float64).reshape(len(rows), -1)
    defined = ~np.isnan(values).any(axis=1)
    for fields, places in rows.select(CELL).to_pandas().groupby(CELL, dropna=False).indices.items():
        cell = cell_key(dict(zip(CELL, fields, strict=True)))
        kept = places[defined[places]]
        images, total = sums.get((score, cell), (0, np.zeros(values.shape[1])))
        sums[score, cell] = images + len(kept), total + values[kept].sum(0)

"""Mean curves of a run's cells, such as those of insertion, added up shard by shard."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from riemannopt_dist.choices import CELL
from riemannopt_dist.reports.cells import cell_key
from riemannopt_dist.reports.data import Curve
from riemannopt_dist.reports.pivot import CellKey
from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.results import READERS
from riemannopt_dist.run.stages.names import RESULTS

END = "_curve"
"""How the columns end that hold f of an image at shares of its pixels, which their metadata tell."""

Sums = dict[tuple[str, CellKey], tuple[int, NDArray[np.float64]]]
Shares = dict[str, NDArray[np.float64]]


def mean_curves(directory: RunDirectory) -> list[Curve]:
    """The mean curve of each score and cell, over the images for which it is defined."""
    run, sums, shares = directory.read_run(), Sums(), Shares()

    def of_shard(name: str) -> tuple[Shares, Sums]:
        table = directory.checked(name, run, columns=lambda schema: [*CELL, *_curves(schema)])
        return _shares(table.schema), _sums(table)

    with ThreadPoolExecutor(READERS) as threads:
        for positions, shard in threads.map(of_shard, shard_files(directory.storage, RESULTS).values()):
            shares |= positions
            for key, (count, part) in shard.items():
                images, total = sums.get(key, (0, 0.0))
                sums[key] = images + count, total + part
    return [
        Curve(score, cell, images, shares.get(score, np.linspace(0, 1, len(total))), total / images)
        for (score, cell), (images, total) in sorted(sums.items(), key=lambda item: item[0])
        if images
    ]


def _sums(table: pa.Table) -> Sums:
    """Of each score and cell of a shard the images whose curve is defined, and the sum of these."""
    cells, places = _cells(table)
    sums: Sums = {}
    for name in _curves(table.schema):
        curves = table[name].combine_chunks()
        there = curves.is_valid().to_numpy(zero_copy_only=False)
        if there.any():
            values = curves.drop_null().flatten().to_numpy().astype(np.float64).reshape(there.sum(), -1)
            defined = ~np.isnan(values).any(axis=1)
            of_cells = (places[there][defined] == np.arange(len(cells))[:, None]).astype(np.float64)
            parts = zip(cells, of_cells.sum(1), of_cells @ values[defined], strict=True)
            sums |= {(name.removesuffix(END), cell): (int(count), part) for cell, count, part in parts}
    return sums


def _shares(schema: pa.Schema) -> Shares:
    """The shares of pixels that each score's curve is at; runs of older versions do not tell them."""
    told = {name: (schema.field(name).metadata or {}).get(b"x", b"") for name in _curves(schema)}
    # It may be the name of a column instead.
    return {name.removesuffix(END): np.array(json.loads(x)) for name, x in told.items() if x[:1] == b"["}


def _curves(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if field.name.endswith(END) and pa.types.is_list(field.type)]


def _cells(table: pa.Table) -> tuple[list[CellKey], NDArray[np.int64]]:
    """The cells in a shard, and for each row the place of its own among them."""
    codes = np.zeros(len(table), dtype=np.int64)
    for name in CELL:
        column = table[name].combine_chunks().dictionary_encode()
        missing = len(column.dictionary)
        codes = codes * (missing + 1) + column.indices.fill_null(missing).to_numpy()
    _, first, places = np.unique(codes, return_index=True, return_inverse=True)
    return [cell_key(row) for row in table.select([*CELL]).take(first).to_pylist()], places

"""What every result must be: finite, but for what is not defined, where its column says when that is so.

One rule for all metrics, for rows as they are made and for those of a run that is verified.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.metrics.metric import Column, Metric
from riemannopt_dist.run.grid import Cell, cell_of

if TYPE_CHECKING:
    from torch import Tensor

    from riemannopt_dist.estimators.converged import Reference

F_INPUT, F_BASELINE = Column("f_input", "f"), Column("f_baseline", "f")


def check_maps(cells: Sequence[Cell], maps: Tensor, references: Sequence[Reference | None]) -> None:
    """Raise FloatingPointError, naming the cell, unless maps (S, B, C, H, W) and references are finite."""
    for cell, finite in zip(cells, maps.isfinite().flatten(1).all(1).tolist(), strict=True):
        if not finite:
            raise FloatingPointError(f"the map of {cell} is not finite")
    for cell, reference in zip(cells, references, strict=bool(references)):
        if reference is not None and not bool(reference.maps.isfinite().all()):
            raise FloatingPointError(f"the converged map of {cell} is not finite")


def check_row(row: Mapping[str, Any], metrics: Iterable[Metric]) -> None:
    """Raise FloatingPointError, naming the cell, for a row of results with a `faulty_column`."""
    if (name := faulty_column(row, metrics)) is not None:
        raise FloatingPointError(f"{name} of {cell_of(row)} is not finite")


def faulty_column(row: Mapping[str, Any], metrics: Iterable[Metric]) -> str | None:
    """The first column of a row of results that is neither finite nor rightly undefined, None if none is."""
    control = row["path"] == NONE  # which has no path
    columns = [F_INPUT] if control else [F_INPUT, F_BASELINE]
    columns += [column for metric in metrics for column in metric.columns if column.kind != "text"]
    return next((column.name for column in columns if not _is_right(column, row)), None)


def _is_right(column: Column, row: Mapping[str, Any]) -> bool:
    value = row[column.name]
    numbers = value if isinstance(value, list) else [value]
    if None in numbers or any(map(math.isinf, numbers)):
        return False
    undefined = bool(column.undefined) and (not column.reason or row[column.reason] is not None)
    return undefined or not any(map(math.isnan, numbers))

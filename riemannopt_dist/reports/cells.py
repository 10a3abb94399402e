"""Cells of the grid in tables and sentences: their key, their name, their order."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from riemannopt_dist.estimators.base import LINEAR, NONE
from riemannopt_dist.reports.page.parts import Column, Value, number, text
from riemannopt_dist.reports.pivot import CellKey
from riemannopt_dist.reports.table_one import METHODS
from riemannopt_dist.text import printable

COLUMNS: Mapping[str, Column] = {
    "path": Column("path", "the path from a baseline to the image", numbers=False),
    "placement": Column("placement", "where the samples are", numbers=False),
    "estimator": Column("estimator", "how the integral is estimated from them", numbers=False),
    "samples": Column("samples", "points, or intervals of rescale; with a tolerance the most an image takes"),
    "tolerance": Column("tolerance", "the estimated error at which an image has samples enough"),
    "images": Column("images", "images evaluated"),
    "gradient_evaluations": Column("evaluations", "gradients an image, the mean over images"),
    "seconds": Column("seconds", "time that an image's gradients take"),
}
"""The columns that every table of cells begins with, those that a run has."""


def cell_key(row: Mapping[Any, Any]) -> CellKey:
    """The cell of a table's row, which may lack a tolerance."""
    tolerance = float(row.get("tolerance") or 0.0)  # NaN where none
    name = (str(row["path"]), str(row["estimator"]), str(row["placement"]), int(row["samples"]))
    return (*name, 0.0 if math.isnan(tolerance) else tolerance)


def kind_name(cell: CellKey) -> str:
    """Placement and estimator of a cell, or that it is a control, and its tolerance."""
    path, estimator, placement, _, tolerance = cell
    words = f"control {estimator}" if path == NONE else f"{placement} {estimator}"
    return printable(f"{words} to {tolerance:g}" if tolerance else words)


def cell_name(cell: CellKey) -> str:
    """A cell in words."""
    path, _, _, samples, tolerance = cell
    if path == NONE:
        return kind_name(cell)
    return f"{printable(path)} {kind_name(cell)}{'' if tolerance else f' {samples}'}"


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by path, the paper's first, then equal points, then by placement, estimator and count."""
    ranks = {name: rank for rank, name in enumerate(in_path_order(table["path"].unique()))}
    fitted = table["placement"].astype(str).ne(LINEAR)
    keys = ["_path", "_fitted", "placement", "estimator", "samples"]
    order = table.assign(_path=table["path"].map(ranks).astype(int), _fitted=fitted)
    return table.loc[order.sort_values(keys, kind="stable").index]


def in_path_order(paths: Iterable[str]) -> list[str]:
    """Labels of paths, the paper's first, in its order, and controls last."""
    methods = [*METHODS]

    def rank(label: str) -> tuple[bool, int, str]:
        name = label.partition("(")[0]
        return label == NONE, methods.index(name) if name in methods else len(methods), label

    return sorted(map(str, paths), key=rank)


def keyed(table: pd.DataFrame) -> dict[CellKey, dict[str, Any]]:
    """Rows of a table of cells by their cell."""
    rows = ({str(name): value for name, value in row.items()} for row in table.to_dict("records"))
    return {cell_key(row): row for row in rows}


def values_of(row: Mapping[Any, Any], columns: Mapping[str, Column]) -> list[Value]:
    """A row of a table of these columns."""
    return [(number if column.numbers else text)(row[name]) for name, column in columns.items()]

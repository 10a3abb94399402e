"""Maps of a typical image with equal points and without, beside the converged map: the paper's figure 1."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from riemannopt_dist.estimators.base import LINEAR, NONE
from riemannopt_dist.reports.answer import error_of
from riemannopt_dist.reports.cells import kind_name
from riemannopt_dist.reports.data import Picture, RunData
from riemannopt_dist.reports.figures import overlay_figure
from riemannopt_dist.reports.gallery import errors_of
from riemannopt_dist.reports.page.parts import shown
from riemannopt_dist.reports.pivot import CellKey

Map = NDArray[np.float32]
SAMPLES = 16
"""The count whose maps are drawn, of those that most placements have; else the least of these."""
MAPS = 3
"""Maps of a path, at most."""
FIRST = (LINEAR, "riemannopt")
"""The placements whose maps come first."""


def maps_figure(data: RunData) -> Figure | None:
    """A line for each path: the photo, maps of equal and of placed points, and what they converge to.

    The image is the one with the median error of those that have the first cell's map. None where no maps, no
    errors or no photo are there.
    """
    score, lines = error_of(data.results), cells_shown(data)
    if score is None or not lines:
        return None
    ranked = [*errors_of(data.results, score, lines[0][0]).index]
    for image_id in ranked[len(ranked) // 2 :] + ranked[: len(ranked) // 2]:
        pictures = [data.pictures([image_id], cells)[image_id] for cells in lines]
        photo = pictures[0].photo
        if photo is not None and all(_has(*pair) for pair in zip(pictures, lines, strict=True)):
            rows = [_row(data, score, image_id, *pair) for pair in zip(pictures, lines, strict=True)]
            return overlay_figure(np.stack([photo / 255] * len(rows)), pictures[0].name, rows)
    return None


def _has(picture: Picture, cells: Sequence[CellKey]) -> bool:
    return all(cell in picture.maps for cell in cells)


def _row(
    data: RunData, score: str, image_id: str, picture: Picture, cells: Sequence[CellKey]
) -> tuple[str, list[tuple[str, Map]]]:
    """A path's label, and its maps with their captions."""
    errors = {cell: errors_of(data.results, score, cell).get(image_id, np.nan) for cell in cells}
    maps = [(f"{cell[3]} {kind_name(cell)}: {shown(errors[cell])}", picture.maps[cell]) for cell in cells]
    if picture.converged is not None:
        maps.append(("converged", picture.converged))
    return cells[0][0], maps


def cells_shown(data: RunData) -> list[list[CellKey]]:
    """For each path with stored maps the cells that are drawn: of each placement one, equal points first."""
    stored = [cell for cell in data.mapped if cell[2] != NONE and not cell[4]]
    if not stored:
        return []
    kinds = Counter(samples for _, _, samples in {(cell[0], cell[2], cell[3]) for cell in stored})
    samples = max(kinds, key=lambda count: (kinds[count], count == SAMPLES, -count))
    lines: dict[str, dict[str, CellKey]] = {}
    for cell in sorted(stored, key=lambda cell: (cell[0] != "ig", cell[0], _order(cell[2]), cell)):
        if cell[3] == samples:
            lines.setdefault(cell[0], {}).setdefault(cell[2], cell)
    return [[*cells.values()][:MAPS] for cells in lines.values()]


def _order(placement: str) -> int:
    return FIRST.index(placement) if placement in FIRST else len(FIRST)

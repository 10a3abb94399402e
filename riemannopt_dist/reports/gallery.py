"""The images that a cell serves best and worst: photo, heat maps over it, and what is off in them."""

from collections.abc import Iterator, Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.choices import CELL
from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.reports.answer import WORDS, Saving, best_of, error_of
from riemannopt_dist.reports.cells import cell_key, cell_name, keyed, kind_name
from riemannopt_dist.reports.data import Picture, RunData
from riemannopt_dist.reports.efficiency import EQUAL
from riemannopt_dist.reports.page.heat_maps import legend, overlay, picture_uri, scale_of, smooth
from riemannopt_dist.reports.page.parts import Block, Card, Gallery, Note, shown
from riemannopt_dist.reports.pivot import CellKey
from riemannopt_dist.text import printable

EACH = 3
"""Images at either end."""
CAPTION = (
    "The images that {cell} serves best, and worst, by its {error}. Maps are summed over channels and "
    "smoothed; those of an image have one scale, which ends at the 99.5th percentile of the converged map's "
    "magnitudes where that is stored. Differences from it are magnified by the factor told."
)
TO_STORE = (
    'No maps of this cell are stored. With maps: {{cells: ["{path}/*/{samples}"], converged: true}} in the '
    "configuration the same command stores them, of a run that is done, too."
)


def gallery(data: RunData, savings: Mapping[CellKey, Saving]) -> Iterator[Block]:
    """The pictures of the best cell with stored maps, or of the best one; by its error where none saves."""
    score, cell = error_of(data.results), _cell_of(data, savings)
    if score is None or cell is None:
        yield Note("Without an error there are no best and no worst images.")
        return
    cells = [*filter(None, [_equal_cell(data, cell)]), cell]
    errors = {each: errors_of(data.results, score, each) for each in cells}
    ranked = [*errors[cell].index]
    names = ranked if len(ranked) <= 2 * EACH else [*ranked[:EACH], *ranked[-EACH:]]
    pictures = data.pictures(names, cells)
    cards = []
    for name in names:
        captions = {
            each: f"{kind_name(each)} {each[3]}: {WORDS[score]} {shown(values[name])}"
            for each, values in errors.items()
            if name in values
        }
        title = f"{ranked.index(name) + 1} of {len(ranked)}"
        cards.append(_card(title, _about(data, name, pictures[name]), pictures[name], captions))
    yield Gallery(CAPTION.format(cell=cell_name(cell), error=WORDS[score]), cards, legend())
    if not any(picture.maps for picture in pictures.values()):
        yield Note(TO_STORE.format(path=cell[0], samples=cell[3]))


def errors_of(results: pa.Table, score: str, cell: CellKey) -> "pd.Series[float]":
    """The errors of a cell's images by their id, the least first, where they are defined."""
    tolerance = pc.fill_null(results["tolerance"], 0.0)
    chosen = pc.equal(tolerance, cell[4])
    for name, value in zip(CELL[:4], cell, strict=False):
        chosen = pc.and_(chosen, pc.equal(results[name], value))
    rows = results.select(["image_id", score]).filter(chosen).sort_by("image_id").to_pandas()
    errors: pd.Series[float] = rows.set_index("image_id")[score].dropna().sort_values(kind="stable")
    return errors


def _cell_of(data: RunData, savings: Mapping[CellKey, Saving]) -> CellKey | None:
    score = error_of(data.results)
    best = best_of({cell: saving for cell, saving in savings.items() if cell in data.mapped})
    best = best or best_of(savings)
    if best is not None or score is None:
        return None if best is None else best.cell
    cells = data.summary[data.summary["path"] != NONE].dropna(subset=[f"{score}_mean"])
    cells = cells.sort_values(f"{score}_mean", kind="stable")
    return cell_key(cells.iloc[0].to_dict()) if len(cells) else None


def _equal_cell(data: RunData, cell: CellKey) -> CellKey | None:
    """Equal points of the same path and count beside the cell, by the left rule if there are any."""
    cells = [c for c in keyed(data.summary) if (c[0], c[2], c[3]) == (cell[0], EQUAL[1], cell[3])]
    return min((c for c in cells if c != cell), key=lambda c: (c[1] != EQUAL[0], c), default=None)


def _about(data: RunData, name: str, picture: Picture) -> str:
    """An image's id, its class, and what the model gives for that."""
    place = pc.index(data.results["image_id"], name).as_py()
    f_input = data.results["f_input"][place].as_py()
    output = data.about.get("config", {}).get("explain", "f")
    return ", ".join(filter(None, [printable(name), picture.name, f"{output} {shown(f_input)}"]))


def _card(title: str, about: str, picture: Picture, captions: Mapping[CellKey, str]) -> Card:
    """An image's photo, its maps, the converged map, and what is off in those."""
    pictures = [] if picture.photo is None else [("photo", picture_uri(picture.photo))]
    notes = [] if picture.photo is not None else [f"The photo is not shown: {printable(picture.missing)}"]
    notes += [
        f"{words}; no map of it is stored" for cell, words in captions.items() if cell not in picture.maps
    ]
    maps = {cell: smooth(picture.maps[cell]) for cell in captions if cell in picture.maps}
    converged = None if picture.converged is None else smooth(picture.converged)
    scale = scale_of(converged if converged is not None else [*maps.values()][-1]) if maps else 1.0
    for cell, values in maps.items():
        pictures.append((captions[cell], picture_uri(overlay(picture.photo, values, scale))))
    if converged is not None and maps:
        pictures.append(("converged", picture_uri(overlay(picture.photo, converged, scale))))
        off = {cell: values - converged for cell, values in maps.items()}
        largest = max(map(scale_of, off.values()))
        for cell, values in off.items():
            caption = f"{kind_name(cell)} less converged, × {shown(scale / largest, 2)}"
            pictures.append((caption, picture_uri(overlay(None, values, largest))))
    return Card(title, about, pictures, notes)

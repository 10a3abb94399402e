"""The explanation of an image, and the files that it is written to: pictures, its numbers, a page."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from riemannopt_dist.reports.figures import overlay_figure, picture
from riemannopt_dist.reports.page.heat_maps import legend, overlay, picture_uri, scale_of, smooth
from riemannopt_dist.reports.page.parts import Card, Column, Gallery, Page, Section, Table, number, text
from riemannopt_dist.reports.page.rendering import rendered
from riemannopt_dist.reports.summary import csv_of
from riemannopt_dist.text import printable

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Explanation:
    """An image (H, W, 3) in [0, 1] and its attribution map (C, H, W), of one class's output.

    `method` says how the map was made, `method_error` what its completeness tells of it. `top` are the
    likeliest classes and their probabilities, in order. `converged` is the map that this one tends to,
    (C, H, W), and `error` its distance to it, ‖a − a*‖₁ / ‖a*‖₁, where they are known.
    """

    image_id: str
    image: Array
    map: Array
    class_name: str
    probability: float
    top: tuple[tuple[str, float], ...]
    method: str
    relative_error: float
    converged: Array | None = None
    error: float | None = None

    @property
    def title(self) -> str:
        """The class and its probability."""
        return f"{self.class_name}, probability {self.probability:.3f}"

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        known = "" if self.error is None else f", {self.error:.1%} off the converged map"
        return f"{self.title}; {self.method}, relative error {self.relative_error:.3f}{known}"


def explanation_figure(explanation: Explanation) -> Figure:
    """The photo and its map over it; besides, where it is known, the converged map and how far it is off."""
    caption = f"relative error {explanation.relative_error:.3f}"
    maps = [(caption, explanation.map.sum(axis=0))]
    if explanation.converged is not None:
        converged = explanation.converged.sum(axis=0)
        caption = f"{explanation.error:.1%} off"
        maps = [(caption, maps[0][1]), ("what is off", maps[0][1] - converged), ("converged", converged)]
    title = f"{printable(explanation.title)}\n{printable(explanation.method)}"
    return overlay_figure(explanation.image[None], title, [(printable(explanation.image_id), maps)])


def page_of(explanation: Explanation) -> bytes:
    """A page of HTML by itself: the pictures, the likeliest classes, how the map was made."""
    likeliest = pd.DataFrame(explanation.top, columns=["class", "probability"])
    rows = [[text(name), number(probability)] for name, probability in explanation.top]
    columns = [Column("class", numbers=False), Column("probability", "the model's, of the image")]
    card = Card(printable(explanation.image_id), printable(explanation.method), _pictures(explanation))
    caption = "The map summed over channels and smoothed: what speaks for the class, and against it."
    sections = (
        Section("The map", [Gallery(caption, [card], legend())]),
        Section("The likeliest classes", [Table("classes", "", columns, rows, csv_of(likeliest))]),
    )
    title = f"What speaks for {printable(explanation.class_name)}"
    return rendered(Page(title, [printable(explanation.sentence)], (), sections))


def _pictures(explanation: Explanation) -> list[tuple[str, str]]:
    """The photo, the map over it, and where it is known the converged map and what is off."""
    photo = np.rint(255 * explanation.image).astype(np.uint8)
    summed = smooth(explanation.map.sum(axis=0).astype(np.float32))
    converged = summed
    if explanation.converged is not None:
        converged = smooth(explanation.converged.sum(axis=0).astype(np.float32))
    scale = scale_of(converged)
    pictures = [("photo", photo), ("the map", overlay(photo, summed, scale))]
    if explanation.converged is not None:
        pictures.append(("converged", overlay(photo, converged, scale)))
        off = overlay(None, summed - converged, scale)
        pictures.append((f"what is off, {explanation.error:.1%} in all", off))
    return [(caption, picture_uri(pixels)) for caption, pixels in pictures]


def numbers_of(explanation: Explanation) -> bytes:
    """The map (C, H, W) in NumPy's format."""
    buffer = io.BytesIO()
    np.save(buffer, explanation.map)
    return buffer.getvalue()


def _drawn(kind: str, explanation: Explanation) -> bytes:
    return picture(explanation_figure(explanation), kind)


KINDS: dict[str, Callable[[Explanation], bytes]] = {
    **{kind: partial(_drawn, kind) for kind in ("png", "jpg", "jpeg", "svg", "pdf")},
    "npy": numbers_of,
    "html": page_of,
}
"""What an explanation is written as, by the end of a file's name."""

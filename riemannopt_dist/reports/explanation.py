"""The explanation of an image, and the files that it is written to: pictures, its numbers, a page."""

import html
import io
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from riemannopt_dist.reports.figures import overlay_figure, picture
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
    return overlay_figure(explanation.image, title, [(printable(explanation.image_id), maps)])


def page_of(explanation: Explanation) -> bytes:
    """A page of HTML by itself: the picture, the likeliest classes, how the map was made."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{probability:.3f}</td></tr>"
        for name, probability in explanation.top
    )
    drawn = b64encode(picture(explanation_figure(explanation), "png")).decode()
    name = html.escape(explanation.image_id)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}</title><style>body{{font:1rem sans-serif;margin:2rem}}"
        "img{max-width:100%;background:white}td{padding-right:2rem}</style>"
        f"<h1>{name}</h1><p>{html.escape(explanation.sentence)}</p>"
        f'<img alt="the image and its attribution map" src="data:image/png;base64,{drawn}">'
        f"<table><tr><th>class</th><th>probability</th></tr>{rows}</table></html>"
    ).encode()


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

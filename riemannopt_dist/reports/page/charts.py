"""matplotlib's figures as drawings in a page: SVG in the page's own ink, light or dark, without fonts."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from riemannopt_dist.reports.figures import OKABE_ITO, picture
from riemannopt_dist.reports.page.parts import Figure
from riemannopt_dist.reports.summary import csv_of

INK = "#010203"
"""What is drawn in this colour takes that of the page's text."""
PIXELS = 96 / 72
"""CSS pixels of a point."""
_INKS = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
# On a dark page Okabe and Ito's blue is too dark.
_COLOURS = ("#2b88c9", *OKABE_ITO[1:], "#8c6bb1", "#808080", "#a6761d", "#66a61e")
_STYLE: Mapping[Any, Any] = {
    **dict.fromkeys(_INKS, INK),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=_COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "legend.frameon": False,
}


def chart(name: str, caption: str, draw: Callable[[], Drawing], points: pd.DataFrame) -> Figure:
    """What `draw` draws, with its points as CSV."""
    with rc_context({**_STYLE}):
        drawing = draw()
        svg = inline_svg(picture(drawing, "svg").decode(), name)
    width = round(drawing.get_figwidth() * 72 * PIXELS)
    return Figure(name, caption, svg, width, csv_of(points))


def inline_svg(svg: str, name: str) -> str:
    """An SVG file as an element of a page, in its ink, its ids made the page's own by a `name`."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace(INK, "currentColor")
    for before in ('id="', 'href="#', "url(#"):
        svg = svg.replace(before, f"{before}{name}-")
    return svg

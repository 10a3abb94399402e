"""What a page is made of: sections of tables, figures, pictures and texts, each drawn by a template."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from riemannopt_dist.text import printable

NOTHING = "–"
"""What stands for a number that is not defined."""


@dataclass(frozen=True)
class Value:
    """A cell of a table: its text, and the number that it is sorted by, None of a text or of no number.

    `verdict` colours it: best, better or worse.
    """

    text: str
    number: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Column:
    """A column's head, what it means, and whether it holds numbers."""

    head: str
    meaning: str = ""
    numbers: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of values under their columns; `data` is the same as CSV, in full digits, for the file `name`."""

    template: ClassVar[str] = "table.html"
    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    data: str


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG, and its points as CSV, for files called `name`; `width` is its own, in pixels."""

    template: ClassVar[str] = "figure.html"
    name: str
    caption: str
    svg: str
    width: int
    data: str


@dataclass(frozen=True)
class Card:
    """An image: a line over it, captioned pictures as data URIs, and lines beneath it."""

    title: str
    subtitle: str
    pictures: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery:
    """Cards, with a legend of colours, as CSS has them, from against to for."""

    template: ClassVar[str] = "gallery.html"
    caption: str
    cards: Sequence[Card]
    colours: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    template: ClassVar[str] = "facts.html"
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    template: ClassVar[str] = "note.html"
    text: str


@dataclass(frozen=True)
class Listing:
    """A file's text, folded up under its caption, to be downloaded as `name`."""

    template: ClassVar[str] = "listing.html"
    name: str
    caption: str
    text: str


Block = Table | Figure | Gallery | Facts | Note | Listing


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Tile:
    """A number to be seen from afar, and what it is."""

    number: str
    meaning: str


@dataclass(frozen=True)
class Page:
    """A title, the answer in a few sentences, tiles, and sections."""

    title: str
    answer: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]


# --- Values ---


def text(words: object) -> Value:
    """A text in one line."""
    return Value(printable(str(words)))


def number(value: float | None) -> Value:
    """A number, to three digits."""
    if value is None or math.isnan(value):
        return Value(NOTHING)
    return Value(shown(value), float(value))


def interval(value: float, low: float, high: float, prefix: str = "") -> Value:
    """A number with its 95 % interval."""
    if math.isnan(value):
        return Value(NOTHING)
    return Value(f"{prefix} {bounded(value, low, high)}".strip(), float(value))


def bounded(value: float, low: float, high: float) -> str:
    """A number with its interval in brackets, where it has one."""
    ends = f"[{shown(low)}, {shown(high)}]"
    return shown(value) if math.isnan(low) or low == high else f"{shown(value)} {ends}"


def shown(value: float, digits: int = 3) -> str:
    """A number of so many digits, without an exponent where it is of a common size; a dash for NaN."""
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isclose(value, round(value), rel_tol=1e-9) and abs(value) < 1e6:
        return f"{value:,.0f}".replace("-", "−")
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    rounded = float(f"{value:.{digits - 1}e}")  # 0.9996 has the places of 1.00
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{places}f}".replace("-", "−")

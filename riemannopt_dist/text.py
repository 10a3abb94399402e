"""Times and tables in plain text."""

import time
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def ago(moment: float) -> str:
    """How long ago a moment of Unix time was, in words."""
    seconds = max(0, round(time.time() - moment))
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def table_lines(table: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """The rows with their columns aligned, the first `left` of them to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]


def printable(text: str) -> str:
    """The text in one line, with what a terminal would obey or not show as escapes: \\x1b, \\n, \\u202e."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def as_text(value: object) -> object:
    """A value as a spreadsheet is to take it: a text that would be a formula there with a ' before it."""
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )

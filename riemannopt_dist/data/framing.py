"""How an image is framed for a model: scaled, in its own shape, to just cover a size, and its middle cut."""

from collections.abc import Sequence

from riemannopt_dist.choices import Pixels, height_and_width

Size = int | Sequence[int]
"""The side of a square or (height, width)."""


def covering(size: tuple[int, int], box: Pixels) -> tuple[int, int]:
    """The width and height of an image of `size`, (width, height), that covers a box of (height, width)."""
    (width, height), (rows, columns) = size, box
    if rows * width >= columns * height:
        return int(rows * width / height), rows
    return columns, int(columns * height / width)


def corner(size: tuple[int, int], input_size: Size) -> tuple[int, int]:
    """Where the middle of an image of `size`, (width, height), begins: left and top."""
    height, width = height_and_width(input_size)
    return round((size[0] - width) / 2), round((size[1] - height) / 2)

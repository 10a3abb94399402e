"""The pointing game (Zhang et al., ECCV 2016): whether a map's highest pixel is on the object.

Objects are told by boxes. `read_boxes` takes them from the XML files that ImageNet and Pascal VOC come with.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor

from riemannopt_dist.metrics.insertion import pixel_saliency

TOLERANCE = 15.0
"""How far beside a box, in pixels, a hit may be: the original's."""


class Box(NamedTuple):
    """The pixels x with left ≤ x < right and y with top ≤ y < bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def prepared(self, size: tuple[int, int], input_size: int, resize_size: int) -> "Box":
        """The box in the model's input, where images of `size` (width, height) are resized and cut for it.

        The short side becomes `resize_size` pixels and the central square of `input_size` remains. A box
        outside of that is empty.
        """
        width, height = (int(resize_size * side / min(size)) for side in size)
        across, down = width / size[0], height / size[1]
        x, y = (round((side - input_size) / 2) for side in (width, height))
        edges = (self.left * across - x, self.top * down - y, self.right * across - x, self.bottom * down - y)
        return Box(*(min(max(edge, 0.0), float(input_size)) for edge in edges))

    @property
    def empty(self) -> bool:
        """Whether no pixel is in it."""
        return self.left >= self.right or self.top >= self.bottom


class BoxedImage(NamedTuple):
    """An image's size in pixels, (width, height), and the boxes of the objects in it."""

    size: tuple[int, int]
    boxes: tuple[Box, ...]

    def prepared(self, input_size: int, resize_size: int) -> list[Box]:
        """The boxes in a model's input, those outside of it left out."""
        boxes = (box.prepared(self.size, input_size, resize_size) for box in self.boxes)
        return [box for box in boxes if not box.empty]


def pointing_game(maps: Tensor, boxes: Sequence[Sequence[Box]], *, tolerance: float = TOLERANCE) -> Tensor:
    """1 where the highest |channel sum| of a map is within `tolerance` pixels of a box, else 0: (…, B).

    Float64. Maps are (…, B, C, H, W), and `boxes` those of each of the B images, in pixels of the maps; NaN
    for an image without one. The first of equal pixels counts, row by row. Raises ValueError for another
    number of images.
    """
    if maps.ndim < 4 or len(boxes) != maps.shape[-4]:
        raise ValueError(f"boxes: expected those of each image of maps {tuple(maps.shape)}, got {len(boxes)}")
    saliency = pixel_saliency(maps)
    places = saliency.flatten(-2).argmax(-1).cpu()
    down, across = places // maps.shape[-1], places % maps.shape[-1]
    hits = torch.full(places.shape, torch.nan, dtype=torch.float64)
    for image, around in enumerate(boxes):
        near = [_distance(box, across[..., image], down[..., image]) <= tolerance for box in around]
        if near:
            hits[..., image] = torch.stack(near).any(0).double()
    return hits.to(maps.device)


def _distance(box: Box, x: Tensor, y: Tensor) -> Tensor:
    """How far pixels are from the nearest one in a box."""
    beside = (
        torch.maximum(box.left - x, x - (box.right - 1)),
        torch.maximum(box.top - y, y - (box.bottom - 1)),
    )
    return torch.hypot(*(distance.double().clamp_min(0.0) for distance in beside))


def read_boxes(folder: str | Path) -> Mapping[str, BoxedImage]:
    """The boxes of every XML file below a folder, by its name without .xml: such as ILSVRC2012_val_00000001.

    Raises ValueError for a folder without any, and a file that is not in the format of Pascal VOC.
    """
    files = sorted(Path(folder).rglob("*.xml"))
    if not files:
        raise ValueError(f"boxes: expected a folder with XML files, found none below {folder}")
    return {file.stem: _boxed_image(file) for file in files}


def _boxed_image(file: Path) -> BoxedImage:
    try:
        root = ElementTree.parse(file).getroot()
        width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        boxes = [
            [float(box.findtext(edge, "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for box in root.iterfind("object/bndbox")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(
            f"boxes: {file}: expected an annotation in the format of Pascal VOC ({error})"
        ) from None
    return BoxedImage((width, height), tuple(Box(*edges) for edges in boxes))

"""Boxes of the objects in images, from the XML files that ImageNet and Pascal VOC come with."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from riemannopt_dist.choices import height_and_width
from riemannopt_dist.data.framing import Size, corner, covering


class Box(NamedTuple):
    """The pixels x with left ≤ x < right and y with top ≤ y < bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def prepared(self, size: tuple[int, int], input_size: Size, resize_size: Size) -> "Box":
        """The box in the model's input, where images of `size` (width, height) are resized and cut for it.

        An image just covers `resize_size` and the central `input_size` remains, both the side of a square or
        (height, width). A box outside of that is empty.
        """
        width, height = covering(size, height_and_width(resize_size))
        across, down = width / size[0], height / size[1]
        x, y = corner((width, height), input_size)
        rows, columns = height_and_width(input_size)
        edges = (self.left * across - x, self.top * down - y, self.right * across - x, self.bottom * down - y)
        ends = (columns, rows, columns, rows)
        return Box(*(min(max(edge, 0.0), float(end)) for edge, end in zip(edges, ends, strict=True)))

    @property
    def empty(self) -> bool:
        """Whether no pixel is in it."""
        return self.left >= self.right or self.top >= self.bottom


class BoxedImage(NamedTuple):
    """An image's size in pixels, (width, height), and the boxes of the objects in it."""

    size: tuple[int, int]
    boxes: tuple[Box, ...]

    def prepared(self, input_size: Size, resize_size: Size) -> list[Box]:
        """The boxes in a model's input, those outside of it left out."""
        boxes = (box.prepared(self.size, input_size, resize_size) for box in self.boxes)
        return [box for box in boxes if not box.empty]


def read_boxes(folder: str | Path) -> Mapping[str, BoxedImage]:
    """The boxes of every XML file below a folder, by its name without .xml: such as ILSVRC2012_val_00000001.

    Raises ValueError for a folder without any, files of one name, and one that is not in the format of Pascal
    VOC.
    """
    files: dict[str, Path] = {}
    for file in _box_files(folder):
        if (other := files.setdefault(file.stem, file)) != file:
            raise ValueError(f"boxes: expected files of different names, found {other} and {file}")
    return {name: read_boxed_image(file) for name, file in files.items()}


def boxes_of(folder: str | Path, image_ids: Iterable[str]) -> dict[str, Path]:
    """The XML file of each image that has one below a folder, by the image's id.

    That is the one at the image's path, with another ending, or the only one of its name. Raises ValueError
    where no image has one, and where images share the only one.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in _box_files(folder):
        by_name[file.stem].append(file)
    files: dict[str, Path] = {}
    for image_id in image_ids:
        own = Path(folder, image_id).with_suffix(".xml")
        alike = by_name.get(own.stem, [])
        if own in alike or len(alike) == 1:
            files[image_id] = own if own in alike else alike[0]
    if not files:
        raise ValueError(f"boxes: expected an XML file of the name of each image, found none below {folder}")
    owners: dict[Path, str] = {}
    for image_id, file in files.items():
        if (other := owners.setdefault(file, image_id)) != image_id:
            raise ValueError(
                f"boxes: {other} and {image_id} share {file}: expected XML files in folders as the images are"
            )
    return files


def _box_files(folder: str | Path) -> list[Path]:
    files = sorted(Path(folder).rglob("*.xml"))
    if not files:
        raise ValueError(f"boxes: expected a folder with XML files, found none below {folder}")
    return files


def read_boxed_image(file: Path) -> BoxedImage:
    """The boxes in an XML file. Raises ValueError for one that is not in the format of Pascal VOC."""
    try:
        root = ElementTree.parse(file).getroot()
        width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        if min(width, height) < 1:
            raise ValueError(f"a size of {width} × {height} pixels")
        boxes = [
            [float(box.findtext(edge, "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for box in root.iterfind("object/bndbox")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(
            f"boxes: {file}: expected an annotation in the format of Pascal VOC ({error})"
        ) from None
    return BoxedImage((width, height), tuple(Box(*edges) for edges in boxes))

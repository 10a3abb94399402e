"""The pointing game: planted squares, boxes as ImageNet has them, and where they come to be in the input."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import riemannopt_dist as ro
from riemannopt_dist.data.boxes import BoxedImage
from riemannopt_dist.data.decoding import prepare_image
from tests.boxes import annotate


def test_a_planted_square_wins_and_what_is_beside_it_loses() -> None:
    """In any of several boxes, with any sign; ties go to the first pixel."""
    maps = 0.1 * torch.rand(2, 3, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    maps[0, 0, :, 10:20, 30:40] += 1
    maps[1, 0, :, 10:20, 30:40] -= 1
    maps[:, 1, 0, 39, 59] = 5
    maps[0, 2, :, 3:5, 7:] = 1.0
    boxes = [[ro.Box(0, 0, 2, 2), ro.Box(30, 10, 40, 20)], [ro.Box(30, 10, 40, 20)], []]
    hits = ro.pointing_game(maps, boxes, tolerance=0)
    assert hits[:, :2].tolist() == [[1, 0], [1, 0]]
    assert hits[:, 2].isnan().all()
    assert ro.pointing_game(maps[0], boxes).shape == (3,)
    ties = ro.pointing_game(maps[0, 2:], [[ro.Box(7, 3, 8, 4)]], tolerance=0)
    assert ties.tolist() == [1]


def test_a_map_without_a_highest_pixel_points_nowhere() -> None:
    """The same value everywhere, in channel sums, wherever the box is; NaN and infinity are no map."""
    boxes = [[ro.Box(0, 0, 5, 5)], [ro.Box(0, 0, 20, 30)]]
    opposite = torch.tensor([1.0, -1.0, 0.0])[:, None, None] * torch.rand(20, 30)
    flat = torch.stack([torch.zeros(3, 20, 30), torch.full((3, 20, 30), -0.3), opposite])
    hits = ro.pointing_game(flat[:, None].repeat(1, 2, 1, 1, 1), boxes)
    assert hits.shape == (3, 2)
    assert hits.isnan().all()
    maps = torch.rand(2, 3, 20, 30)
    maps[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match=r"maps: expected finite values, found NaN .* image\(s\) \[1\]"):
        ro.pointing_game(maps, boxes)


def test_the_tolerance_is_a_distance_from_the_nearest_pixel_of_the_box() -> None:
    """A pixel 3 to the right of a box and 4 below it is 5 away."""
    maps = torch.zeros(1, 3, 40, 40)
    maps[0, :, 23, 22] = 1
    box = ro.Box(10, 10, 20, 20)
    assert ro.pointing_game(maps, [[box]], tolerance=5).item() == 1
    assert ro.pointing_game(maps, [[box]], tolerance=4.99).item() == 0


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (256, 256)])
def test_boxes_go_where_the_picture_goes(tmp_path: Path, size: tuple[int, int]) -> None:
    """A white square on black, prepared as a model's input is, is where its box is prepared to be."""
    left, top = size[0] // 2 - 40, size[1] // 2 - 30
    square = (left, top, left + 60, top + 50)
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), square)
    annotate(tmp_path / "Annotations", "val_1", size, square, (0, 0, 5, 5))
    prepared = ro.read_boxes(tmp_path)["val_1"].prepared(112, 128)
    (box,) = prepared  # the other one is cut away with the border
    maps = prepare_image(picture, 112, 128)
    rows, columns = (maps[0] > 0.5).nonzero().T
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert [float(edge) for edge in edges] == pytest.approx(list(box), abs=1)
    assert ro.pointing_game(maps[None], [prepared], tolerance=0).item() == 1
    assert ro.pointing_game(1 - maps[None], [prepared], tolerance=0).item() == 0


def test_boxes_go_into_an_input_that_is_no_square() -> None:
    """Of 30 × 20 pixels scaled to 60 × 40, the middle 24 rows and 50 columns."""
    image = BoxedImage((30, 20), (ro.Box(5, 5, 10, 10), ro.Box(0, 0, 30, 20)))
    assert image.prepared((24, 50), (40, 60)) == [(5, 2, 15, 12), (0, 0, 50, 24)]


def test_what_has_no_boxes_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none below"):
        ro.read_boxes(tmp_path)
    with pytest.raises(ValueError, match="boxes: expected those of each image"):
        ro.pointing_game(torch.zeros(2, 3, 4, 4), [[]])
    annotate(tmp_path, "empty", (20, 10))
    assert ro.read_boxes(tmp_path)["empty"].boxes == ()
    annotate(tmp_path / "again", "empty", (20, 10))
    with pytest.raises(ValueError, match=r"expected files of different names, found .* and .*empty"):
        ro.read_boxes(tmp_path)
    (tmp_path / "again" / "empty.xml").unlink()
    (tmp_path / "bad.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(ValueError, match=r"bad\.xml: expected an annotation in the format of Pascal VOC"):
        ro.read_boxes(tmp_path)
    annotate(tmp_path, "bad", (0, 10))
    with pytest.raises(ValueError, match="a size of 0 × 10 pixels"):
        ro.read_boxes(tmp_path)
    (tmp_path / "bad.xml").write_text("no XML")
    with pytest.raises(ValueError, match=r"bad\.xml: expected an annotation"):
        ro.read_boxes(tmp_path)

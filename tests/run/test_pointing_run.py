"""The pointing game through a whole run: planted squares, boxes beside them, and images without any."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import riemannopt_dist as ro
from riemannopt_dist.data.boxes import boxes_of
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.reader import RunReader
from riemannopt_dist.run.classifier import check_for_run
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.inputs import labelled_images
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.verification import problems
from riemannopt_dist.scoring import score_run
from riemannopt_dist.testing.small_world import FIT, SIDE, small_config
from tests.boxes import annotate

pytestmark = pytest.mark.usefixtures("ray_here")

WIDTH, SQUARE, PICTURES = SIDE + 8, 3, 13
"""The model sees the middle of a picture."""
Square = tuple[int, int, int, int]
KINDS: Mapping[str, Callable[[Square], list[Square]]] = {
    "won": lambda square: [(0, 0, 3, 3), square],
    "lost": lambda square: [(4, 0, 5, 1)],
    "cut": lambda square: [(0, 0, 4, SIDE)],
    "none": lambda square: [],
}
"""The boxes of a picture with a square in it; the last kind has no file."""
EXPECTED = {"won": 1.0, "lost": 0.0, "cut": None, "none": None}
TARGETS = (4, 1, 3)


def make_world(place: Path) -> None:
    """Black pictures with a square, of each kind, and the boxes of the others beside them."""
    rng = np.random.default_rng(5)
    for n in range(PICTURES):
        kind = [*KINDS][n % len(KINDS)]
        (place / "pictures" / kind).mkdir(parents=True, exist_ok=True)
        left, top = rng.integers(6, 12), rng.integers(2, SIDE - SQUARE)
        pixels = np.zeros((SIDE, WIDTH, 3), np.uint8)
        pixels[top : top + SQUARE, left : left + SQUARE] = rng.integers(60, 256, (SQUARE, SQUARE, 3))
        Image.fromarray(pixels).save(place / "pictures" / kind / f"{n // len(KINDS)}.png")
        square = (int(left), int(top), int(left) + SQUARE, int(top) + SQUARE)
        if boxes := KINDS[kind](square):
            (place / "boxes").mkdir(exist_ok=True)
            annotate(place / "boxes" / kind, str(n // len(KINDS)), (WIDTH, SIDE), *boxes)


def config_of(place: Path, **changes: Any) -> Config:
    fields: dict[str, Any] = {
        "boxes": {"folder": str(place / "boxes"), "tolerance": 0},
        "metrics": ["completeness", "pointing_game"],
        "targets": list(TARGETS),
        "controls": ["random"],
        "maps": {},
        "grid": [{"estimators": ["left"], "placements": ["linear"], "samples": [4]}],
        **changes,
    }
    return small_config(place / "pictures", place / "run", **fields)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pointing")
    make_world(folder)
    directory = evaluate(config_of(folder))
    assert list(problems(directory)) == []
    return folder


@pytest.fixture
def reader(place: Path) -> RunReader:
    return ro.open_run(place / "run")


def test_a_planted_square_wins(reader: RunReader) -> None:
    rows = reader.results(path="ig").to_pylist()
    assert len(rows) == PICTURES - FIT
    assert {row["image_id"].split("/")[0] for row in rows} == {*KINDS}
    for row in rows:
        hit, kind = row["pointing_hit"], row["image_id"].split("/")[0]
        assert (None if np.isnan(hit) else hit) == EXPECTED[kind]
        reason = {"cut": "no box is in what the model sees of it", "none": "no boxes are known of it"}
        assert row["pointing_skipped"] == reason.get(kind)


def test_its_summary_counts_the_images_that_are_played(reader: RunReader) -> None:
    hits = [row["pointing_hit"] for row in reader.results(path="ig").to_pylist()]
    played = [hit for hit in hits if not np.isnan(hit)]
    (row,) = (row for row in reader.summary().to_pylist() if row["path"] == "ig")
    assert row["pointing_game"] == pytest.approx(np.mean(played))
    assert row["pointing_game_left_out"] == len(hits) - len(played) > 0


def test_the_class_explained_is_the_likeliest_of_those_listed(reader: RunReader, place: Path) -> None:
    images = {row["image_id"]: row["likeliest"] for row in reader.images().to_pylist()}
    model = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    dataset = [Image.open(place / "pictures" / name) for name in images]
    (batch,) = ro.batches(dataset, model, PICTURES)
    likeliest = torch.tensor(sorted(TARGETS))[model(batch.images)[:, sorted(TARGETS)].argmax(1)]
    assert [*images.values()] == likeliest.tolist()
    for row in reader.results().to_pylist():
        assert row["target"] == images[row["image_id"]]


def test_stored_maps_play_it_too(reader: RunReader) -> None:
    scores = score_run(reader, ["pointing_game"])["pointing_game"].to_pylist()
    hits = {row["image_id"]: row["pointing_hit"] for row in scores if row["path"] == "ig"}
    expected = {row["image_id"]: row["pointing_hit"] for row in reader.results(path="ig").to_pylist()}
    np.testing.assert_equal(hits, expected)


def test_boxes_may_come_later_and_strand_no_run(place: Path) -> None:
    with_boxes = config_of(place)
    without = config_of(place, boxes=None, metrics=["completeness"])
    assert with_boxes.differences(without) == []
    assert without.differences(with_boxes)[0] == "boxes"
    fields = json.loads(json.dumps(with_boxes.published()))
    assert make_config(fields, "run.json") == with_boxes
    plain = config_of(place, boxes=str(place / "boxes")).boxes
    assert plain is not None
    assert (plain.folder, plain.tolerance) == (str(place / "boxes"), 15.0)


def test_what_has_no_boxes_is_refused_in_a_line(place: Path, tmp_path: Path) -> None:
    model = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    with pytest.raises(ValueError, match=r"^metrics: pointing_game needs the boxes .* boxes: FOLDER$"):
        check_for_run(model, config_of(place, boxes=None))
    with pytest.raises(ValueError, match=r"^boxes: expected a folder with XML files, found none below"):
        labelled_images(config_of(place, boxes=str(tmp_path)), 6)
    annotate(tmp_path, "another", (4, 4), (0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"^boxes: expected an XML file of the name of each image"):
        labelled_images(config_of(place, boxes=str(tmp_path)), 6)
    annotate(tmp_path, "0", (4, 4), (0, 0, 1, 1))
    assert boxes_of(tmp_path, ["a/0.png", "b/1.png"]) == {"a/0.png": tmp_path / "0.xml"}
    with pytest.raises(ValueError, match=r"^boxes: a/0.png and b/0.jpg share .*0.xml: expected"):
        boxes_of(tmp_path, ["a/0.png", "b/0.jpg"])

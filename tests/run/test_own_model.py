"""A fine-tuned classifier on folders of its own classes, through a whole run."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

import riemannopt_dist as ro
from riemannopt_dist.choices import Select
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.plan import make_plan
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.select import Selection
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage

NAMES = ("bird", "boat", "car", "cat", "cup", "dog", "tree")
SIDE = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Lightning checkpoint of a ResNet-18 of seven classes, and two pictures of each in its folder."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(1)
    state = {f"model.{name}": value for name, value in resnet18(num_classes=7).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, folder / "last.ckpt")
    rng = np.random.default_rng(0)
    for name in NAMES:
        (folder / "images" / name).mkdir(parents=True)
        for n in range(2):
            pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{n}.png")
    return folder


def fields(place: Path, **changes: Any) -> dict[str, Any]:
    return {
        "images": str(place / "images"),
        "output": str(place / "run"),
        "model": {
            "name": "resnet18",
            "weights": str(place / "last.ckpt"),
            "num_classes": 7,
            "input_size": SIDE,
            "resize_size": SIDE,
        },
        "grid": [{"estimators": ["left"], "placements": ["linear"], "samples": [4]}],
        "fit": {"images": 2, "samples": 8},
        "scaling": {"max_workers": 1},
        **changes,
    }


def test_images_that_the_model_gets_wrong_are_explained_by_what_it_sees(place: Path, ray_here: None) -> None:
    config = make_config(fields(place, select="wrong", targets="predicted", limit=3), "test")
    directory = evaluate(config)
    assert list(problems(directory)) == []
    images = {row["image_id"]: row for row in directory.read_images() or []}
    assert {name: row["label"] for name, row in images.items()} == {
        f"{name}/{n}.png": rank for rank, name in enumerate(NAMES) for n in range(2)
    }
    assert all(row["selected"] == (row["label"] != row["prediction"]) for row in images.values())
    rows = list(directory.shard_rows("results"))
    assert len(rows) == 3
    model = load_model(config.model.name, config.model.weights, **config.model.settings)
    for row in rows:
        assert row["target"] == images[row["image_id"]]["prediction"] != row["label"]
        picture = np.asarray(Image.open(place / "images" / row["image_id"]))
        tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255
        f = ro.Objective(model, torch.tensor([row["target"]])).values(tensor)
        assert row["f_input"] == pytest.approx(float(f), rel=1e-4)


@pytest.mark.parametrize(("select", "expected"), [("correct", 2), ("wrong", 12), ("all", 14)])
def test_what_is_used(place: Path, select: Select, expected: int) -> None:
    """The model sees one class in all the noise, which is right for the two pictures of that one."""
    config = make_config(fields(place, select=select), "test")
    engine = Engine(
        load_model(config.model.name, config.model.weights, **config.model.settings),
        torch.device("cpu"),
        files_of(config.images),
        8,
        Tally(),
    )
    refs = list_images(config.images, classes=NAMES)
    rows = [*Selection(8, config.select).rows(engine, refs)]
    assert len({row["prediction"] for row in rows}) == 1
    assert sum(row["selected"] for row in rows) == expected
    sure = max(row["probability"] for row in rows)
    rows = [*Selection(8, config.select, sure).rows(engine, refs)]
    assert all(row["probability"] >= sure for row in rows if row["selected"])
    assert sum(row["selected"] for row in rows) <= 1


def test_the_plan_takes_the_same_model_and_images(place: Path, tmp_path: Path) -> None:
    plan = make_plan(make_config(fields(place, output=str(tmp_path / "run")), "test"))
    assert (plan.found, plan.evaluated) == (14, 12)


def test_folders_label_by_the_names_that_are_told(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    backwards = NAMES[::-1]
    refs = list_images(str(place / "images"), classes=backwards)
    assert {ref.image_id: ref.label for ref in refs} == {
        f"{name}/{n}.png": rank for rank, name in enumerate(backwards) for n in range(2)
    }
    (place / "classes.txt").write_text("\n".join(backwards) + "\n")
    named = fields(place)["model"] | {"classes": str(place / "classes.txt")}
    assert make_config(fields(place, model=named), "test").model.class_names() == backwards
    with caplog.at_level(logging.WARNING):
        labels = {ref.label for ref in list_images(str(place / "images"), classes=("cat", "dog"))}
    assert labels == {None, 0, 1}
    assert "has no labels for 10 of 14 images" in caplog.text


def test_folders_in_order_are_said_aloud_and_only_as_many_as_classes(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        labels = [ref.label for ref in list_images(str(place / "images"), classes=7)]
    assert labels == [rank for rank in range(7) for _ in range(2)]
    assert "folders 0 = bird, 1 = boat, 2 = car, 3 = cat, 4 = cup, … are taken as" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert {ref.label for ref in list_images(str(place / "images"), classes=8)} == {None}
    assert "model.classes" in caplog.text


def test_names_of_other_classes_than_the_models_are_refused(place: Path, tmp_path: Path) -> None:
    named = fields(place)["model"] | {"classes": ["bird", "boat"]}
    config = make_config(fields(place, model=named, output=str(tmp_path / "run")), "test")
    with pytest.raises(ValueError, match=r"^model.classes: expected the names of 7 classes, got 2$"):
        make_plan(config)
    assert not Storage(config.output).list("")


def test_the_configuration_takes_ten_lines(place: Path) -> None:
    """What a run of it needs, without what keeps this one small."""
    needed = {key: value for key, value in fields(place).items() if key in ("images", "output", "model")}
    assert len(json.dumps(needed, indent=1).splitlines()) - 2 <= 10
    assert make_config(needed, "test").model.num_classes == 7

"""Which class is explained of an image."""

from pathlib import Path
from typing import Any

import pytest
import torch

from riemannopt_dist.data.classes import class_name
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.local import Choice, explain
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.stages.base import as_table
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.select import Selection
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.run.targets import target_of, with_class_index
from riemannopt_dist.testing.small_world import make_pictures

NAMES = ("bird", "boat", "car")


def config(targets: Any) -> Config:
    return make_config({"images": "x", "output": "y", "model": {"name": "m"}, "targets": targets}, "test")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("label", [2, 1]),
        ("predicted", [1, 1]),
        ("runner_up", [0, 0]),
        (2, [2, 2]),
        (0, [0, 0]),
        ([0, 2], [2, 2]),
    ],
)
def test_the_target_of_a_row(targets: Any, expected: list[int]) -> None:
    """With a label, and without one."""
    rows = [{"label": label, "prediction": 1, "runner_up": 0, "likeliest": 2} for label in (2, None)]
    assert [target_of(row, config(targets).targets) for row in rows] == expected


def test_a_class_is_told_by_its_index_or_name() -> None:
    for told, index in (("car", 2), (1, 1), ("0", 0)):
        assert with_class_index(config(told), NAMES, 3).targets == index
    assert with_class_index(config(["car", 0, "bird"]), NAMES, 3).targets == (0, 2)
    assert with_class_index(config("goldfish"), [class_name(n) for n in range(1000)], 1000).targets == 1
    assert with_class_index(config("runner_up"), NAMES, 3) == config("runner_up")


@pytest.mark.parametrize(
    ("targets", "names", "classes", "message"),
    [
        (["bird", 3], NAMES, 3, "or a class: expected a class below 3, got 3"),
        (3, NAMES, 3, "or a class: expected a class below 3, got 3"),
        ("cart", NAMES, 3, r"'cart' is the name of no class, or of several \(did you mean car"),
        ("car", None, 3, "expected the index of one of 3 classes, got 'car'"),
        ("runner_up", None, 1, "^targets: runner_up: expected two classes or more, the model has 1$"),
    ],
)
def test_a_class_that_the_model_lacks_is_refused(
    targets: Any, names: tuple[str, ...] | None, classes: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        with_class_index(config(targets), names, classes)
    assert str(refusal.value).startswith("targets: ")


@pytest.mark.parametrize("targets", [-1, True, 1.5, "", [], ["label", 1], [1, True], [""]])
def test_what_is_no_class_is_told_in_a_line(targets: Any) -> None:
    expected = "^test: targets: expected label, .*, or a class by its index or name, or several, got "
    with pytest.raises(ValueError, match=expected):
        config(targets)


def test_the_runner_up_is_the_class_of_the_second_logit(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 3)
    (folder / "p01.png").write_bytes(b"")
    model = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    engine = Engine(model, torch.device("cpu"), files_of(str(folder)), 8, Tally())
    stage = Selection(2, targets="runner_up")
    table = as_table(stage, [*stage.rows(engine, list_images(str(folder)))])
    assert table["runner_up"].is_null().to_pylist() == [False, True, False]
    assert all(row["runner_up"] != row["prediction"] for row in table.to_pylist() if row["error"] is None)
    plain = as_table(stage := Selection(2), [*stage.rows(engine, list_images(str(folder)))])
    assert plain.equals(table.drop(["runner_up"]))


def test_of_several_classes_the_likeliest_in_each_image_is_explained(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 6)
    model = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    engine = Engine(model, torch.device("cpu"), files_of(str(folder)), 4, Tally())
    refs = list_images(str(folder))
    images = torch.stack([read_tensor(ref, model) for ref in refs])
    classes = model(images).mean(0).argsort()[:3].tolist()  # none of them is predicted everywhere
    stage = Selection(4, targets=tuple(classes))
    table = as_table(stage, [*stage.rows(engine, refs)])
    expected = [max(classes, key=logits.__getitem__) for logits in model(images).tolist()]
    assert table["likeliest"].to_pylist() == expected != table["prediction"].to_pylist()
    assert len(set(expected)) > 1
    assert [target_of(row, tuple(classes)) for row in table.to_pylist()] == expected
    assert as_table(Selection(4), [*Selection(4).rows(engine, refs)]).equals(table.drop(["likeliest"]))
    choice = Choice(samples=2)
    explained = explain(model, [str(folder)], [str(one) for one in classes], choice)
    assert [one.class_name for one in explained] == [f"class {index}" for index in expected]

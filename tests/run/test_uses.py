"""What became of each input, and the names of classes: on rows that are written out."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import riemannopt_dist as ro
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.run import schemas
from riemannopt_dist.run.classes import class_names
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.draw import drawn_images
from riemannopt_dist.run.failure import Failure, reason_of
from riemannopt_dist.run.uses import uses
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import small_config

CONFIG = {"seed": 0, "fit": {"images": 2}, "limit": 3}


def image(name: str, **changes: Any) -> dict[str, Any]:
    row = {"image_id": name, "uri": name, "label": 1, "prediction": 1, "selected": True, "in_fit": False}
    return dict.fromkeys(schemas.IMAGES.names) | row | {"draw": 0} | changes


def inputs() -> list[dict[str, Any]]:
    rows = [image(name) for name in "abcdefg"]
    fitted = drawn_images(rows, CONFIG["seed"])[:2]
    rows = [{**row, "in_fit": row["image_id"] in fitted} for row in rows]
    return [
        *rows,
        image("wrong", label=2, selected=False),
        image("unsure", selected=False),
        image("torn", label=None, prediction=None, selected=False, error="UnreadableImage: cut off"),
        image("away", label=None, prediction=None, selected=False, error="UnreachableImage: gone"),
    ]


def test_every_input_has_one_use_while_a_run_goes_on() -> None:
    rows = inputs()
    first, second, done, lost, coming, *spare = drawn_images(rows, CONFIG["seed"])
    failures = [
        Failure("selection", "away", "UnreachableImage: gone", 1),
        Failure("selection", "torn", reason_of(UnreadableImage("cut off")), 1),
        Failure("results", lost, reason_of(UnreadableImage("replaced")), 3),
    ]
    found = dict(zip([row["image_id"] for row in rows], uses(rows, CONFIG, failures, {done}), strict=True))
    assert found == {
        first: "fit",
        second: "fit",
        done: "evaluated",
        lost: "given up on",
        coming: "to come",
        **dict.fromkeys(spare, "not drawn"),
        "wrong": "misclassified",
        "unsure": "not selected",
        "torn": "unreadable",
        "away": "given up on",
    }


@pytest.mark.parametrize("select", ["wrong", "all"])
def test_a_wrong_image_that_is_asked_for_is_left_out_for_its_probability(select: str) -> None:
    rows = [image("wrong", label=2, selected=False), image("right", selected=False)]
    assert uses(rows, {**CONFIG, "select": select}, (), frozenset()) == ["not selected"] * 2
    assert uses(rows, {**CONFIG, "select": "correct"}, (), frozenset()) == ["misclassified", "not selected"]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run that has selected its images, and has no results yet."""
    directory = RunDirectory(Storage(tmp_path / "run"))
    directory.claim(small_config(tmp_path, tmp_path / "run", fit={"images": 2}, limit=3), "0" * 64)
    directory.write_images(inputs())
    return directory


def test_a_reader_tells_uses_and_the_names_of_classes(directory: RunDirectory) -> None:
    reader = ro.open_run(directory.storage.root)
    before = reader.images()
    assert before["label_name"].null_count == len(before)
    uses_now = {row["image_id"]: row["use"] for row in before.to_pylist()}
    assert (uses_now["wrong"], uses_now["torn"]) == ("misclassified", "unreadable")
    directory.write_class_names(["cat", "dog"])
    images = {row["image_id"]: row for row in reader.images().to_pylist()}
    assert (images["a"]["label_name"], images["a"]["prediction_name"]) == ("dog", "dog")
    assert (images["wrong"]["label_name"], images["torn"]["prediction_name"]) == (None, None)  # of no class
    directory.write_images(inputs())  # of a run that knows the names: they are in the file, too
    stored = {
        row["image_id"]: row for row in pq.read_table(f"{directory.storage.root}/images.parquet").to_pylist()
    }
    assert (stored["a"]["label_name"], stored["wrong"]["label_name"]) == ("dog", None)
    assert {row["image_id"]: row for row in reader.images().to_pylist()} == images


def test_results_have_names_beside_indices_where_they_are_asked_for(directory: RunDirectory) -> None:
    directory.write_class_names(["cat", "dog", "cat"])  # as ImageNet has two cranes
    row = {field.name: 1 for field in schemas.results_schema([]) if pa.types.is_primitive(field.type)}
    texts = {"image_id": "a", "path": "ig", "estimator": "left", "placement": "linear", "label": None}
    targets = (1, 0, 2)
    table = pa.Table.from_pylist(
        [row | texts | {"target": target} for target in targets], schemas.results_schema([])
    )
    directory.write_table("results/shard-00000.parquet", table)
    reader = ro.open_run(directory.storage.root)
    assert reader.results(["target_name", "samples"], path="ig").to_pydict() == {
        "target_name": ["dog", "cat", "cat"],
        "samples": [1, 1, 1],
    }
    names = reader.results()
    assert names.to_pandas()["target_name"].tolist() == ["dog", "cat", "cat"]
    assert names["label_name"].to_pylist() == [None] * 3
    assert pa.types.is_dictionary(names.schema.field("target_name").type)
    assert {row["image_id"]: row["use"] for row in reader.images().to_pylist()}["a"] == "evaluated"


def test_names_are_the_network_s_own_or_imagenet_s() -> None:
    network = nn.Flatten()
    model = Classifier(
        network, name="m", mean=(0.0,) * 3, std=(1.0,) * 3, input_size=2, resize_size=2, classes=12
    )
    assert class_names(model, 12) is None
    names = class_names(model, 1000)
    assert names is not None
    assert (names[0], names[281], len(names)) == ("tench", "tabby", 1000)
    network.class_names = [f"c{n}" for n in range(12)]  # type: ignore[assignment]
    assert class_names(model, 12) == network.class_names
    with pytest.raises(ValueError, match="class_names are 12, expected one for each of 1000"):
        class_names(model, 1000)
    assert model(torch.zeros(1, 3, 2, 2)).shape == (1, 12)

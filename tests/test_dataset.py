"""Data sets of torchvision and Hugging Face as batches for the library's functions."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as Picture
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import riemannopt_dist as ro
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.dataset import Batch
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.testing.small_world import SIDE

NAMES = ("bird", "boat", "car", "cat", "cup", "dog")


@pytest.fixture
def model() -> Classifier:
    classifier = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    classifier.network.class_names = NAMES[::-1]  # type: ignore[assignment]
    return classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of each of three classes, of another shape than the model's input."""
    place = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in NAMES[:3]:
        (place / name).mkdir()
        for n in range(2):
            pixels = rng.integers(0, 256, (20, 31, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{n}.png")
    return place


def joined(batches: Sequence[Batch]) -> tuple[list[str], torch.Tensor, list[int]]:
    labels = [label for batch in batches if batch.labels is not None for label in batch.labels.tolist()]
    return [name for b in batches for name in b.ids], torch.cat([b.images for b in batches]), labels


def hugging_face(folder: Path) -> Any:
    files = sorted(folder.glob("*/*.png"))
    features = Features({"image": Picture(), "label": ClassLabel(names=list(NAMES[:3]))})
    labels = [NAMES.index(file.parent.name) for file in files]
    return Dataset.from_dict({"image": [str(file) for file in files], "label": labels}, features)


def test_folders_are_what_a_run_has_of_them(folder: Path, model: Classifier) -> None:
    """Ids, pixels and labels; a part of them is told by the same names."""
    refs = list_images(str(folder), classes=NAMES[::-1])
    batches = [*ro.batches(ImageFolder(folder), model, 4)]
    assert [len(batch.ids) for batch in batches] == [4, 2]
    ids, images, labels = joined(batches)
    assert ids == [ref.image_id for ref in refs]
    assert torch.equal(images, torch.stack([read_tensor(ref, model) for ref in refs]))
    assert labels == [ref.label for ref in refs] == [5, 5, 4, 4, 3, 3]
    part = joined([*ro.batches(Subset(ImageFolder(folder), [4, 1]), model)])
    assert part[0] == ["car/0.png", "bird/1.png"]
    assert part[2] == [3, 5]
    assert ro.integrated_gradients(model, images, torch.tensor(labels), ro.linear_schedule(2)).maps.shape == (
        *(6, 3, SIDE, SIDE),
    )


def test_hugging_face_s_are_the_same_images(folder: Path, model: Classifier, tmp_path: Path) -> None:
    """From files, from bytes without names, streamed, and in another format."""
    _, images, labels = joined([*ro.batches(ImageFolder(folder), model)])
    table = hugging_face(folder)
    ids, *rest = joined([*ro.batches(table, model, 4)])
    assert ids == [str(file).lstrip("/") for file in sorted(folder.glob("*/*.png"))]
    table.to_parquet(tmp_path / "x.parquet")
    stored = Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache"))
    pictures = [Image.fromarray(np.asarray(row["image"])) for row in table]
    nameless = Dataset.from_dict({"img": pictures, "label": table["label"]})
    for one in (stored, table.to_iterable_dataset(), table.with_format("torch")):
        _, *others = joined([*ro.batches(one, model)])
        assert torch.equal(others[0], images)
        assert others[1] == labels
    assert torch.equal(rest[0], images)
    assert rest[1] == labels
    ids, pixels, numbers = joined([*ro.batches(nameless, model)])
    assert ids == ["0", "1", "2", "3", "4", "5"]
    assert torch.equal(pixels, images)
    assert numbers == [0, 0, 1, 1, 2, 2]  # without names they are the model's
    assert next(ro.batches(table.remove_columns("label"), model)).labels is None


def test_arrays_and_tensors_are_pictures(folder: Path, model: Classifier) -> None:
    """Of 8 bits in any size; others as the model wants them."""
    _, images, _ = joined([*ro.batches(ImageFolder(folder), model)])
    pictures = [Image.open(ref.uri) for ref in list_images(str(folder), classes=NAMES)]
    arrays = [np.asarray(picture) for picture in pictures]
    for kind in (pictures, arrays, [(torch.from_numpy(a.copy()).permute(2, 0, 1), 2) for a in arrays]):
        assert torch.equal(joined([*ro.batches(kind, model)])[1], images)
    for kind in (images, [image.double() for image in images], images.permute(0, 2, 3, 1).numpy()):
        assert torch.equal(joined([*ro.batches(kind, model)])[1], images)
    table = hugging_face(folder)
    table.set_transform(lambda rows: {"pixel_values": [*images[: len(rows["image"])]]})
    assert torch.equal(joined([*ro.batches(table, model)])[1][0], images[0])
    grey = [np.full((SIDE, SIDE), 51, np.uint8), np.full((SIDE, SIDE, 4), (51, 51, 51, 255), np.uint8)]
    assert joined([*ro.batches(grey, model)])[1].unique().tolist() == pytest.approx([0.2])


def test_names_that_a_model_does_not_have_are_taken_in_order_aloud(
    folder: Path, model: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    del model.network.class_names
    table = hugging_face(folder).cast_column("label", ClassLabel(names=list(NAMES)))
    with caplog.at_level(logging.WARNING):
        assert joined([*ro.batches(table, model)])[2] == [0, 0, 1, 1, 2, 2]
    assert "classes 0 = bird, 1 = boat, 2 = car" in caplog.text


class Streamed:
    """Items that are there one after the other, two of one name."""

    def __iter__(self) -> Any:
        return iter([{"image": {"bytes": None, "path": "x.png"}, "label": "cat"}] * 2)


def test_images_of_one_name_have_ids_of_their_own(
    tmp_path: Path, model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "x.png")
    monkeypatch.chdir(tmp_path)
    assert joined([*ro.batches(Streamed(), model)])[::2] == (["x.png", "1/x.png"], [2, 2])


def test_what_is_no_picture_or_no_class_is_one_line(folder: Path, model: Classifier) -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    normalised = ImageFolder(folder, v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]))
    cases: list[tuple[Any, str]] = [
        (["a.png"], "dataset: 0: expected a picture of Pillow's, an array or a tensor, got str"),
        ([pixels.astype(np.int64)], r"0: expected 8 bits .*\(3, 12, 12\), got torch.int64"),
        (normalised, r"bird/0.png: expected 8 bits .* got torch.float32 of shape \(3, 20, 31\)"),
        ([torch.full((3, SIDE, SIDE), 2.5)], r"0: images: expected values in \[0, 1\]"),
        ([torch.full((3, SIDE, SIDE), torch.nan)], "finite"),
        ([(pixels, 6)], "0: label 6: the model has classes 0 to 5"),
        ([(pixels, torch.eye(6)[0])], r"0: label 'tensor\(\[1"),
        ([(pixels, -1)], "0: label '-1' is neither"),
        ([(pixels, "horse")], "0: label 'horse' is no class of the model"),
        ([(pixels, 1), pixels], "dataset: of 0, 1 some have a label"),
        ([b"GIF89a"], "dataset: 0: "),
        ([{"text": "a"}], "dataset: expected a column image, found text"),
        ([], "dataset: expected at least one image"),
        (DatasetDict(train=hugging_face(folder)), "expected one split, got those called train"),
    ]
    for dataset, message in cases:
        with pytest.raises(ValueError, match=message) as refusal:
            list(ro.batches(dataset, model))
        assert "\n" not in str(refusal.value)
    model.network.class_names = NAMES[1:]  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"bird/0\.png: class 'bird' is none of the model's"):
        list(ro.batches(ImageFolder(folder), model))
    with pytest.raises(ValueError, match="model: expected a classifier that load_model gives"):
        ro.batches([], torch.nn.Identity())  # type: ignore[arg-type]

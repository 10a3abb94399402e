"""Batches read ahead: one at a time, in order, and every error where it belongs."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.files import Files, LocalFiles
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.stages.batches import example_batches, image_batches, read_tensor
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.storage import errors as stores
from riemannopt_dist.storage.errors import StorageError
from riemannopt_dist.testing.small_world import make_pictures


class Recording(LocalFiles):
    """Local files that tell which were read, and one of which is on a disk that fails."""

    def __init__(self, failing: str = "") -> None:
        self.read_so_far: list[str] = []
        self._failing = failing

    def read(self, name: str) -> bytes:
        self.read_so_far.append(Path(name).name)
        if Path(name).name == self._failing:
            raise OSError("disk failure")
        return super().read(name)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load_model("riemannopt_dist.testing.small_world:tiny_classifier")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures", 9)


def engine(model: Classifier, files: Files | None = None) -> Engine:
    return Engine(model, torch.device("cpu"), files or LocalFiles(), 8, Tally())


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9, 20])
def test_batches_are_the_images_in_order(folder: Path, model: Classifier, batch_size: int) -> None:
    refs = list_images(str(folder))
    batches = list(image_batches(refs, engine(model), batch_size))
    assert [ref for batch, _ in batches for ref in batch] == refs
    assert [len(batch) for batch, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    images = [outcome for _, outcomes in batches for outcome in outcomes]
    for ref, image in zip(refs, images, strict=True):
        assert isinstance(image, torch.Tensor)
        assert torch.equal(image, read_tensor(ref, model))


def test_no_images_are_no_batches(model: Classifier) -> None:
    assert list(image_batches([], engine(model), 4)) == []


def test_one_batch_is_read_ahead_and_no_more(folder: Path, model: Classifier) -> None:
    files = Recording()
    batches = image_batches(list_images(str(folder)), engine(model, files), 2)
    next(batches)
    eventually(lambda: len(files.read_so_far) == 4)  # while the first batch is worked on
    time.sleep(0.2)
    assert sorted(files.read_so_far) == [f"p{n:02}.png" for n in range(4)]
    next(batches)
    eventually(lambda: len(files.read_so_far) == 6)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]
    assert len(files.read_so_far) <= 6


def test_a_damaged_image_is_an_outcome_at_its_place(folder: Path, model: Classifier) -> None:
    (folder / "p04.png").write_bytes(b"")
    refs = list_images(str(folder))
    outcomes = [o for _, batch in image_batches(refs, engine(model), 2) for o in batch]
    assert [isinstance(outcome, UnreadableImage) for outcome in outcomes] == [n == 4 for n in range(9)]
    assert str(outcomes[4]) == "empty file"


def test_subjects_before_a_damaged_one_come_out(folder: Path, model: Classifier) -> None:
    (folder / "p04.png").write_bytes(b"")
    examples = [Example(ref, n) for n, ref in enumerate(list_images(str(folder)))]
    batches = example_batches(examples, engine(model), 2)
    for n in (0, 2):
        batch, images, targets = next(batches)
        assert list(batch) == examples[n : n + 2]
        assert images.shape == (2, 3, 12, 12)
        assert targets.tolist() == [n, n + 1]
    with pytest.raises(UnreadableImage, match="empty file"):
        next(batches)


def test_a_disk_that_fails_is_no_property_of_the_image(
    folder: Path, model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "FIRST_DELAY", 0.001)
    files = Recording(failing="p03.png")
    batches = image_batches(list_images(str(folder)), engine(model, files), 2)
    next(batches)
    with pytest.raises(StorageError, match=r"p03.png: disk failure \(5 attempts\)"):
        next(batches)
    assert files.read_so_far.count("p03.png") == stores.ATTEMPTS

"""Labels: ILSVRC's classes by any name, class folders, columns of Parquet files; what has none is told."""

import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torchvision.datasets import ImageFolder
from torchvision.models._meta import _IMAGENET_CATEGORIES

from riemannopt_dist.data.classes import class_index, classes_of, named_class, synset_ranks
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images

# ILSVRC: n01440764 is class 0 (tench), n01443537 1 (goldfish), n02102040 217 (English springer),
# n02979186 482 (cassette player), n02123045 281 (tabby).
INLINE = ["tench", "English springer", "cassette player", "chain saw", "church", "French horn"]
INLINE_CLASSES = [0, 217, 482, 491, 497, 566]


def labels_of(refs: list[ImageRef]) -> dict[str, int | None]:
    return {ref.image_id: ref.label for ref in refs}


def folder_of(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return str(folder)


def tar_of(path: Path, *names: str) -> str:
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return str(path)


def parquet_of(folder: Path, labels: Any, names: list[str] | None = None) -> str:
    """A Parquet file with labels, whose classes have names as Hugging Face stores them."""
    table = pa.table({"image": [b"x"] * len(labels), "label": labels})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    if names is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "x.parquet")
    return str(folder / "x.parquet")


# --- Classes ---


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("n02102040", 217),
        ("n02085620-Chihuahua", 151),
        ("n01440764 tench, Tinca tinca", 0),
        ("tench, Tinca tinca", 0),
        ("tench", 0),
        ("Tinca tinca", 0),
        ("great_white_shark", 2),
        ("english springer", 217),
        ("Cardigan", 264),  # a corgi
        ("cardigan", 474),  # a jacket
        ("crane", None),  # a bird or a machine
        ("cat", None),
        ("n99999999", None),
        ("n02102040x", None),
        ("", None),
    ],
)
def test_a_class_is_known_by_its_names(name: str, index: int | None) -> None:
    assert named_class(name) == index


def test_the_names_of_torchvision_are_those_of_its_classes() -> None:
    found = [named_class(name) for name in _IMAGENET_CATEGORIES]
    assert {_IMAGENET_CATEGORIES[place] for place, index in enumerate(found) if index != place} == {
        "crane",
        "crane bird",
    }
    assert classes_of(_IMAGENET_CATEGORIES) == list(range(1000))
    assert classes_of(list(synset_ranks())) == list(range(1000))
    # Another order is another meaning, and so are some of them.
    assert classes_of(_IMAGENET_CATEGORIES[::-1])[:3] == [999, 998, 997]
    assert classes_of(["cat", "goldfish", "12"]) == [None, 1, 12]


@pytest.mark.parametrize(
    ("label", "index"),
    [(3, 3), (3.0, 3), ("3", 3), (" n02123045\n", 281), (b"n02123045", 281), ("tench", 0), ("0", 0)],
)
def test_labels_that_mean_a_class(label: Any, index: int) -> None:
    assert class_index(label) == (index, None)


@pytest.mark.parametrize(
    "label",
    [None, float("nan"), 2.5, float("inf"), -1, -1.0, True, "cat", "3.5", "", [3], {"a": 3}, "n99999999"],
)
def test_labels_that_mean_none_have_a_reason(label: Any) -> None:
    index, reason = class_index(label)
    assert index is None
    assert reason is not None
    assert reason == "no label" if label is None or label != label else reason.startswith("label ")


# --- Parquet ---


@pytest.mark.parametrize(
    "names",
    [
        INLINE,
        ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916"],
        [name.lower().replace(" ", "_") for name in INLINE],
        [str(index) for index in INLINE_CLASSES],
    ],
    ids=["names", "synsets", "underscores", "indices"],
)
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.float64()])
def test_labels_that_count_named_classes_mean_those(tmp_path: Path, names: list[str], kind: Any) -> None:
    refs = list_images(parquet_of(tmp_path, pa.array([5, 1, 0, 2, None], kind), names))
    assert [ref.label for ref in refs] == [566, 217, 0, 482, None]
    assert [ref.reason for ref in refs] == [None] * 4 + ["no label"]


def test_classes_that_are_not_of_ilsvrc_are_no_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refs = list_images(parquet_of(tmp_path, [0, 1, 1], ["cat", "dog"]))
    assert [(ref.label, ref.reason) for ref in refs] == [(None, None)] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "x.parquet has no labels: whatever class the model sees is explained" in record.message
    assert "the classes of column label (cat, dog) are none of ILSVRC's" in record.message
    # As the warning says: the numbers alone are indices.
    refs = list_images(parquet_of(tmp_path, [0, 1, 1]))
    assert [ref.label for ref in refs] == [0, 1, 1]


def test_rows_of_a_class_that_is_not_of_ilsvrc_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refs = list_images(parquet_of(tmp_path, [0, 1, 2, 3, -1], ["goldfish", "cat", "n99999999"]))
    assert [ref.label for ref in refs] == [1, None, None, None, None]
    assert [ref.reason for ref in refs] == [
        None,
        "class 'cat' is not one of the 1,000 of ILSVRC",
        "class 'n99999999' is not one of the 1,000 of ILSVRC",
        "label 3 is none of the 3 classes that are named",
        "label '-1' is neither a class index nor a synset, nor a class of ILSVRC",
    ]
    assert "4 of 5 inputs cannot be used (x.parquet/1: class 'cat' is not" in caplog.text
    assert "is explained" not in caplog.text


@pytest.mark.parametrize(
    ("labels", "indices"),
    [
        (pa.array([0.0, 7.0, None, 2.5, float("nan")]), [0, 7, None, None, None]),
        (pa.array([3.0], pa.float16()), [3]),
        (["tench", "n02123045", "7", "cat", None], [0, 281, 7, None, None]),
        ([b"n02123045", b"7"], [281, 7]),
        (pa.array(["tench", "tabby", "tench"]).dictionary_encode(), [0, 281, 0]),
    ],
    ids=["floats", "halves", "texts", "bytes", "categories"],
)
def test_columns_of_labels_of_other_types(
    tmp_path: Path, labels: Any, indices: list[int | None], caplog: pytest.LogCaptureFixture
) -> None:
    refs = list_images(parquet_of(tmp_path, labels))
    assert [ref.label for ref in refs] == indices
    assert all((ref.reason is None) == (ref.label is not None) for ref in refs)
    assert ("cannot be used" in caplog.text) == (None in indices)
    assert "is explained" not in caplog.text


@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": {"features": {"label": {"names": 3}}}}', "\udcff"])
def test_metadata_that_name_no_classes_change_nothing(tmp_path: Path, metadata: str) -> None:
    table = pa.table({"image": [b"x"], "label": [1]})
    value = {b"huggingface": metadata.encode("utf-8", "surrogateescape")}
    pq.write_table(table.replace_schema_metadata(value), tmp_path / "x.parquet")
    assert [ref.label for ref in list_images(str(tmp_path / "x.parquet"))] == [1]


# --- Class folders ---


def test_a_synset_anywhere_among_the_folders_is_the_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {
        "train/n01440764/images/a.JPEG": 0,
        "n02102040/a.JPEG": 217,
        "n02102040/n01440764/a.JPEG": 0,
        "n02085620-Chihuahua/a.JPEG": 151,
    }
    assert labels_of(list_images(folder_of(tmp_path / "x", *names))) == names
    assert labels_of(list_images(str(tmp_path / "x/train/n01440764/images"))) == {"a.JPEG": 0}
    packed = labels_of(list_images(tar_of(tmp_path / "x.tar", *(f"./{name}" for name in names))))
    assert packed == {f"x.tar/{name}": label for name, label in names.items()}
    # One tar a class, as the training set comes.
    (tmp_path / "train").mkdir()
    tar_of(tmp_path / "train/n02102040.tar", "n02102040_7.JPEG")
    assert labels_of(list_images(str(tmp_path / "train"))) == {"n02102040.tar/n02102040_7.JPEG": 217}
    assert caplog.text == ""


def test_a_label_beside_an_image_counts_more_than_its_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("n01440764/a.jpg"))
        label = tarfile.TarInfo("n01440764/a.cls")
        label.size = 1
        archive.addfile(label, io.BytesIO(b"7"))
    assert labels_of(list_images(str(tmp_path / "x.tar"))) == {"x.tar/n01440764/a.jpg": 7}


@pytest.mark.parametrize("inside", ["{}/a.jpg", "val/{}/a.jpg", "{}/images/a.jpg"])
def test_folders_that_are_numbers_are_class_indices(
    tmp_path: Path, inside: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not their places in alphabetical order, in which 10 comes before 2."""
    expected = {inside.format(number): number for number in (0, 2, 10, 999)}
    assert labels_of(list_images(folder_of(tmp_path / "x", *expected))) == expected
    assert "folders 0, 2, 10, 999 are taken as class indices" in caplog.text
    packed = labels_of(list_images(tar_of(tmp_path / "00012.tar", *expected)))
    assert packed == {f"00012.tar/{name}": number for name, number in expected.items()}


@pytest.mark.parametrize(
    "folders",
    [
        [str(number) for number in range(10)],
        [str(number) for number in range(1, 8)],
        [f"{number:02}" for number in range(12)],
        [f"{number:03}" for number in range(12)],
        ["n01440764", "n02102040", "n02979186"],  # of Imagenette, whose models number them so
        ["bird", "boat"],
    ],
)
def test_as_many_folders_as_classes_are_numbered_as_by_image_folder(
    tmp_path: Path, folders: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = folder_of(tmp_path, *(f"{folder}/a.jpg" for folder in folders))
    samples = ImageFolder(source, is_valid_file=lambda path: True).samples
    expected = {str(Path(path).relative_to(source)): label for path, label in samples}
    assert labels_of(list_images(source, classes=len(folders))) == expected
    assert "are taken as the model's classes, in this order" in caplog.text


@pytest.mark.parametrize("inside", ["{}/a.jpg", "val/{}/a.jpg"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_in_two_orders_are_told_by_the_model_s_classes(
    tmp_path: Path, inside: str, first: int
) -> None:
    """ImageFolder's are 0, 1, 10, 11, 2, …; a model may have been trained with these, or the numbers."""
    numbers = [str(number) for number in range(first, first + 12)]
    source = folder_of(tmp_path, *(inside.format(number) for number in numbers))
    either = rf"folders {', '.join(numbers[:5])}, … may be .*ImageFolder gives them \({numbers[0]}, .*10, "
    with pytest.raises(ValueError, match=either + r".*: name them in the model's order in model.classes$"):
        list_images(source, classes=12)
    for order in (numbers, sorted(numbers)):
        labels = labels_of(list_images(source, classes=order))
        assert labels == {inside.format(number): order.index(number) for number in numbers}


def test_some_of_the_model_s_classes_are_known_by_their_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {"2/a.jpg": 2, "10/a.jpg": 10}
    assert labels_of(list_images(folder_of(tmp_path / "x", *expected), classes=12)) == expected
    assert "folders 2, 10 are taken as class indices; else name the model's classes in order" in caplog.text
    synsets = folder_of(tmp_path / "y", "n01440764/a.jpg", "n02102040/a.jpg")
    assert {ref.label for ref in list_images(synsets, classes=1000)} == {0, 217}
    others = folder_of(tmp_path / "z", "bird/a.jpg", "boat/a.jpg")
    assert {ref.label for ref in list_images(others, classes=10)} == {None}
    mend = "folders bird, boat are not those of the model's 10 classes: name these in order, as the folders"
    assert mend in caplog.text


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["bird/a.jpg", "boat/a.jpg"], "bird, boat"),
        (["0/a.jpg", "boat/a.jpg"], "0, boat"),
        (["0/a.jpg", "1000/a.jpg"], "0, 1000"),
        (["2024/01/a.jpg"], "2024/01"),
        (["1/2/a.jpg"], "1/2"),
        (["tench/a.jpg"], "tench"),
        ([f"c{n}/a.jpg" for n in range(7)], "c0, c1, c2, c3, c4, …"),
    ],
)
def test_images_in_other_folders_have_no_label_and_a_warning_says_so(
    tmp_path: Path, names: list[str], shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    for source in (folder_of(tmp_path / "x", *names), tar_of(tmp_path / "x.tar", *names)):
        caplog.clear()
        assert {(ref.label, ref.reason) for ref in list_images(source)} == {(None, None)}
        (record,) = caplog.records
        assert record.message.startswith(
            f"{source} has no labels: whatever class the model sees is explained ("
        )
        assert f"folders {shown}: expected WordNet ids such as n01440764" in record.message
        mend = "give labels in a file, see --labels, or the model's own in model.classes)"
        assert record.message.endswith(mend)


def test_images_without_a_label_among_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder_of(tmp_path, "n01440764/a.jpg", "n01440764/b.jpg", "bird/a.jpg", "notes.txt")
    assert labels_of(list_images(source)) == {
        "n01440764/a.jpg": 0,
        "n01440764/b.jpg": 0,
        "bird/a.jpg": None,
        "notes.txt": None,
    }
    assert "has no labels for 1 of 3 images, such as bird/a.jpg: whatever" in caplog.text


def test_files_alone_need_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    list_images(folder_of(tmp_path, "a.jpg", "b.jpg"))
    assert caplog.text == ""


def test_a_file_of_labels_counts_whatever_the_folders_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder_of(tmp_path / "x", "bird/a.jpg", "n99999999/b.jpg", "7/c.jpg", "7/d.jpg")
    lines = ["ImageId,PredictionString", *(f"{name},n02123045 1 2 3 4" for name in "abc")]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    refs = list_images(source, str(tmp_path / "labels.csv"))
    assert [(ref.label, ref.reason) for ref in refs] == [
        (281, None),
        (None, "no label in labels.csv"),
        (281, None),
        (281, None),
    ]
    assert "1 of 4 inputs cannot be used (7/d.jpg: no label in labels.csv)" in caplog.text
    assert "is explained" not in caplog.text

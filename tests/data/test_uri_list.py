"""Lists of images, in CSV and Parquet, wherever the images are."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from riemannopt_dist.data.errors import UnreachableImage
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.data.uri_list import image_id_of, label_of, source_files
from riemannopt_dist.storage import errors as stores
from riemannopt_dist.testing.s3_server import Bucket

NAMES = ("bird", "boat", "car")


def png(place: Path, n: int) -> bytes:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), n, dtype=np.uint8)).save(place)
    return place.read_bytes()


def test_a_list_names_images_here_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "FIRST_DELAY", 0.01)
    near, far = png(tmp_path / "set/a b#1.png", 1), png(tmp_path / "far/b.png", 2)
    lines = ["uri,note,label", "a b#1.png,x,2", f'"{tmp_path}/far/b.png",y,boat', "none.png,,bird"]
    (tmp_path / "set/list.csv").write_text("\n".join(lines) + "\n")
    source = str(tmp_path / "set/list.csv")
    refs = {ref.image_id: ref for ref in list_images(source, classes=NAMES)}
    elsewhere = f"{tmp_path}/far/b.png".lstrip("/")
    assert {name: (ref.label, ref.reason, ref.size) for name, ref in refs.items()} == {
        "a b#1.png": (2, None, len(near)),
        elsewhere: (1, None, len(far)),
        "none.png": (0, None, None),
    }
    with ImageReader(source_files(source), refs.values()) as reader:
        assert reader.read(refs["a b#1.png"]) == near
        assert reader.read(refs[elsewhere]) == far
        with pytest.raises(UnreachableImage):
            reader.read(refs["none.png"])
        png(tmp_path / "far/b.png", 3)
        (tmp_path / "set/a b#1.png").write_bytes(near + b"\0")
        with pytest.raises(UnreachableImage, match="when it was listed"):
            reader.read(refs["a b#1.png"])


def test_parquet_of_addresses_is_a_list_too(tmp_path: Path) -> None:
    content = png(tmp_path / "images/n01440764/x.png", 1)
    table = pa.table({"uri": ["images/n01440764/x.png"], "label": [3]})
    pq.write_table(table, tmp_path / "list.parquet")
    (ref,) = list_images(str(tmp_path / "list.parquet"))
    assert (ref.image_id, ref.label, ref.offset, ref.size) == (
        "images/n01440764/x.png",
        3,
        None,
        len(content),
    )
    pq.write_table(table.drop(["label"]), tmp_path / "list.parquet")
    (ref,) = list_images(str(tmp_path / "list.parquet"))
    assert ref.label == 0  # that of its folder


def test_a_list_in_a_bucket_is_read_with_its_credentials(bucket: Bucket, tmp_path: Path) -> None:
    content, here = png(tmp_path / "x.png", 1), png(tmp_path / "y.png", 2)
    bucket.put("set/x.png", content)
    rows = ["uri,label", "x.png,1", "s3://bucket/set/x.png,1", f"{tmp_path}/y.png,0"]
    bucket.put("set/list.csv", "\n".join(rows).encode())
    source = bucket.uri("bucket/set/list.csv")
    refs = list_images(source)
    assert {ref.uri for ref in refs} == {"s3://bucket/set/x.png", f"{tmp_path}/y.png"}
    files = pickle.loads(pickle.dumps(source_files(source)))
    with ImageReader(files, refs) as reader:
        read = {ref.image_id: reader.read(ref) for ref in refs}
    assert read == {
        "x.png": content,
        "bucket/set/x.png": content,
        f"{tmp_path}/y.png".lstrip("/"): here,
    }


def test_rows_that_are_no_images_have_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        "uri,label",
        "s3://user:secret@bucket/a.png,1",
        "https://host/b.png?token=secret,1",
        "ftp://host/c.png,1",
        ",1",
        "d.png,",
        "e.png,plane",
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    with caplog.at_level(logging.WARNING):
        refs = list_images(str(tmp_path / "list.csv"), classes=NAMES)
    reasons = {ref.image_id: ref.reason for ref in refs}
    assert reasons == {
        "bucket/a.png": "credentials or options in its uri: they are the list's, or from the environment",
        "host/b.png": "credentials or options in its uri: they are the list's, or from the environment",
        "host/c.png": "expected a path, or s3://, gs:// or https://, got ftp://",
        "?": "no uri in its row",
        "d.png": "no label",
        "e.png": "label 'plane' is no class of the model: name these in order in model.classes",
    }
    assert "secret" not in caplog.text + str(refs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "path,label\na.png,1\n",
            r"list.csv: expected a column uri and, for labels, label; found path, label$",
        ),
        ("", r"expected a column uri .*; found none$"),
        ('uri\n"a.png\nb.png\n', r"list.csv: not a CSV file: "),
        ("uri\n", r"no files in '.*list.csv'"),
        ("uri\na.png\na.png\n", r"two files of '.*list.csv' share the id 'a.png'"),
    ],
)
def test_files_that_are_no_lists(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"^source: .*{message}"):
        list_images(str(tmp_path / "list.csv"))


def test_an_id_is_a_path_inside_a_folder() -> None:
    ids = {"a/b.png", "/a/b.png", "../../a/b.png", "s3://a/b.png", "./a/b.png"}
    assert {image_id_of(text) for text in ids} == {"a/b.png"}


def test_labels_mean_classes_of_the_model() -> None:
    assert [label_of(label, NAMES)[0] for label in ("car", " bird", "1", 2)] == [2, 0, 1, 2]
    assert label_of("n01440764", None) == (0, None)
    assert label_of("tench", NAMES)[0] is None
    assert label_of("", NAMES) == (None, "no label")


def test_names_of_hugging_face_s_classes_are_the_model_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Picture

    png(tmp_path / "x.png", 1)
    features = Features({"image": Picture(), "label": ClassLabel(names=list(NAMES[::-1]))})
    data = {"image": [str(tmp_path / "x.png")], "label": [0]}
    Dataset.from_dict(data, features).to_parquet(tmp_path / "x.parquet")
    source = str(tmp_path / "x.parquet")
    assert [ref.label for ref in list_images(source, classes=NAMES)] == [2]
    with caplog.at_level(logging.WARNING):
        assert [ref.label for ref in list_images(source, classes=3)] == [0]
    assert "classes 0 = car, 1 = boat, 2 = bird are taken as the model's" in caplog.text
    with caplog.at_level(logging.WARNING):
        assert [ref.label for ref in list_images(source, classes=4)] == [None]
    assert "name the model's own in model.classes" in caplog.text

"""Addresses with characters that mean something in a URI: the place that is meant, or a refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pyarrow import fs

from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.labels import read_labels
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.storage.addresses import parse_address
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.redaction import without_secrets
from riemannopt_dist.testing.image_files import read_image
from riemannopt_dist.testing.s3_server import Bucket

NAMES = [
    "a#b",
    "a?b",
    "a?region=x",
    "a%20b",
    "a%2520b",
    "a b",
    " a ",
    "100%",
    "50%25",
    "é",
    "日本",
    "p+q",
    "a&b=c",
    "a:b",
    "'\"",
    "a\\b",
    "tab\tx",
    "..x",
]
OBJECTS = ["a#b", "a?b", "a?region=x", "a%20b", "a%2520b", "a b", "100%", "é", "p+q", "tab\tx"]
DECOYS = ["a", "a b", "100", "50%", "tab", "tabx", "n01440764"]
"""What the names above become where a URI is cut, decoded once too often, or cleaned of tabs."""
KAGGLE = "ImageId,PredictionString\nx,n02123045 1 2 3 4\n"


def put_files(names: list[str], write: Callable[[str, bytes], Any]) -> None:
    """A folder of each name, with a file that holds the name, and the decoys."""
    for name in {*names, *DECOYS}:
        write(f"{name}/x.png", name.encode() if name in names else b"another")


def read_folder(source: str) -> list[bytes]:
    refs = list_images(source)
    with ImageReader(files_of(source), refs) as reader:
        return [reader.read(ref) for ref in refs]


def write_local(folder: Path) -> Callable[[str, bytes], Any]:
    def write(name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return write


@pytest.mark.parametrize("name", NAMES)
def test_local_folders_of_any_name(tmp_path: Path, name: str) -> None:
    put_files(NAMES, write_local(tmp_path))
    folder = tmp_path / name
    (folder / "x.csv").write_text(KAGGLE)
    for form in (str, Path.as_uri):
        assert read_folder(form(folder))[1:] == [name.encode()]
        assert read_image(form(folder / "x.png")) == name.encode()
        assert read_labels(form(folder / "x.csv")) == {"x": 281}
        root = tmp_path / "runs" / name
        Storage(form(root)).write_bytes("results/x", name.encode())
        assert (root / "results/x").read_bytes() == name.encode()
        assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]
        (root / "results/x").unlink()


def test_objects_of_any_name(bucket: Bucket) -> None:
    put_files(OBJECTS, lambda name, data: bucket.put(f"any/{name}", data))
    for name in OBJECTS:
        place = f"bucket/any/{quote(name)}"
        assert read_folder(bucket.uri(place)) == [name.encode()]
        Storage(bucket.uri(f"bucket/any-runs/{quote(name)}")).write_bytes("x", name.encode())
    # With Arrow's file system alone.
    file_system, _ = fs.FileSystem.from_uri(bucket.uri("bucket"))
    for name in OBJECTS:
        with file_system.open_input_stream(f"bucket/any-runs/{name}/x") as stream:
            assert stream.read() == name.encode()


def test_names_in_tables_are_addresses_of_the_same_objects(bucket: Bucket) -> None:
    put_files(OBJECTS, lambda name, data: bucket.put(f"ids/{name}", data))
    options = bucket.uri("").removeprefix("s3://user:swordfish@")
    refs = list_images(bucket.uri("bucket/ids"))
    assert len(refs) == len({*OBJECTS, *DECOYS})
    for ref in refs:
        name = ref.image_id.removesuffix("/x.png")
        expected = name.encode() if name in OBJECTS else b"another"
        assert without_secrets(ref.uri) == ref.uri
        assert read_image(f"s3://user:swordfish@{ref.uri.removeprefix('s3://')}{options}") == expected


def test_characters_without_a_meaning_need_no_code(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a b é", "a&b=c:p+q"):
        bucket.put(f"plain/{name}/x.png", name.encode())
        write_local(tmp_path)(f"{name}/x.png", name.encode())
        assert read_folder(bucket.uri(f"bucket/plain/{name}")) == [name.encode()]
        assert read_folder(f"file://{tmp_path}/{name}") == [name.encode()]
        Storage(f"file://{tmp_path}/{name}").write_bytes("x", b"")
        assert (tmp_path / name / "x").is_file()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("file:///a#b", r"expected no # in an address \(write it %23\), found one after file:///a$"),
        ("s3://bucket/a#b?region=x", r"expected no # .* found one after s3://bucket/a$"),
        ("https://host/a#b.tar", r"expected no # .* found one after https://host/a$"),
        ("file:///a?b", r"expected no \? in a file:// address \(write it %3F\), found one after file:///a$"),
        ("s3://bucket/a?", r"expected options such as region=.* after the \? behind s3://bucket/a .* %3F"),
        ("s3://bucket/a?b", r"expected options such as region=.* after the \? behind s3://bucket/a .* %3F"),
        ("s3://bucket/a?b=c", r"s3://bucket/a: .*'b'.*\(a \? in a name is written %3F\)$"),
        (
            "file:///100%",
            r"expected a code after each % \(write a % itself %25\), found '%' in file:///100%$",
        ),
        ("s3://bucket/100%/x", r"expected a code after each % .* found '%/x' in s3://bucket/100%/x$"),
        ("file:///a%ffb", r"expected UTF-8 in the codes after %, got file:///a%ffb$"),
        ("file:///a%00b", r"expected no %00 in an address, got file:///a%00b$"),
        ("s3://bucket/a\tb", r"expected no tab or line break in an address .* got 's3://bucket/a\\tb'$"),
        ("file:///a\nb", r"expected no tab or line break in an address .* got 'file:///a\\nb'$"),
        ("file://host/a", r"expected file:/// and an absolute path, got file://host$"),
        ("file://a", r"expected file:/// and an absolute path, got file://a$"),
        ("s3://bucket/a//b", r"expected no empty part, \. or \.\. between the / of s3://bucket/a//b$"),
        ("s3://bucket/a/../b", r"expected no empty part, \. or \.\. between the / of s3://bucket/a/\.\./b$"),
        ("s3:/bucket/a", r"expected :// after s3, got s3:/… \(a local path like that begins with \./\)$"),
        ("file:/a", r"expected :// after file, got file:/… "),
        (" s3://bucket/a", r"expected :// after s3, got  s3:/… "),
        ("s3://user:sword#fish@bucket/a", r"expected no # .* found one after s3://…$"),
        ("s3://user:sword?fish@bucket/a", r"expected a bucket after s3:// \(a password has its / as %2F\)$"),
    ],
)
def test_what_could_be_another_place_is_refused_in_one_line(
    address: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for read, kind in ((list_images, "source"), (read_labels, "labels"), (Storage, "root")):
        with pytest.raises(ValueError, match=rf"^{kind}: {told}") as caught:
            read(address)
        assert "\n" not in str(caught.value)
        assert "fish" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_local_path_may_hold_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_local(tmp_path)("s3:/b#c/x.png", b"x")
    for path in (str(tmp_path / "s3:/b#c"), "./s3:/b#c", "./s3://b#c", f"{tmp_path}/s3://b#c"):
        assert read_folder(path) == [b"x"]
        Storage(path).write_bytes("y", b"y")
        assert (tmp_path / "s3:/b#c/y").read_bytes() == b"y"
        (tmp_path / "s3:/b#c/y").unlink()


def test_options_are_no_part_of_the_place() -> None:
    address = parse_address("S3://user:sword%2Ffish@bucket/a%3Fb/c?region=eu-west-1&scheme=http")
    assert address.bucket == "s3://user:sword%2Ffish@bucket?region=eu-west-1&scheme=http"
    assert (address.key, address.name) == ("bucket/a?b/c", "s3://bucket/a%3Fb/c")
    assert parse_address("file://localhost/a%23b").name == "/a#b"

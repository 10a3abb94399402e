"""Where images come from: folders, Parquet and tars on disk, S3 and the web; labels; secrets; damage."""

import errno
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from riemannopt_dist.data.errors import ReplacedImage, UnreachableImage, UnreadableImage
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.labels import read_labels
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.storage import errors as stores
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DeniedError, LastingError, StorageError, retried
from riemannopt_dist.storage.redaction import one_line, without_credentials, without_secrets
from riemannopt_dist.testing.image_files import read_image
from riemannopt_dist.testing.s3_server import Bucket, serving
from tests.web import Web

PNG = b"\x89PNG the bytes of an image, which nothing here decodes: "


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serving() as server:
        yield server


def content(n: int) -> bytes:
    """Bytes of image n, which do not compress away."""
    return PNG + np.random.default_rng(n).bytes(3000)


def tar_of(members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def parquet_of(columns: dict[str, Any], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, **options)
    return bytes(sink.getvalue())


def hugging_face(count: int, first: int = 0) -> dict[str, Any]:
    """Columns as Hugging Face's data sets have them."""
    images = [{"bytes": content(n), "path": f"{n:02}.png"} for n in range(first, first + count)]
    return {"image": images, "label": [n % 5 for n in range(first, first + count)]}


def read_all(source: str, refs: list[ImageRef]) -> dict[str, bytes]:
    with ImageReader(files_of(source), refs) as reader:
        return {ref.image_id: reader.read(ref) for ref in refs}


def labels_of(refs: list[ImageRef]) -> list[tuple[str, int | None]]:
    return [(ref.image_id, ref.label) for ref in refs]


# --- Tars ---


def test_a_tar_pairs_by_key_wherever_the_members_are(tmp_path: Path) -> None:
    members = [
        ("./a.cls", b"7"),
        ("sub.dir/b.jpg", content(1)),
        ("c.x.JPEG", content(2)),
        ("a.json", b"{}"),
        ("c.x.cls", b"\xef\xbb\xbfn02123045\r\n"),
        ("._a.png", b"left by a Mac"),
        ("sub.dir/b.cls", b" 9 "),
        ("./a.png", content(0)),
    ]
    (tmp_path / "x.tar").write_bytes(tar_of(members))
    source = str(tmp_path / "x.tar")
    refs = list_images(source)
    assert labels_of(refs) == [("x.tar/a.png", 7), ("x.tar/c.x.JPEG", 281), ("x.tar/sub.dir/b.jpg", 9)]
    assert {ref.uri for ref in refs} == {source}
    assert list(read_all(source, refs).values()) == [content(0), content(2), content(1)]
    assert all(ref.reason is None for ref in refs)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar(tmp_path: Path, format: int) -> None:
    name = f"{'long' * 20}/{'name' * 20}.jpg"
    (tmp_path / "x.tar").write_bytes(tar_of([(name, content(0)), ("b.jpg", content(1))], format))
    source = str(tmp_path / "x.tar")
    assert read_all(source, list_images(source)) == {"x.tar/b.jpg": content(1), f"x.tar/{name}": content(0)}


def test_what_is_wrong_with_members_is_told(tmp_path: Path) -> None:
    members = [
        ("fine.jpg", content(0)),
        ("fine.cls", b"1"),
        ("bare.jpg", content(1)),
        ("odd.jpg", content(2)),
        ("odd.cls", b"cat"),
        ("alone.cls", b"3"),
        ("../../out.jpg", content(3)),
        ("/abs.jpg", content(3)),
    ]
    (tmp_path / "x.tar").write_bytes(tar_of(members))
    with tarfile.open(tmp_path / "x.tar", "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    reasons = {ref.image_id: ref.reason for ref in list_images(str(tmp_path / "x.tar"))}
    assert reasons == {
        "x.tar/fine.jpg": None,
        "x.tar/bare.jpg": "no .cls beside it",
        "x.tar/odd.jpg": "label 'cat' is neither a class index nor a synset, nor a class of ILSVRC",
        "x.tar/alone.cls": "a label without an image",
        "x.tar/../../out.jpg": "its name leads out of the archive",
        "x.tar//abs.jpg": "its name leads out of the archive",
        "x.tar/link.jpg": "not a regular file",
    }


def images_in(members: dict[str, bytes | str], folder: Path, **options: Any) -> list[ImageRef]:
    """What is listed of a tar with these members."""
    encoded = [(name, data.encode() if isinstance(data, str) else data) for name, data in members.items()]
    (folder / "x.tar").write_bytes(tar_of(encoded))
    return list_images(str(folder / "x.tar"), **options)


@pytest.mark.parametrize("key", ["a", "v1.0/a", "a.b", "2024.05.01", "v1.0/a.b.c", "日本.1"])
def test_what_lies_beside_an_image_is_none(tmp_path: Path, key: str) -> None:
    beside = ["seg.png", "mask.jpg", "depth.png", "json", "txt", "seg.txt", "2.jpg"]
    members: dict[str, bytes | str] = {f"{key}.{extension}": PNG for extension in beside}
    members |= {f"{key}.jpg": content(1), f"{key}.cls": " 7\n", "other.JPEG": content(2), "other.cls": "8"}
    refs = images_in(members, tmp_path)
    assert sorted(labels_of(refs)) == sorted([(f"x.tar/{key}.jpg", 7), ("x.tar/other.JPEG", 8)])
    assert all(ref.reason is None for ref in refs)
    read = read_all(str(tmp_path / "x.tar"), refs)
    assert read == {f"x.tar/{key}.jpg": content(1), "x.tar/other.JPEG": content(2)}


def test_an_example_has_one_image(tmp_path: Path) -> None:
    refs = images_in({"a.jpg": PNG, "a.png": PNG, "a.cls": "1", "b.webp": PNG, "b.cls": "2"}, tmp_path)
    assert {ref.image_id: (ref.label, ref.reason) for ref in refs} == {
        "x.tar/a.jpg": (None, "one image an example: a.png has the same key"),
        "x.tar/a.png": (None, "one image an example: a.jpg has the same key"),
        "x.tar/b.webp": (2, None),
    }


@pytest.mark.parametrize(
    ("names", "reasons"),
    [
        # No image of the example; which of two it would be; whose label it is.
        (["a.seg.png", "a.json"], {"a.seg.png": "extension seg.png is no image's (see image_extensions)"}),
        (
            ["a.left.jpg", "a.right.jpg"],
            {
                f"a.{side}.jpg": f"its key is a (with image_extensions: [{side}.jpg]) or a.{side} "
                f"(with a a.{side}.cls)"
                for side in ("left", "right")
            },
        ),
        (
            ["a.jpg", "a.b.jpg", "a.b.cls", "a.cls"],
            {
                "a.jpg": None,
                "a.b.jpg": "its key is a (with image_extensions: [b.jpg]) or a.b (with a a.b.cls)",
            },
        ),
        # Alone under its key, nothing else can be meant.
        (["a.b.jpg", "c.d.png"], {"a.b.jpg": None, "c.d.png": None}),
        (["a.1.jpg", "a.2.jpg"], {"a.1.jpg": None, "a.2.jpg": None}),
    ],
)
def test_what_may_be_an_image_and_may_not_has_a_reason(
    tmp_path: Path, names: list[str], reasons: dict[str, str | None]
) -> None:
    refs = images_in(dict.fromkeys(names, "3"), tmp_path)
    assert {ref.image_id.removeprefix("x.tar/"): ref.reason for ref in refs} == reasons


def test_the_extension_of_images_can_be_chosen(tmp_path: Path) -> None:
    members = {"a.left.PNG": content(1), "a.right.png": PNG, "a.jpg": PNG, "a.cls": "4", "b.jpg": PNG}
    refs = images_in(members, tmp_path, extensions=["left.png"])
    assert labels_of(refs) == [("x.tar/a.left.PNG", 4)]
    assert list(read_all(str(tmp_path / "x.tar"), refs).values()) == [content(1)]
    assert [ref.image_id for ref in images_in(members, tmp_path, extensions=["jpg"])] == [
        "x.tar/a.jpg",
        "x.tar/b.jpg",
    ]
    with pytest.raises(ValueError, match=r"^source: no files in .* with the image_extensions bmp, webp$"):
        images_in({"a.jpg": PNG}, tmp_path, extensions=["bmp", "webp"])


@pytest.mark.parametrize("size", [-1, -512, -(10**12)])
def test_a_member_of_a_negative_size_is_damage(tmp_path: Path, size: int) -> None:
    """As the binary form of a size can say: the next header would be before this one."""
    forged = tarfile.TarInfo("b.jpg")
    header = bytearray(forged.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size.to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole = tar_of([("a.jpg", b"a")])[:1024]
    (tmp_path / "x.tar").write_bytes(whole + bytes(header) + bytes(2048))
    assert [(ref.image_id, ref.reason) for ref in list_images(str(tmp_path / "x.tar"))] == [
        ("x.tar", f"damaged tar, after 1 images: the size of 'b.jpg' is {size}"),
        ("x.tar/a.jpg", None),
    ]


def test_a_member_whose_name_is_not_utf8_has_a_reason(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("café.jpg", "b.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    refs = list_images(str(tmp_path / "x.tar"))
    assert [(ref.image_id, ref.reason) for ref in refs] == [
        ("x.tar/b.jpg", None),
        ("x.tar/caf\\xe9.jpg", "file name is not UTF-8"),
    ]
    RunDirectory(Storage(tmp_path / "run")).write_listing(refs)


class _Trap:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_pickles_in_a_tar_are_never_loaded_and_nothing_is_unpacked(tmp_path: Path) -> None:
    trap = pickle.dumps(_Trap(tmp_path / "sprung"))
    names = ["a.pyd", "a.pickle", "a.pkl", "a.cls", "b.pth"]
    (tmp_path / "x.tar").write_bytes(tar_of([("a.jpg", content(0)), *((name, trap) for name in names)]))
    (ref,) = list_images(str(tmp_path / "x.tar"))
    assert ref.reason is not None
    assert ref.reason.startswith("label ")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize(
    ("damage", "kept", "told"),
    [
        (lambda data: data[: 512 * 20 + 100], 2, "damaged tar, after 3 images: unexpected end of data"),
        (lambda data: data[: 512 * 14], 2, "damaged tar, after 2 images: it ends without an end mark"),
        (lambda data: data[: 512 * 14] + b"junk" * 999, 2, "damaged tar, after 2 images: what follows"),
        (lambda data: b"junk" * 999, 0, "damaged tar, after 0 images: "),
        (lambda data: b"", 0, "damaged tar, after 0 images: empty file"),
    ],
    ids=["member", "end", "header", "text", "empty"],
)
def test_a_damaged_tar_keeps_what_is_whole_and_tells_the_rest(
    tmp_path: Path, damage: Any, kept: int, told: str
) -> None:
    # Each member is a header of 512 bytes and seven blocks: 4,096 bytes with seven blocks of content.
    whole = tar_of([(f"{n}.jpg", content(n)) for n in range(4)], tarfile.USTAR_FORMAT)
    (tmp_path / "x.tar").write_bytes(damage(whole))
    refs = {ref.image_id: ref for ref in list_images(str(tmp_path / "x.tar"))}
    assert refs["x.tar"].reason is not None
    assert refs["x.tar"].reason.startswith(told)
    fine = [ref for ref in refs.values() if ref.reason is None]
    assert [ref.image_id for ref in fine] == [f"x.tar/{n}.jpg" for n in range(kept)]
    assert list(read_all(str(tmp_path), fine).values()) == [content(n) for n in range(kept)]


# --- Parquet ---


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("a data set")
    for n in range(2):
        data = parquet_of(hugging_face(12, 12 * n), row_group_size=5)
        (tmp_path / f"data/val-{n:05}-of-00002.parquet").write_bytes(data)
    refs = list_images(str(tmp_path))
    assert labels_of(refs) == [(f"{n:02}.png", n % 5) for n in range(24)]
    assert list(read_all(str(tmp_path), refs).values()) == [content(n) for n in range(24)]
    # In another order, and only some.
    some = [refs[n] for n in (17, 3, 22, 4)]
    assert list(read_all(str(tmp_path), some).values()) == [content(n) for n in (17, 3, 22, 4)]


def test_names_in_parquet_that_two_share_are_no_ids(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.parquet").write_bytes(parquet_of(hugging_face(2)))
    assert [ref.image_id for ref in list_images(str(tmp_path))] == [
        f"{n}.parquet/{row}" for n in range(2) for row in range(2)
    ]
    (tmp_path / "1.parquet").write_bytes(b"")
    ids = ["00.png", "01.png", "1.parquet"]
    assert [ref.image_id for ref in list_images(str(tmp_path))] == ids


def test_other_columns_types_and_labels(tmp_path: Path) -> None:
    labels = ["n02123045", "12", "cat", None, "n99999999"]
    images = pa.array([content(n) for n in range(4)] + [None], pa.large_binary())
    (tmp_path / "x.parquet").write_bytes(parquet_of({"cls": labels, "id": range(5), "img": images}))
    source = str(tmp_path / "x.parquet")
    refs = list_images(source)
    assert [(ref.label, ref.reason) for ref in refs] == [
        (281, None),
        (12, None),
        (None, "label 'cat' is neither a class index nor a synset, nor a class of ILSVRC"),
        (None, "no label"),
        (None, "label n99999999 is not one of the 1,000 ILSVRC synsets"),
    ]
    assert list(read_all(source, refs[:2]).values()) == [content(0), content(1)]
    empty = ImageRef("x", source, None, offset=4)
    with pytest.raises(UnreadableImage, match="no image in its row"):
        read_all(source, [empty])


def test_minus_one_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(parquet_of({"image": [content(0)], "label": [-1]}))
    (ref,) = list_images(str(tmp_path / "test.parquet"))
    assert (ref.label, ref.reason) == (
        None,
        "label '-1' is neither a class index nor a synset, nor a class of ILSVRC",
    )


def test_without_labels_there_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet_of({"image": [content(0)], "category": [3]}))
    (ref,) = list_images(str(tmp_path / "x.parquet"))
    assert (ref.label, ref.reason) == (None, None)
    assert "x.parquet has no labels" in caplog.text


def test_without_images_the_columns_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet_of({"image": ["a.png"], "label": [1]}))
    with pytest.raises(
        ValueError, match=r"x.parquet: expected a column image, .* found image \(string\), label"
    ):
        list_images(str(tmp_path))


def test_damage_in_parquet_is_told_where_it_is(tmp_path: Path) -> None:
    data = bytearray(parquet_of(hugging_face(9), row_group_size=3, compression="zstd"))
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(1).column(0)
    assert chunk.path_in_schema == "image.bytes"
    data[chunk.data_page_offset : chunk.data_page_offset + 2000] = bytes(2000)
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.parquet").write_bytes(bytes(data)[:-50])
    (tmp_path / "c.parquet").write_bytes(b"")
    refs = list_images(str(tmp_path))
    assert [ref.image_id for ref in refs if ref.reason] == ["b.parquet", "c.parquet"]
    assert all(ref.reason.startswith("damaged Parquet: ") for ref in refs if ref.reason)
    with ImageReader(files_of(str(tmp_path)), refs) as reader:
        for n, ref in enumerate(refs[:9]):
            if 3 <= n < 6:
                with pytest.raises(UnreadableImage, match="damaged Parquet: "):
                    reader.read(ref)
            else:
                assert reader.read(ref) == content(n)


@pytest.fixture
def memory() -> Iterator[pa.MemoryPool]:
    """A pool of Arrow's memory that counts what is allocated from here on."""
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(usual)


def test_of_a_row_group_of_2_gb_a_row_is_held_at_a_time(tmp_path: Path, memory: pa.MemoryPool) -> None:
    """A file of 551 bytes: Arrow does not read the group as a whole."""
    count, contents = 2200, [PNG + bytes([n]) + bytes(1 << 20) for n in range(2)]
    data = pa.DictionaryArray.from_arrays(np.arange(count, dtype=np.int32) % 2, pa.array(contents))
    images = pa.StructArray.from_arrays([data, pa.nulls(count, pa.string())], ["bytes", "path"])
    source = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": images}), source, row_group_size=count, store_schema=False)
    metadata = pq.read_metadata(source)
    assert metadata.num_row_groups == 1
    assert count * len(contents[0]) > 1 << 31
    refs = list_images(str(source))
    asked = [refs[n] for n in (0, 701, 700, count - 1)]
    with ImageReader(files_of(str(source)), asked) as reader:
        assert all(reader.read(ref) == contents[int(ref.offset or 0) % 2] for ref in asked)
    assert memory.max_memory() < 16 << 20


def test_of_a_damaged_row_group_the_rows_before_the_damage_are_read(tmp_path: Path) -> None:
    pages = {"use_dictionary": False, "data_page_size": 1, "write_batch_size": 5}
    data = bytearray(parquet_of(hugging_face(60), row_group_size=60, **pages))
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    half = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[half : half + 20_000] = bytes(20_000)
    (tmp_path / "x.parquet").write_bytes(data)
    refs = list_images(str(tmp_path))
    whole = 25  # half of 60 without what is left of a batch of 5
    with ImageReader(files_of(str(tmp_path)), refs) as reader:
        for n, ref in enumerate(refs[:whole]):
            assert reader.read(ref) == content(n)
        for ref in refs[whole + 5 :]:
            with pytest.raises(UnreadableImage, match=r"^damaged Parquet: "):
                reader.read(ref)


@pytest.mark.parametrize("order", [list(range(20)), list(range(20))[::-1], [7, 3, 7, 19, 3, 0]])
def test_rows_are_read_in_any_order(tmp_path: Path, order: list[int]) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet_of(hugging_face(20), row_group_size=9))
    refs = list_images(str(tmp_path))
    with ImageReader(files_of(str(tmp_path)), [refs[n] for n in order]) as reader:
        assert [reader.read(refs[n]) for n in order] == [content(n) for n in order]


def test_threads_may_read_a_container_together(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of(hugging_face(40), row_group_size=7))
    (tmp_path / "b.tar").write_bytes(tar_of([(f"{n:02}.jpg", content(n)) for n in range(40)]))
    refs = list_images(str(tmp_path))
    start = threading.Barrier(8)
    found: dict[str, bytes] = {}
    with ImageReader(files_of(str(tmp_path)), refs) as reader:

        def work(first: int) -> None:
            start.wait()
            found.update({ref.image_id: reader.read(ref) for ref in refs[first::8]})

        threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[ref.image_id] for ref in refs] == [content(n) for n in (*range(40), *range(40))]


# --- What a source can be ---


def test_numbered_files(tmp_path: Path) -> None:
    for n in (8, 9, 10, 11):
        (tmp_path / f"val-{n:03}.tar").write_bytes(tar_of([("a.jpg", content(n)), ("a.cls", b"1")]))
    refs = list_images(str(tmp_path / "val-{009..011}.tar"))
    assert [ref.image_id for ref in refs] == [f"val-{n:03}.tar/a.jpg" for n in (9, 10, 11)]
    with pytest.raises(ValueError, match=r"^source: .*/val-012.tar: no such file$"):
        list_images(str(tmp_path / "val-{009..012}.tar"))
    for n in range(2):
        (tmp_path / f"part-{n}").mkdir()
        (tmp_path / f"part-{n}/val.tar").write_bytes(tar_of([("a.jpg", content(n))]))
    refs = list_images(str(tmp_path / "part-{0..1}/val.tar"))
    assert [ref.image_id for ref in refs] == [f"part-{n}/val.tar/a.jpg" for n in range(2)]
    with pytest.raises(ValueError, match=r"^source: {3..1} counts down$"):
        list_images(str(tmp_path / "val-{3..1}.tar"))


def test_images_and_containers_in_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "b.tar").write_bytes(tar_of([]))
    with pytest.raises(ValueError, match=r"holds images \(a.jpg\) and .tar files \(b.tar\): name one kind"):
        list_images(str(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        "ftp://user:swordfish@host/x.tar",
        "ftp://user:cod/fish@host/x.tar",
        "s3://user:cod/fish@b/x",
        "https://user:cod/fish@host/x.tar",
        "s3://",
    ],
)
def test_other_addresses_are_refused_without_telling_secrets(source: str) -> None:
    with pytest.raises(ValueError, match=r"^source: expected ") as caught:
        list_images(source)
    assert "fish" not in str(caught.value)


def test_secrets_are_taken_out_of_addresses_and_messages() -> None:
    for address in ("s3://user:swordfish@b/x?k=swordfish", "https://user:swordfish@h/x.tar?token=swordfish"):
        assert "swordfish" not in without_secrets(address)
        assert "swordfish" not in one_line(OSError(f"failed: '{address}' (again)"))
    assert without_secrets("s3://user:swordfish@b/x?k=v") == "s3://b/x"
    for scheme in ("s3", "https"):
        assert without_secrets(f"{scheme}://user:cod/fish@b/x") == f"{scheme}://…"
    for address in ("https://h:8080/x", "http://[::1]:9/x", "https://[::1]/x", "file:///x"):
        assert without_secrets(address) == address
    for password in ("cod/fish", "cod@fish", "cod?fish"):
        assert "fish" not in one_line(OSError(f"Cannot parse URI: 's3://user:{password}@b/x'"))


def test_what_holds_no_secret_stays_as_it_is() -> None:
    for text in (
        "S3://bucket/x?region=eu-west-1&endpoint_override=host:9000",
        "gs://bucket/a@2/x",
        "https://h:8080/x@2.png",
        "file:///x",
        "photos/what?",
        "a:b@c",
    ):
        assert without_credentials(text) == text
    assert without_credentials("s3://user:swordfish@b/x?region=y") == "s3://b/x?region=y"
    assert without_credentials("https://h/x.png?token=swordfish") == "https://h/x.png"
    for address in (
        "s3://user:cod/fish@b/x",
        "s3://user:cod?fish@b/x",
        "s3://user?x:fish@b",
        "s3://u:f@fish@b",
    ):
        assert "fish" not in without_credentials(address)
        assert "fish" not in without_secrets(address)


@pytest.mark.parametrize(
    ("error", "kind", "tries"),
    [
        (OSError(errno.EIO, "Input/output error"), StorageError, 5),
        (OSError(errno.ESTALE, "Stale file handle"), StorageError, 5),
        (PermissionError(errno.EACCES, "Permission denied"), DeniedError, 1),
        (OSError(errno.ELOOP, "Too many levels of symbolic links"), LastingError, 1),
        (OSError("AWS Error ACCESS_DENIED during GetObject operation"), DeniedError, 1),
        (OSError("google::cloud::Status(PERMISSION_DENIED: no storage.objects.get)"), DeniedError, 1),
        (FileNotFoundError(errno.ENOENT, "No such file"), FileNotFoundError, 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    error: OSError, kind: type[OSError], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "FIRST_DELAY", 0.0)
    made = []

    def fail() -> None:
        made.append(1)
        raise error

    with pytest.raises(OSError, match=r"^the file: ") as caught:
        retried(fail, "the file")
    assert type(caught.value) is kind
    assert len(made) == tries


# --- Labels ---

# The first three images of the validation set: sea snake, alp, Shetland sheepdog.
VALIDATION = {1: ("n01751748", 490, 65), 2: ("n09193705", 361, 970), 3: ("n02105855", 171, 230)}


def validation_folder(folder: Path) -> Path:
    folder.mkdir()
    for n in VALIDATION:
        (folder / f"ILSVRC2012_val_{n:08}.JPEG").write_bytes(b"x")
    return folder


def kaggle_file(path: Path) -> Path:
    rows = [
        f"ILSVRC2012_val_{n:08},{synset} 85 1 499 272 {synset} 3 4 5 6 "
        for n, (synset, *_) in VALIDATION.items()
    ]
    path.write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))
    return path


def development_kit(folder: Path) -> Path:
    folder.mkdir()
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(number, synset, "words", 0) for synset, number, _ in VALIDATION.values()]
    table = np.array([*rows, (1001, "n00004258", "living thing", 5)], dtype=kinds)
    savemat(folder / "meta.mat", {"synsets": table[:, None]})
    path = folder / "ILSVRC2012_validation_ground_truth.txt"
    path.write_text("".join(f"{number}\n" for _, number, _ in VALIDATION.values()))
    return path


def test_the_validation_sets_labels_are_the_same_from_both_files(tmp_path: Path) -> None:
    folder = validation_folder(tmp_path / "val")
    expected = [(f"ILSVRC2012_val_{n:08}.JPEG", label) for n, (*_, label) in VALIDATION.items()]
    for labels in (kaggle_file(tmp_path / "LOC_val_solution.csv"), development_kit(tmp_path / "data")):
        assert labels_of(list_images(str(folder), str(labels))) == expected
    # As it is distributed: a tar of the same files.
    members = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(tar_of(members))
    refs = list_images(str(tmp_path / "ILSVRC2012_img_val.tar"), str(labels))
    assert labels_of(refs) == [(f"ILSVRC2012_img_val.tar/{name}", label) for name, label in expected]


def test_images_that_the_labels_do_not_name_have_a_reason(tmp_path: Path) -> None:
    folder = validation_folder(tmp_path / "val")
    labels = kaggle_file(tmp_path / "LOC_val_solution.csv")
    (folder / "other.JPEG").write_bytes(b"x")
    refs = list_images(str(folder), str(labels))
    assert [ref.reason for ref in refs] == [None, None, None, "no label in LOC_val_solution.csv"]
    (tmp_path / "others").mkdir()
    (tmp_path / "others/a.JPEG").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^labels: .*\.csv names none of the images .* first is a.JPEG"):
        list_images(str(tmp_path / "others"), str(labels))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("path,label\na.png,3\n", r"expected LOC_val_solution.csv .* found 'path,label'"),
        ("", "expected LOC_val_solution.csv .* found ''"),
        (
            "ImageId,PredictionString\na,n99999999 1 2 3 4\n",
            "a: expected an ILSVRC synset, found 'n99999999'",
        ),
        ("ImageId,PredictionString\na\n", "a: expected an ILSVRC synset, found ''"),
        ("ImageId,PredictionString\na,n01751748\na,n02105855\n", "a is there twice"),
        ("ImageId,PredictionString\n", "expected a line for each image after the first, found none"),
        ('ImageId,PredictionString\na,"n01751748 1\nb,n02105855\n', "not a CSV file: unexpected end of data"),
        ("490\nsea snake\n", "line 2: expected an ILSVRC2012_ID, found 'sea snake'"),
        ("490\n1001\n", "line 2: expected an ILSVRC2012_ID, found '1001'"),  # a group of synsets
    ],
)
def test_bad_label_files_are_one_line(tmp_path: Path, text: str, named: str) -> None:
    path = development_kit(tmp_path / "data")
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^labels: .*{named}") as caught:
        read_labels(str(path))
    assert "\n" not in str(caught.value)


def test_spaces_around_the_first_line_of_labels_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(" ImageId,PredictionString \r\na,n01751748 1 2 3 4\r\n")
    assert read_labels(str(tmp_path / "labels.csv")) == {"a": 65}


def test_missing_label_files_are_named(tmp_path: Path) -> None:
    path = development_kit(tmp_path / "data")
    with pytest.raises(ValueError, match=r"^labels: .*/absent.csv: no such file"):
        read_labels(str(tmp_path / "absent.csv"))
    (tmp_path / "data/meta.mat").write_bytes(b"not MATLAB")
    with pytest.raises(ValueError, match=r"^labels: .*/meta.mat: expected a table synsets"):
        read_labels(str(path))
    (tmp_path / "data/meta.mat").unlink()
    with pytest.raises(ValueError, match=r"^labels: .*/meta.mat: no such file"):
        read_labels(str(path))


# --- S3 ---


def test_a_folder_in_s3_with_labels_beside_it(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("n01440764/a.JPEG", "n02123045/b b.png", "loose.txt", ".hidden/c.png"):
        bucket.put(f"folder/{name}", name.encode())
    source = bucket.uri("bucket/folder")
    refs = list_images(source)
    assert labels_of(refs) == [("loose.txt", None), ("n01440764/a.JPEG", 0), ("n02123045/b b.png", 281)]
    assert [ref.uri for ref in refs] == [f"s3://bucket/folder/{ref.image_id}" for ref in refs]
    assert read_all(source, refs) == {ref.image_id: ref.image_id.encode() for ref in refs}
    path = validation_folder(tmp_path / "val") / f"ILSVRC2012_val_{1:08}.JPEG"
    bucket.put(f"val/{path.name}", path.read_bytes())
    bucket.put("kit/truth.txt", development_kit(tmp_path / "data").read_bytes())
    bucket.put("kit/meta.mat", (tmp_path / "data/meta.mat").read_bytes())
    refs = list_images(bucket.uri("bucket/val"), bucket.uri("bucket/kit/truth.txt"))
    assert labels_of(refs) == [(path.name, 65)]
    assert read_image(bucket.uri(f"bucket/val/{path.name}")) == b"x"


def test_a_tar_in_s3_is_opened_once_and_read_by_ranges(bucket: Bucket) -> None:
    bucket.put("tars/x.tar", tar_of([(f"{n}.jpg", content(n)) for n in range(6)]))
    source = bucket.uri("bucket/tars/x.tar")
    refs = list_images(source)
    bucket.log.clear()
    bucket.ranges.clear()
    assert list(read_all(source, refs[1:5]).values()) == [content(n) for n in range(1, 5)]
    assert [method for method, _ in bucket.log] == ["HEAD", *["GET"] * 4]
    assert bucket.ranges == [f"bytes={ref.offset}-{ref.offset + len(content(0)) - 1}" for ref in refs[1:5]]


def test_parquet_in_s3_is_read_by_row_groups(bucket: Bucket) -> None:
    data = parquet_of(hugging_face(60), row_group_size=10)
    bucket.put("hf/data/val.parquet", data)
    source = bucket.uri("bucket/hf")
    refs = list_images(source)
    bucket.log.clear()
    bucket.ranges.clear()
    some = [refs[n] for n in (21, 55, 28, 20)]  # of two row groups
    assert list(read_all(source, some).values()) == [content(n) for n in (21, 55, 28, 20)]
    assert [method for method, _ in bucket.log].count("HEAD") == 1
    bounds = [span.removeprefix("bytes=").split("-") for span in bucket.ranges]
    read = sum(int(last) - int(first) + 1 for first, last in bounds)
    assert read < len(data) / 3 + (1 << 16)  # two groups of six, and what is read of the end for the footer


def test_a_store_that_fails_for_a_while_is_outlasted(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "FIRST_DELAY", 0.01)
    bucket.put("flaky/a.jpg", b"a")
    bucket.put("flaky/b/x.tar", tar_of([("a.jpg", content(0))]))
    bucket.put("flaky/b/y.parquet", parquet_of(hugging_face(1)))
    source = bucket.uri("bucket/flaky/b")
    bucket.failures = 4
    refs = [*list_images(source), ImageRef("a", "s3://bucket/flaky/a.jpg", None)]
    assert bucket.failures == 0
    # As a worker has it: with a client that tries three times, not ten.
    files = pickle.loads(pickle.dumps(files_of(source)))
    with ImageReader(files, refs) as reader:
        for ref, data in zip(refs, (content(0), content(0), b"a"), strict=True):
            bucket.failures = 4
            assert reader.read(ref) == data
            assert bucket.failures == 0


def test_a_store_that_keeps_failing_is_not_blamed_on_the_images(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "ATTEMPTS", 1)
    bucket.put("broken/y.parquet", parquet_of(hugging_face(1)))
    refs = [*list_images(bucket.uri("bucket/broken")), ImageRef("y", "s3://bucket/broken/y.parquet", None)]
    files = pickle.loads(pickle.dumps(files_of(bucket.uri("bucket/broken"))))
    with ImageReader(files, refs) as reader:
        for ref in refs:
            bucket.failures = 10_000
            with pytest.raises(
                StorageError, match=r"^s3://bucket/broken/y.parquet: .*1 attempt\)$"
            ) as caught:
                reader.read(ref)
            bucket.failures = 0
            assert "swordfish" not in str(caught.value)
            assert "endpoint_override" not in str(caught.value)


def test_missing_objects_are_told_from_missing_sources(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match=r"^source: no folder 's3://bucket/absent'"):
        list_images(bucket.uri("bucket/absent"))
    with pytest.raises(ValueError, match=r"^source: s3://bucket/absent.tar: no such file$"):
        list_images(bucket.uri("bucket/absent.tar"))
    with pytest.raises(UnreachableImage, match=r"bucket/absent.jpg: no such file"):
        read_image(bucket.uri("bucket/absent.jpg"))


def test_what_a_store_does_not_give_now_is_no_fault_of_the_images(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone, denied and cut short: and all is read once it is over. Lengths are those of the listing."""
    monkeypatch.setattr(stores, "FIRST_DELAY", 0.01)
    bucket.put("reach/files/a.jpg", content(0))
    bucket.put("reach/tars/x.tar", tar_of([("a.jpg", content(1))]))
    sources = [bucket.uri("bucket/reach/files"), bucket.uri("bucket/reach/tars")]
    listed = [(source, list_images(source)) for source in sources]
    assert [ref.size for _, refs in listed for ref in refs] == [len(content(0)), len(content(1))]
    bucket.faulty = "/bucket/reach/"
    for number, (source, refs) in enumerate(listed):
        for fault, told in (("away", "no such file"), ("denied", "ACCESS_DENIED"), ("cut", "bytes")):
            bucket.fault = fault
            with ImageReader(files_of(source), refs) as reader:
                with pytest.raises(UnreachableImage, match=rf"^s3://bucket/reach/.*{told}"):
                    reader.read(refs[0])
                bucket.fault = ""
                assert reader.read(refs[0]) == content(number)


def test_a_picture_that_was_replaced_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"first")
    (ref,) = list_images(str(tmp_path))
    assert ref.size == 5
    with ImageReader(files_of(str(tmp_path)), [ref]) as reader:
        assert reader.read(ref) == b"first"
    digests = reader.digests
    assert digests == {"a.png": hashlib.blake2b(b"first", digest_size=16).hexdigest()}
    selected = replace(ref, digest=digests["a.png"])
    with ImageReader(files_of(str(tmp_path)), [selected]) as reader:
        assert reader.read(selected) == b"first"
        (tmp_path / "a.png").write_bytes(b"other")
        with pytest.raises(ReplacedImage, match=r"a.png: not the image that was selected"):
            reader.read(selected)
        (tmp_path / "a.png").write_bytes(b"longer")
        with pytest.raises(UnreachableImage, match=r"6 bytes, 5 when it was listed: cut short, or replaced"):
            reader.read(selected)


# --- The web ---


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    folder = tmp_path / "served"
    folder.mkdir()
    web = Web(folder)
    thread = threading.Thread(target=web.server.serve_forever)
    thread.start()
    for n in range(2):
        (folder / f"val-{n}.tar").write_bytes(tar_of([("a.jpg", content(n)), ("a.cls", b"4")]))
    (folder / "val.parquet").write_bytes(parquet_of(hugging_face(6), row_group_size=2))
    yield web
    web.server.shutdown()
    thread.join()
    web.server.server_close()


def test_containers_on_the_web(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "FIRST_DELAY", 0.001)
    for path, count in (("val-{0..1}.tar", 2), ("val.parquet", 6)):
        source = web.address(path)
        web.failures = 3
        refs = list_images(source)
        assert all("swordfish" not in ref.uri and ref.uri.startswith("http://127.0.0.1:") for ref in refs)
        assert [ref.label for ref in refs] == ([4, 4] if count == 2 else [0, 1, 2, 3, 4, 0])
        web.failures = 3
        files = pickle.loads(pickle.dumps(files_of(source)))
        with ImageReader(files, refs) as reader:
            assert [reader.read(ref) for ref in refs] == [content(n) for n in range(count)]


def test_what_the_web_refuses_is_one_line_without_secrets(web: Web) -> None:
    for address, named in (
        (web.address("absent.tar"), "no such file"),
        (web.address("val-0.tar", "wrong-swordfish"), "403"),
        (web.address("folder"), "no folder 'http://127.0.0.1"),
    ):
        with pytest.raises((ValueError, OSError), match=named) as caught:
            list_images(address)
        assert "swordfish" not in str(caught.value)
        assert "\n" not in str(caught.value)

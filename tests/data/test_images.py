import csv
import io
import os
import struct
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from riemannopt_dist.data.decoding import decode_image, prepare_image
from riemannopt_dist.data.errors import UnreachableImage, UnreadableImage
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.image_files import encoded, read_image


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def pixels(data: bytes) -> list[list[list[int]]]:
    """Rows of RGB triples of a decoded file."""
    image = decode_image(data)
    assert image.mode == "RGB"
    values: list[list[list[int]]] = np.asarray(image).tolist()
    return values


def grey(*values: int) -> list[list[list[int]]]:
    return [[[value] * 3 for value in values]]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


# --- Listing ---


def test_labels_are_ranks_among_all_synsets_at_any_depth(tmp_path: Path) -> None:
    # ILSVRC: n01440764 is class 0 (tench), n02123045 281 (tabby), n15075141 999 (toilet tissue).
    for name in ["val/n15075141/c.JPEG", "val/n01440764/b.JPEG", "n02123045/a.png", "loose.png"]:
        touch(tmp_path / name)
    refs = list_images(str(tmp_path))
    assert [(ref.image_id, ref.label) for ref in refs] == [
        ("loose.png", None),
        ("n02123045/a.png", 281),
        ("val/n01440764/b.JPEG", 0),
        ("val/n15075141/c.JPEG", 999),
    ]
    assert all(ref.reason is None and Path(ref.uri).read_bytes() == b"x" for ref in refs)
    assert [ref.label for ref in list_images(str(tmp_path / "val" / "n15075141"))] == [999]


def test_a_folder_like_a_synset_that_is_none_gives_a_reason(tmp_path: Path) -> None:
    touch(tmp_path / "n99999999" / "a.png")
    (ref,) = list_images(str(tmp_path))
    assert ref.label is None
    assert ref.reason == "folder n99999999 is not one of the 1,000 ILSVRC synsets"


def test_hidden_files_are_passed_over_and_others_listed(tmp_path: Path) -> None:
    for name in ["b.png", "a.txt", ".DS_Store", ".cache/c.png"]:
        touch(tmp_path / name)
    assert [ref.image_id for ref in list_images(str(tmp_path))] == ["a.txt", "b.png"]


def test_uris_hold_in_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    (ref,) = list_images("photos")
    assert ref == ImageRef("a.png", str(tmp_path / "photos" / "a.png"), None, size=1)
    monkeypatch.chdir("/")
    assert read_image(ref.uri) == b"x"


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "n01440764").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    refs = list_images(str(tmp_path / "photos"))
    assert [(ref.image_id, ref.label) for ref in refs] == [("n01440764/a.png", 0)]


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/a.png", b"caf\xe9.jpg/a.png", b"caf\xe9.tar"])
def test_a_file_name_that_is_not_utf8_gives_a_reason(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    try:
        touch(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    touch(tmp_path / ("b.tar" if path.suffix == ".tar" else "b.png"))
    refs = list_images(str(tmp_path))
    escaped = name.replace(b"\xe9", b"\\xe9").decode()
    assert {ref.image_id: ref.reason for ref in refs}[escaped] == "file name is not UTF-8"
    assert {ref.image_id: ref.uri for ref in refs}[escaped] == f"{tmp_path}/{escaped}"
    assert all("UTF-8" not in str(ref.reason) for ref in refs if "xe9" not in ref.image_id)
    RunDirectory(Storage(tmp_path / "run")).write_listing(refs)


def test_missing_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^source: no folder '.*/absent' "):
        list_images(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"^source: no files in"):
        list_images(str(tmp_path))


def test_demo_photos_are_colour_photos() -> None:
    refs = list_images("demo:")
    assert len(refs) >= 8
    assert {"astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"} <= {ref.image_id for ref in refs}
    for ref in refs:
        values = np.asarray(decode_image(read_image(ref.uri))).astype(int)
        assert min(values.shape[:2]) >= 224
        assert values.std() > 10
        assert np.abs(values - values.mean(axis=2, keepdims=True)).max() > 10


# --- Decoding: files with known pixels ---


def test_rgb_and_grey() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [250, 251, 252]]], dtype=np.uint8))
    assert pixels(encoded(image, "PNG")) == [[[1, 2, 3], [250, 251, 252]]]
    assert pixels(encoded(Image.fromarray(np.array([[0, 7, 255]], dtype=np.uint8)), "PNG")) == grey(0, 7, 255)
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixels(encoded(bits, "PNG")) == grey(0, 255)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    deep = Image.fromarray(np.array([[0, 257, 256 * 128, 65535]], dtype=np.uint16))
    assert pixels(encoded(deep, format)) == grey(0, 1, 128, 255)  # 32768 / 257 = 127.5 → 128


def test_floating_point_grey_is_a_fraction() -> None:
    image = Image.fromarray(np.array([[0.0, 0.2, 1.0]], dtype=np.float32))
    assert pixels(encoded(image, "TIFF")) == grey(0, 51, 255)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_floating_point_outside_the_range_is_refused(value: float) -> None:
    image = Image.fromarray(np.array([[0.5, value]], dtype=np.float32))
    with pytest.raises(UnreadableImage, match=r"outside \[0, 1\]"):
        decode_image(encoded(image, "TIFF"))


def test_transparency_is_seen_over_black() -> None:
    rgba = Image.fromarray(np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], dtype=np.uint8))
    assert pixels(encoded(rgba, "PNG")) == [[[200, 100, 50], [0, 0, 0]]]
    grey_alpha = Image.merge("LA", (Image.new("L", (1, 1), 255), Image.new("L", (1, 1), 51)))
    assert pixels(encoded(grey_alpha, "PNG")) == grey(51)


def bmp_of(pixels: list[tuple[int, int, int, int]], alpha_mask: int) -> bytes:
    """A BMP of one row with 32 bits a pixel, blue, green, red, alpha, whose header says what they are."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, alpha_mask)
    size = (len(pixels), 1)
    # BITMAPV4HEADER: 108 bytes, 1 plane, 32 bits, BI_BITFIELDS, masks, sRGB.
    header = struct.pack("<IiiHHIIiiII", 108, *size, 1, 32, 3, 4 * len(pixels), 0, 0, 0, 0)
    header += masks + b"BGRs" + bytes(48)
    rows = b"".join(struct.pack("4B", blue, green, red, alpha) for red, green, blue, alpha in pixels)
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + rows


@pytest.mark.parametrize("alpha_mask", [0, 0xFF000000])
def test_an_alpha_channel_of_a_bmp_that_is_empty_is_unused(alpha_mask: int) -> None:
    assert pixels(bmp_of([(200, 100, 50, 0), (1, 2, 3, 0)], alpha_mask)) == [[[200, 100, 50], [1, 2, 3]]]


def test_an_alpha_channel_of_a_bmp_that_is_used_is_seen_over_black() -> None:
    data = bmp_of([(200, 100, 50, 255), (200, 100, 50, 0), (200, 100, 50, 51)], 0xFF000000)
    assert pixels(data) == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_a_fourth_channel_of_a_tiff_is_alpha_where_it_says_so() -> None:
    rgba = Image.fromarray(np.array([[[200, 100, 50, 0]]], dtype=np.uint8))
    data = encoded(rgba, "TIFF")
    assert pixels(data) == [[[0, 0, 0]]]
    entry = struct.pack("<HHI", 338, 3, 1)  # ExtraSamples, one short
    assert data.count(entry) == 1
    place = data.index(entry)
    unspecified = data[: place + 8] + struct.pack("<H", 0) + data[place + 10 :]
    private = data[:place] + struct.pack("<H", 65000) + data[place + 2 :]  # no ExtraSamples
    assert pixels(unspecified) == pixels(private) == [[[200, 100, 50]]]


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_alpha_channel_that_is_empty_is_seen_where_the_format_knows_it(format: str) -> None:
    rgba = Image.fromarray(np.array([[[200, 100, 50, 0]]], dtype=np.uint8))
    assert pixels(encoded(rgba, format, lossless=True, exact=True)) == [[[0, 0, 0]]]


def test_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG")) == [[[10, 20, 30], [200, 100, 50]]]
    assert pixels(encoded(image, "PNG", transparency=0)) == [[[0, 0, 0], [200, 100, 50]]]


def test_cmyk_jpeg() -> None:
    # Full cyan ink leaves no red; the colour is (0, 255, 255) up to JPEG's rounding.
    data = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=95)
    assert np.abs(np.array(pixels(data)) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    red, blue = Image.new("RGB", (2, 2), (255, 0, 0)), Image.new("RGB", (2, 2), (0, 0, 255))
    data = encoded(red, format, save_all=True, append_images=[blue], loop=0, lossless=True)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert pixels(data) == [[[255, 0, 0]] * 2] * 2


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode_image(encoded(noise(6, 4), "JPEG", exif=exif)).size == (6, 4)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


LONG = zlib.compress(bytes(64 << 20))
METADATA = {
    "text": png_chunk(b"tEXt", b"a\0" + b"b" * 999_000),
    "compressed text": png_chunk(b"zTXt", b"a\0\0" + LONG),
    "international text": png_chunk(b"iTXt", b"a\0\1\0\0\0" + LONG),
    "colour profile": png_chunk(b"iCCP", b"a\0\0" + LONG),
    "unknown compression": png_chunk(b"zTXt", b"a\0\7" + zlib.compress(b"b")),
    "wrong checksum": png_chunk(b"tEXt", b"a\0b")[:-4] + bytes(4),
    "cut off pHYs": png_chunk(b"pHYs", b"a"),
    "empty profile": png_chunk(b"iCCP", b""),
    "text that calls itself transparency": png_chunk(b"tEXt", b"transparency\0a"),
    "private": png_chunk(b"prVt", bytes(2 << 20)),
}


@pytest.mark.parametrize("kind", METADATA)
def test_pixels_of_a_png_do_not_depend_on_its_metadata(kind: str) -> None:
    data = encoded(noise(20, 10), "PNG")
    end = data.index(b"IEND") - 4
    expected = pixels(data)
    metadata = METADATA[kind] * (70 if kind == "text" else 1)  # 64 MB is what Pillow takes
    tracemalloc.start()
    assert pixels(data[:33] + metadata + data[33:]) == expected
    assert pixels(data[:end] + metadata + data[end:]) == expected
    assert pixels(data[:end] + metadata[:-6]) == expected  # cut off where only metadata are
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(metadata) + (4 << 20)


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_transparency_of_a_png_is_kept_without_its_metadata(mode: str) -> None:
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), {"L": 9, "P": 1, "RGB": (9, 9, 9)}[mode])
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    data = encoded(image, "PNG", transparency={"L": 9, "P": 1, "RGB": (9, 9, 9)}[mode])
    assert pixels(data) == grey(0, 0)
    assert pixels(encoded(image, "PNG")) == grey(0, 9)


@pytest.mark.parametrize("format", ["JPEG", "TIFF", "WEBP", "GIF", "JPEG2000"])
def test_large_metadata_of_other_formats_are_no_damage(format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a" * 50_000
    options = {
        "icc_profile": bytes(3 << 20),
        "comment": b"b" * (60_000 if format.startswith("JPEG") else 3 << 20),
    }
    plain, laden = encoded(noise(9, 9), format), encoded(noise(9, 9), format, exif=exif, **options)
    assert len(laden) > len(plain) + 50_000
    assert pixels(laden) == pixels(plain)


# --- Decoding: bad files ---


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"path,label\na.png,3\n", "not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8), "damaged|not an image"),
        (encoded(noise(64, 64), "JPEG")[:1500], "damaged: .*truncated"),
        (encoded(noise(64, 64), "PNG")[:1500], "damaged: .*truncated"),
        (encoded(noise(64, 64), "TIFF")[:200], "damaged|not an image"),
        (encoded(Image.new("1", (10_000, 10_000)), "PNG"), "too large"),
        (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "too large"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    ],
    ids=["empty", "text", "header", "jpeg", "png", "tiff", "large", "bomb", "program"],
)
def test_bad_files_give_a_short_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_large_image_is_refused_whatever_the_warning_filter() -> None:
    with pytest.raises(UnreadableImage, match="too large: 10000 × 10000 pixels"):
        decode_image(encoded(Image.new("1", (10_000, 10_000)), "PNG"))


def test_what_cannot_be_read_gives_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UnreachableImage, match="no such file"):
        read_image(str(tmp_path / "absent.png"))
    with pytest.raises(UnreadableImage, match="not a regular file"):
        read_image(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableImage, match="not a regular file"):
        read_image(str(tmp_path / "pipe"))


def test_a_file_without_permission_gives_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(noise(8, 8), "PNG"))
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # who may read everything, and may become nobody for a while
            os.seteuid(65534)
        with pytest.raises(UnreachableImage, match="Permission denied"):
            read_image(str(path))
    finally:
        os.seteuid(user)


def test_decoding_in_threads_equals_decoding_in_turn() -> None:
    files = [
        encoded(noise(40 + i, 60), format) for i in range(8) for format in ("JPEG", "PNG", "GIF", "TIFF")
    ]
    files += [b"text", b""]
    start = threading.Barrier(8)

    def decode(data: bytes) -> bytes | str:
        try:
            return decode_image(data).tobytes()
        except UnreadableImage as error:
            return str(error)

    def decode_all(_: int) -> list[bytes | str]:
        start.wait()
        return [decode(data) for data in files]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(decode_all, range(8)))
    expected = [decode(data) for data in files]
    assert all(result == expected for result in results)


# --- Preparation ---


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (100, 97), (1, 1), (1411, 640)])
@pytest.mark.parametrize(("input_size", "resize_size"), [(224, 256), (299, 342), (224, 224), (33, 40)])
def test_prepared_as_torchvision_does(size: tuple[int, int], input_size: int, resize_size: int) -> None:
    image = noise(*size)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    preset = ImageClassification(crop_size=input_size, resize_size=resize_size, mean=mean, std=std)
    prepared = prepare_image(image, input_size, resize_size)
    assert prepared.dtype == torch.float32
    assert prepared.shape == (3, input_size, input_size)
    assert torch.equal(prepared, preset(image))


def test_preparation_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="input_size: expected 1 to resize_size = 32, got 64"):
        prepare_image(noise(9, 9), 64, 32)
    with pytest.raises(UnreadableImage, match="too elongated: 5000 × 1 pixels"):
        prepare_image(noise(5000, 1), 224, 256)


@pytest.mark.imagenet
@pytest.mark.skipif("IMAGENET_DIR" not in os.environ, reason="IMAGENET_DIR is not set")
def test_imagenet_labels_agree_with_the_manifest() -> None:
    folder = Path(os.environ["IMAGENET_DIR"])
    if not (folder / "manifest.csv").is_file():
        pytest.skip("IMAGENET_DIR holds no manifest.csv with path and class_index")
    with (folder / "manifest.csv").open(newline="") as file:
        known = {row["path"]: int(row["class_index"]) for row in csv.DictReader(file)}
    listed = {ref.image_id: ref.label for ref in list_images(str(folder))}
    assert known
    assert {path: listed.get(path) for path in known} == known

"""Small inputs that want much memory or time: a short form of benchmarks/bombs.py, and where limits lie."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.bombs import ALLOWED, outcomes
from riemannopt_dist.data.decoding import decode_image
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.parquet import damage
from riemannopt_dist.testing.image_files import encoded

LONG_HEADER = "after 0 images: a header of 3221225472 bytes, expected at most 1048576"
TOLD = {
    "two 16-bit PNG": "2 × decoded",
    "Parquet, a value in 16 rows": "16 × too large: 157286404 bytes",
    "Parquet, one long value": " bytes of images in row group 0 expand to 300000037",
    "Parquet, nulls": "1 × too many rows: 30000000 in 129589 bytes (expected at least 64 bytes a row ",
    "Parquet, nested labels": "1 × column label is of type list<element: int8>, no label",
    "tar, long name": LONG_HEADER,
    "tar, pax header": LONG_HEADER,
    "web, endless": ": the server sends more than the 1048576 bytes asked for (1 attempt)",
    "web, endless redirection": ": Exceeded 30 redirects. (1 attempt)",
    "web, dripping": ": the server took more than 3 s for 1048576 bytes (1 attempt)",
    "web, dripping headers": ": the server took more than 2 s for 0 bytes (1 attempt)",
    "YAML, aliases": "expected at most 10000 values, those that aliases stand for included, line 5, ",
    "YAML, long": "expected at most 1048576 characters, got 15000005",
}


LARGE = ("two 16-bit PNG", "Parquet, a value in 16 rows", "Parquet, one long value", "Parquet, nulls")
"""Those that take seconds to make."""


@pytest.mark.parametrize("large", [False, pytest.param(True, marks=pytest.mark.long)])
def test_what_is_small_takes_little_and_is_told_in_a_line(large: bool, tmp_path: Path) -> None:
    found = outcomes([name for name in TOLD if (name in LARGE) == large], tmp_path)
    assert all(one.size < 16 << 20 for one in found)
    for one in found:
        assert TOLD[one.name] in one.told
    assert found[-1].peak < ALLOWED


def test_rows_are_as_many_as_the_bytes_of_a_file_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "FREE_ROWS", 100)
    options = {"use_dictionary": False, "compression": "none"}
    for name, count, each in (("a", 100, 0), ("b", 1000, 0), ("c", 1000, damage.BYTES_A_ROW)):
        table = pa.table({"image": [bytes(each)] * count})
        pq.write_table(table, tmp_path / f"{name}.parquet", write_statistics=False, **options)
    refs = list_images(str(tmp_path))
    assert len(refs) == 100 + 1 + 1000
    (refused,) = (ref for ref in refs if ref.reason)
    assert (refused.image_id, (refused.reason or "").split(" in ")[0]) == ("b.parquet", "too many rows: 1000")


def test_strips_are_seams_that_nobody_sees() -> None:
    """Images of several strips, each kind of conversion, against the same arithmetic in one piece."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (1100, 1900, 4), dtype=np.uint8)  # strips of 551 rows
    deep = rng.integers(0, 65536, colours.shape[:2], dtype=np.uint16)
    transparent = Image.fromarray(colours)
    black = Image.new("RGBA", transparent.size, (0, 0, 0, 255))
    over_black = np.asarray(Image.alpha_composite(black, transparent).convert("RGB"))
    for image, expected in (
        (Image.fromarray(deep), np.rint(deep / 257)[..., None].repeat(3, 2)),
        (transparent, over_black),
        (Image.fromarray(colours[..., 0]), colours[..., :1].repeat(3, 2)),
        (Image.fromarray(colours[..., :3]), colours[..., :3]),
    ):
        assert np.array_equal(np.asarray(decode_image(encoded(image, "PNG", compress_level=0))), expected)

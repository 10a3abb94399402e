"""Inputs of whole runs on a real Ray: damage is accounted for, listing is done once, no secret is kept."""

import io
import os
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from riemannopt_dist.commands import app
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.image_files import encoded
from riemannopt_dist.testing.s3_server import serving
from riemannopt_dist.testing.small_world import PICTURES, make_pictures, small_fields

GOOD = 60


pytestmark = pytest.mark.usefixtures("ray_here")


def short_config(images: str | Path, output: Path, **changes: Any) -> Config:
    """One cell, few images: it is the selection that matters."""
    block = {"placements": ["linear"], "estimators": ["left"], "samples": [2]}
    fields = {"grid": [block], "fit": {"images": 2, "samples": 2}, "limit": 3, "shard_size": 16, **changes}
    return make_config(small_fields(Path(), output, **fields) | {"images": str(images)}, "test")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + end


def add_damage(folder: Path) -> dict[str, str]:
    """Damaged inputs of every kind, with the beginnings of the reasons they should get."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    not_a_number = Image.fromarray(np.full((12, 12), np.nan, dtype=np.float32))
    files = {
        "truncated.jpg": (encoded(photo, "JPEG")[:1000], "damaged: "),
        "truncated.png": (encoded(photo, "PNG")[:5000], "damaged: "),
        "empty.png": (b"", "empty file"),
        "text.png": (b"not an image", "not an image of a known format"),
        "notes.txt": (b"notes", "not an image of a known format"),
        "archive.jpg": (b"PK\x03\x04" + bytes(500), "not an image of a known format"),
        "program.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "not an image of a known format",
        ),
        "nan.tiff": (encoded(not_a_number, "TIFF"), "pixel values outside [0, 1]"),
        "huge.png": (png_header(100_000, 100_000), "too large: "),
        "hollow.png": (png_header(12, 12), "damaged: "),
        "n99999999/unknown.png": (encoded(photo, "PNG"), "folder n99999999 is not one of"),
    }
    for name, (data, _) in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    with (folder / "endless.png").open("wb") as file:
        file.truncate(100 << 30)  # of holes: no disk is needed
    reasons = {name: reason for name, (_, reason) in files.items()} | {
        "folder.jpg": "a folder, not a file",
        "dangling.png": "UnreachableImage: ",
        "circle.png": "cannot be read: ",
        "pipe.png": "cannot be read: not a regular file",
        "endless.png": "cannot be read: too large: 107374182400 bytes",
    }
    (folder / "secret.png").write_bytes(encoded(photo, "PNG"))
    (folder / "secret.png").chmod(0)
    if not os.access(folder / "secret.png", os.R_OK):  # the superuser reads it all the same
        reasons["secret.png"] = "UnreachableImage: "
    return reasons


def test_damage_of_every_kind_is_accounted_for(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", GOOD)
    (folder / "p00.png").rename(folder / "p00.txt")  # what counts is the content
    reasons = add_damage(folder)
    # What a link leads to may come back: such images are waited for, and given up on until the next time.
    means = {"patience": 0.5, "max_given_up": 0.1}
    directory = evaluate(short_config(folder, tmp_path / "run", scaling=means))
    images = directory.read_images()
    assert images is not None
    assert len(reasons) / len(images) >= 0.05
    errors = {row["image_id"]: row["error"] for row in images if row["error"] is not None}
    assert set(errors) == set(reasons)
    assert all(errors[name].startswith(reason) for name, reason in reasons.items()), errors
    assert all("\n" not in error and len(error) < 200 for error in errors.values())
    for row in images:
        assert row["selected"] == (row["error"] is None)  # without labels there is no wrong class
    assert {f"p{n:02}.png" for n in range(1, GOOD)} | {"p00.txt"} <= {r["image_id"] for r in images} - set(
        errors
    )
    given_up = {failure.image_id for failure in directory.read_failures()}
    assert given_up == {name for name, reason in reasons.items() if reason == "UnreachableImage: "}
    assert list(problems(directory)) == []
    shown = CliRunner().invoke(app, ["summarize", str(tmp_path / "run")])
    usable = len(images) - len(errors)
    said = " ".join(shown.output.split())
    unread = len(errors) - len(given_up)
    assert f"{usable} usable, {unread} left out ({unread} unreadable or without a valid label)" in said
    assert f"{len(given_up)} images given up on: see " in said


def tar_of(pictures: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(pictures.iterdir()):
            archive.add(path, path.name)
    return buffer.getvalue()


@pytest.mark.long
def test_a_run_on_s3_keeps_to_its_listing_and_keeps_no_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = make_pictures(tmp_path / "pictures")
    output = tmp_path / "run"
    with serving() as bucket:
        bucket.put("run #1: 100%/a.tar", tar_of(pictures))
        source = bucket.uri("bucket/run%20%231:%20100%25")
        images = evaluate(short_config(source, output, shard_size=4)).read_images()
        # What comes later is no part of the run, and other credentials are no other configuration.
        bucket.put("run #1: 100%/b.tar", tar_of(pictures))
        (output / "images.parquet").unlink()
        (output / "selection/shard-00001.parquet").unlink()
        again = short_config(source.replace("swordfish", "codfish"), output, shard_size=4)
        directory = evaluate(again)
    assert directory.read_images() == images
    assert list(problems(directory)) == []

    model = load_model(again.model.name)
    assert [row["image_id"] for row in images or []] == [f"a.tar/p{n:02}.png" for n in range(PICTURES)]
    for row, path in zip(images or [], sorted(pictures.iterdir()), strict=True):
        tensor = read_tensor(ImageRef(path.name, str(path), None), model)
        probability, prediction = model(tensor[None]).softmax(dim=1).max(dim=1)
        assert row["prediction"] == int(prediction)
        assert row["probability"] == pytest.approx(float(probability), rel=1e-5)
        assert row["uri"] == "s3://bucket/run %231: 100%25/a.tar"

    assert directory.storage.read_json("run.json")["config"]["images"] == "s3://bucket/run%20%231:%20100%25"
    files = [path for path in output.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for secret in (b"swordfish", b"codfish", b"endpoint_override"):
        assert not [path for path in files if secret in path.read_bytes()]
        assert secret.decode() not in caplog.text


@pytest.mark.long
def test_a_store_that_fails_and_lags_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Images, results and everything else in a bucket: every fifth request fails, the next one is slow."""
    pictures = make_pictures(tmp_path / "pictures")
    plain = evaluate(short_config(pictures, tmp_path / "run"))
    with serving() as bucket:
        for path in pictures.iterdir():
            bucket.put(f"pictures/{path.name}", path.read_bytes())
        bucket.trouble = 5
        output = bucket.uri("bucket/runs/%231%3F%20é")
        config = short_config(bucket.uri("bucket/pictures"), output)
        directory = evaluate(config)
        troubles = len(bucket.log) // bucket.trouble
        found = list(problems(directory))
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in directory.shard_rows("results")]
        bucket.trouble = 0
        for command in ("status", "verify", "summarize"):
            # An address with a password is taken from the environment alone.
            ended = CliRunner().invoke(app, [command], env={"RIEMANNOPT_OUTPUT": output})
            assert ended.exit_code == 0, ended.output
        assert Storage(bucket.uri("bucket/runs")).exists("#1? é/run.json")
        content = b"".join(directory.storage.read_bytes(name) for name in directory.storage.list())
    assert troubles > 10
    assert found == []
    expected = [{k: v for k, v in row.items() if k != "seconds"} for row in plain.shard_rows("results")]
    assert rows == expected
    assert b"swordfish" not in content
    assert "swordfish" not in caplog.text

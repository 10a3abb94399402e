"""Small inputs that want much memory or time: what a worker, the listing or the configuration makes of each.

Each is tried in a process of its own. Printed are its bytes, the peak memory beyond that of the process with
its model loaded, the seconds it took, and what is said about it.

    python -m benchmarks.bombs [NAME …]
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from riemannopt_dist.data import web
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.config.yaml_text import parse_yaml
from riemannopt_dist.run.stages.batches import image_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.storage import errors as stores

ALLOWED = 2 << 30
"""Bytes beyond the model's that a worker may take for any small input."""
SIDE = 9459
"""Of the largest square image that is decoded."""


@dataclass(frozen=True)
class Bomb:
    """How one is made in a folder, and what is done with it there; that gives what is said about it."""

    make: Callable[[Path], None]
    meet: Callable[[Path], str]


@dataclass(frozen=True)
class Outcome:
    """What came of one: its bytes, the peak of memory beyond the model's, the seconds, and what was said."""

    name: str
    size: int
    peak: int
    seconds: float
    told: str


def outcomes(names: Sequence[str], folder: Path) -> list[Outcome]:
    """Make bombs in `folder` and meet them in a process, one after the other: peaks are those so far."""
    from riemannopt_dist.run.allocator import KEEP_MEMORY  # late: who meets them does without Ray

    sizes = []
    for n, name in enumerate(names):
        (folder / f"{n}").mkdir(parents=True)
        BOMBS[name].make(folder / f"{n}")
        files = (path for path in (folder / f"{n}").iterdir())
        sizes.append(sum(path.stat().st_blocks * 512 for path in files))
    command = [sys.executable, "-m", "benchmarks.bombs", "--meet", str(folder), *names]
    environment = {**os.environ, **KEEP_MEMORY}  # as workers have it
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = zip(names, sizes, ended.stdout.splitlines(), strict=True)
    return [Outcome(name, size, **json.loads(line)) for name, size, line in found]


def meet(names: Sequence[str], folder: Path) -> Iterator[dict[str, object]]:
    """Meet bombs in this process, which has loaded a model; what comes of each."""
    load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    before = _peak()
    for n, name in enumerate(names):
        start = time.monotonic()
        told = BOMBS[name].meet(folder / f"{n}")
        yield {"peak": _peak() - before, "seconds": time.monotonic() - start, "told": told}


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) << 10


# --- What is done with them ---


def _read(source: str) -> str:
    """List a source, and read and decode its images as a worker does."""
    refs = list_images(source)
    model = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    engine = Engine(model, torch.device("cpu"), files_of(source), 8, Tally())
    told: dict[str, int] = {}
    for _, outcomes in image_batches(refs, engine, 8):
        for found in outcomes:
            words = str(found) if isinstance(found, UnreadableImage) else "decoded"
            told[words] = told.get(words, 0) + 1
    return "; ".join(f"{count} × {words}" for words, count in told.items())


def _read_folder(folder: Path) -> str:
    return _read(str(folder))


def _read_web(handler: type[BaseHTTPRequestHandler]) -> Callable[[Path], str]:
    def attack(folder: Path) -> str:
        stores.ATTEMPTS, web.SECONDS, web.SLOWEST = 1, 2.0, 1 << 20  # so that it does not take minutes
        with _served(handler) as address:
            try:
                return _read(address)
            except OSError as error:
                return str(error)

    return attack


def _parse(folder: Path) -> str:
    try:
        parse_yaml((folder / "config.yaml").read_text())
    except ValueError as error:
        return str(error)
    return "read"


# --- Images ---


def _flat_png(path: Path, kind: int, depth: int, channels: int, side: int = SIDE) -> None:
    """A black PNG, compressed row by row."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side * channels * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = side.to_bytes(4) + side.to_bytes(4) + bytes((depth, kind, 0, 0, 0))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in chunks:
            checksum = zlib.crc32(name + content).to_bytes(4)
            file.write(len(content).to_bytes(4) + name + content + checksum)


def _pngs(kind: int, depth: int, channels: int, count: int = 16) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        _flat_png(folder / "00.png", kind, depth, channels)
        for n in range(1, count):
            (folder / f"{n:02}.png").write_bytes((folder / "00.png").read_bytes())

    return make


def _saved(mode: str, suffix: str, **options: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        side = SIDE if suffix != ".jp2" else int(SIDE / 2**0.5)
        Image.new(mode, (side, side)).save(folder / f"0{suffix}", **options)
        for n in range(1, 2):
            (folder / f"{n}{suffix}").write_bytes((folder / f"0{suffix}").read_bytes())

    return make


# --- Containers ---


def _repeated(value: bytes, rows: int, **options: object) -> Callable[[Path], None]:
    """Parquet of one image file in all rows, which is there once."""

    def make(folder: Path) -> None:
        data = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([value]))
        pq.write_table(pa.table({"image": data}), folder / "x.parquet", store_schema=False, **options)

    return make


def _plain(size: int, compression: str) -> Callable[[Path], None]:
    """Parquet of one image file of noughts."""

    def make(folder: Path) -> None:
        table = pa.table({"image": pa.array([bytes(size)])})
        pq.write_table(table, folder / "x.parquet", use_dictionary=False, compression=compression)

    return make


def _nulls(folder: Path) -> None:
    count = 30_000_000
    table = pa.table({"image": pa.nulls(count, pa.binary()), "label": pa.nulls(count, pa.int32())})
    pq.write_table(table, folder / "x.parquet", compression="zstd", row_group_size=count)


def _long_labels(folder: Path) -> None:
    labels = pa.DictionaryArray.from_arrays(np.zeros(50_000, np.int32), pa.array(["x" * 100_000]))
    table = pa.table({"image": pa.array([b"x"] * 50_000), "label": labels})
    pq.write_table(table, folder / "x.parquet", compression="zstd", store_schema=False)


def _nested_labels(folder: Path) -> None:
    count = 5_000_000
    labels = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.array(np.zeros(count, np.int8)))
    pq.write_table(pa.table({"image": [b"x"], "label": labels}), folder / "x.parquet", compression="zstd")


def _long_header(kind: bytes) -> Callable[[Path], None]:
    """A tar whose first header is followed by 3 GB that belong to it, which are a hole."""

    def make(folder: Path) -> None:
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = kind, 3 << 30
        with (folder / "x.tar").open("wb") as file:
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.truncate(member.size + 1536)

    return make


# --- The web ---


class _Server(BaseHTTPRequestHandler):
    """What a request for a range of x.tar is answered with."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def begin(self, length: int | None) -> None:
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-0/{1 << 20}")
        if length is None:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()


class _Endless(_Server):
    """A body that has no end."""

    def do_GET(self) -> None:
        self.begin(None)
        with _until_it_is_cut():
            while True:
                self.wfile.write(bytes(1 << 20))


class _Redirecting(_Server):
    """A redirection with a body that has no end."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/y.tar")
        self.end_headers()
        with _until_it_is_cut():
            while True:
                self.wfile.write(bytes(1 << 20))


class _Dripping(_Server):
    """A byte now and then."""

    def do_GET(self) -> None:
        self.begin(1 << 20)
        with _until_it_is_cut():
            while True:
                self.wfile.write(b"x")
                time.sleep(0.2)


class _DrippingHeaders(_Server):
    """A header now and then, before any body."""

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX: ")
        with _until_it_is_cut():
            while True:
                self.wfile.write(b"x")
                time.sleep(0.2)


@contextmanager
def _until_it_is_cut() -> Iterator[None]:
    with suppress(OSError):
        yield


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x.tar"
        server.shutdown()


# --- Configurations ---


def _aliases(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (folder / "config.yaml").write_text("\n".join(lines))


def _long_text(folder: Path) -> None:
    (folder / "config.yaml").write_text("a: [" + "1, " * 5_000_000 + "]")


def _nothing(folder: Path) -> None:
    pass


BOMBS = {
    "16-bit PNG": Bomb(_pngs(0, 16, 1), _read_folder),
    "two 16-bit PNG": Bomb(_pngs(0, 16, 1, 2), _read_folder),
    "Parquet, a value in 16 rows": Bomb(_repeated(bytes(150 << 20), 16, compression="zstd"), _read_folder),
    "RGBA PNG": Bomb(_pngs(6, 8, 4, 2), _read_folder),
    "palette PNG": Bomb(_saved("P", ".png", transparency=0), _read_folder),
    "progressive JPEG": Bomb(_saved("RGB", ".jpg", progressive=True), _read_folder),
    "CMYK JPEG": Bomb(_saved("CMYK", ".jpg"), _read_folder),
    "JPEG 2000": Bomb(_saved("RGBA", ".jp2"), _read_folder),
    "WebP": Bomb(_saved("RGBA", ".webp", lossless=True, method=0), _read_folder),
    "TIFF": Bomb(_saved("RGBA", ".tif", compression="tiff_deflate"), _read_folder),
    "32-bit TIFF": Bomb(_saved("F", ".tif", compression="tiff_deflate"), _read_folder),
    "GIF": Bomb(_saved("P", ".gif"), _read_folder),
    "Parquet, a value in all rows": Bomb(_repeated(bytes(150 << 20), 32, compression="zstd"), _read_folder),
    "Parquet, one long value": Bomb(_plain(300_000_000, "zstd"), _read_folder),
    "Parquet, nulls": Bomb(_nulls, _read_folder),
    "Parquet, long labels": Bomb(_long_labels, _read_folder),
    "Parquet, nested labels": Bomb(_nested_labels, _read_folder),
    "tar, long name": Bomb(_long_header(tarfile.GNUTYPE_LONGNAME), _read_folder),
    "tar, pax header": Bomb(_long_header(tarfile.XHDTYPE), _read_folder),
    "web, endless": Bomb(_nothing, _read_web(_Endless)),
    "web, endless redirection": Bomb(_nothing, _read_web(_Redirecting)),
    "web, dripping": Bomb(_nothing, _read_web(_Dripping)),
    "web, dripping headers": Bomb(_nothing, _read_web(_DrippingHeaders)),
    "YAML, aliases": Bomb(_aliases, _parse),
    "YAML, long": Bomb(_long_text, _parse),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BOMBS))
    parser.add_argument("--meet", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.meet:
        for line in meet(options.names, options.meet):
            print(json.dumps(line))
        return
    worst = 0
    for name in options.names or BOMBS:
        with tempfile.TemporaryDirectory() as folder:
            (found,) = outcomes([name], Path(folder))
        worst = max(worst, found.peak)
        numbers = f"{found.size / 1000:.0f} kB, {found.peak / 2**20:.0f} MiB, {found.seconds:.1f} s"
        print(f"{name}: {numbers}: {found.told}", flush=True)
    if worst > ALLOWED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

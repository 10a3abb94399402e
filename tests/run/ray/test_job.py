"""`ray job submit` against a head node of its own: a driver and a worker are killed, and nothing is lost.

A short form of benchmarks/chaos.py, which has nodes, stores, clocks and damaged files besides.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pytest

from riemannopt_dist.reader import open_run
from riemannopt_dist.run.verification import problems
from riemannopt_dist.scoring import score_run
from riemannopt_dist.testing.small_world import FIT, make_pictures, small_fields

BIN = Path(sys.executable).parent
PICTURES = 18
CELLS = 8
SHARDS = (PICTURES - FIT) // 3


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@dataclass(frozen=True)
class Head:
    """A head node: its process, and the environment in which to submit to it."""

    process: psutil.Process
    environment: dict[str, str]

    def workers(self) -> list[psutil.Process]:
        """The actors of a run."""
        with suppress(psutil.NoSuchProcess):
            return [one for one in self.process.children(recursive=True) if "ShardWorker" in _name(one)]
        return []


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return "".join(process.cmdline()[:1])
    return ""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head node in a process group of its own.

    Its folder is its own as well: a job finds its cluster by a file there, which any Ray in the common one
    overwrites.
    """
    ports = {name: _free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")}
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path.cwd())}
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, for the names of sockets
    command += [f"--temp-dir={folder}"]
    started = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    _wait(lambda: _takes_jobs(address), started, "jobs taken")
    yield Head(psutil.Process(started.pid), environment | {"RAY_API_SERVER_ADDRESS": address})
    started.terminate()  # the group at once would wait half a minute for each other
    started.wait(timeout=60)
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _takes_jobs(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _wait(done: Callable[[], bool], process: "subprocess.Popen[str]", awaited: str) -> None:
    """Until it is `done`; AssertionError where the process ends before, or after four minutes."""
    deadline = time.monotonic() + 240
    while not done():
        assert process.poll() is None, f"ended without {awaited}: {process.communicate()[0]}"
        assert time.monotonic() < deadline, f"no {awaited}"
        time.sleep(0.05)


def _submit(config: Path, name: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    entry = [sys.executable, str(Path("jobs/evaluate.py").resolve()), "--config", str(config)]
    command = [str(BIN / "ray"), "job", "submit", "--submission-id", name, "--", *entry]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_killed_driver_and_a_killed_worker_lose_nothing(head: Head, tmp_path: Path) -> None:
    """Neither rows nor maps, of which a metric comes out as it was."""
    run = tmp_path / "run"
    maps = {"channels": "all", "dtype": "float32"}
    fields = small_fields(make_pictures(tmp_path / "pictures", PICTURES), run, maps=maps)
    fields["model"] = {"name": "riemannopt_dist.testing.small_world:slow_classifier"}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(fields))

    first = _submit(config, "first", head.environment)
    _wait(lambda: len(_times(run)) >= 2, first, "results")
    _kill_drivers(config)
    first.communicate(timeout=60)
    done = _times(run)
    assert 2 <= len(done) < SHARDS

    second = _submit(config, "second", head.environment)
    _wait(lambda: len(_times(run)) > len(done), second, "results")
    (worker,) = head.workers()
    worker.kill()
    output = second.communicate(timeout=240)[0]
    assert second.returncode == 0, output
    assert "relative error" in output
    assert "a worker was lost and is replaced" in output
    after = _times(run)
    assert len(after) == SHARDS
    assert {name: after[name] for name in done} == done
    rows = ds.dataset(run / "results").to_table().to_pylist()
    keys = {(r["image_id"], r["placement"], r["estimator"], r["samples"]) for r in rows}
    assert len(rows) == len(keys) == CELLS * (PICTURES - FIT)
    assert json.loads((run / "run.json").read_text())["config"]["output"] == str(run)
    reader = open_run(str(run))
    assert list(problems(reader.directory)) == []
    cell = {"placement": "exact", "estimator": "trapezoid", "samples": 4}
    scores = score_run(reader, ["insertion"], **cell)["insertion"].sort_by("image_id")
    expected = reader.results(["image_id", "insertion"], **cell).sort_by("image_id")
    assert scores["image_id"].to_pylist() == expected["image_id"].to_pylist()
    assert scores["insertion"].to_pylist() == pytest.approx(expected["insertion"].to_pylist(), abs=1e-6)


def _times(run: Path) -> dict[str, int]:
    """When each shard of the results was written."""
    return {path.name: path.stat().st_mtime_ns for path in (run / "results").glob("[!.]*.parquet")}


def _kill_drivers(config: Path) -> None:
    """SIGKILL the processes, other than `ray job submit`, whose command line names the configuration."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode().split("\0")
        except OSError:
            continue
        if words[0] == sys.executable and str(config) in words and "submit" not in words:
            os.kill(int(entry.parent.name), signal.SIGKILL)

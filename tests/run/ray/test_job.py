"""`ray job submit` against a head node of its own: the same run, and what is left of it after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """A head node in a process group of its own; the environment in which to submit to it."""
    ports = {name: _free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")}
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path.cwd())}
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    started = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{ports['dashboard-port']}"
    deadline = time.monotonic() + 120
    while subprocess.run([str(BIN / "ray"), "job", "list"], env=environment, capture_output=True).returncode:
        assert started.poll() is None, "the head node ended"
        assert time.monotonic() < deadline, "the head node does not answer"
        time.sleep(1)
    yield environment
    started.terminate()  # the group at once would wait half a minute for each other
    started.wait(timeout=60)
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)


def _submit(config: Path, name: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    entry = [sys.executable, str(Path("jobs/evaluate.py").resolve()), "--config", str(config)]
    command = [str(BIN / "ray"), "job", "submit", "--submission-id", name, "--", *entry]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_killed_driver_loses_nothing(head: dict[str, str], tmp_path: Path) -> None:
    """Neither rows nor maps, of which a metric comes out as it was."""
    run = tmp_path / "run"
    maps = {"channels": "all", "dtype": "float32"}
    fields = small_fields(make_pictures(tmp_path / "pictures", PICTURES), run, maps=maps)
    fields["model"] = {"name": "riemannopt_dist.testing.small_world:slow_classifier"}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(fields))

    first = _submit(config, "first", head)
    deadline = time.monotonic() + 240
    while len(list((run / "results").glob("[!.]*.parquet"))) < 2:
        assert time.monotonic() < deadline, "no results"
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    _kill_drivers(config)
    first.communicate(timeout=60)
    done = {path.name: path.stat().st_mtime_ns for path in (run / "results").glob("[!.]*.parquet")}
    assert 2 <= len(done) < SHARDS

    second = _submit(config, "second", head)
    output = second.communicate(timeout=240)[0]
    assert second.returncode == 0, output
    assert "relative error" in output
    after = {path.name: path.stat().st_mtime_ns for path in (run / "results").glob("[!.]*.parquet")}
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


def _kill_drivers(config: Path) -> None:
    """SIGKILL the processes, other than `ray job submit`, whose command line names the configuration."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode().split("\0")
        except OSError:
            continue
        if words[0] == sys.executable and str(config) in words and "submit" not in words:
            os.kill(int(entry.parent.name), signal.SIGKILL)

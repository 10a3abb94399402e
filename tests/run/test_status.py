"""How far a run is, told from its directory while it is half done, done, or not there at all."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from riemannopt_dist.commands import app
from riemannopt_dist.run import lock
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.errors import Stopped
from riemannopt_dist.run.failure import Failure
from riemannopt_dist.run.journal import WorkerJournal, read_journals
from riemannopt_dist.run.lock import LOCK, Holder, TakenOver
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.stages.tally import Timings
from riemannopt_dist.run.status import images_per_second, read_status
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.s3_server import Bucket
from riemannopt_dist.testing.small_world import FIT, PICTURES, make_pictures, small_config

pytestmark = pytest.mark.usefixtures("ray_here")

EVALUATED = PICTURES - FIT
SHARDS = 4  # of three images, the last of two


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = tmp_path_factory.mktemp("world")
    evaluate(small_config(make_pictures(world / "pictures"), world / "run"))
    return world / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy, with the times of the files kept."""
    copy = tmp_path / "run"
    subprocess.run(["cp", "-a", str(finished), str(copy)], check=True)
    return copy


def test_a_finished_run_has_nothing_left(run: Path) -> None:
    status = read_status(Storage(run))
    numbers = {s.name: (s.images, s.done, s.failed, s.left, s.shards, s.shards_done) for s in status.stages}
    assert numbers == {
        "selection": (PICTURES, PICTURES, 0, 0, 5, 5),
        "fit": (FIT, FIT, 0, 0, 1, 1),
        "results": (EVALUATED, EVALUATED, 0, 0, SHARDS, SHARDS),
    }
    assert status.driver is None
    assert 0 <= time.time() - status.written < 120
    assert status.lines()[-1].endswith("; finished")


def test_missing_shards_and_failed_images_are_counted_apart(run: Path) -> None:
    ids = [
        list(dict.fromkeys(Storage(run).read_table(f"results/shard-0000{n}.parquet")["image_id"].to_pylist()))
        for n in range(SHARDS)
    ]
    # One image lost out of a shard that is there, one whole shard given up on, one shard not done yet.
    lost = [ids[0][0], *ids[1]]
    RunDirectory(Storage(run)).write_failures([Failure("results", name, "killed", 3) for name in lost])
    (run / "results/shard-00001.parquet").unlink()
    (run / "results/shard-00002.parquet").unlink()
    results = read_status(Storage(run)).stages[-1]
    assert (results.images, results.done, results.failed, results.left) == (EVALUATED, 4, 4, 3)
    assert (results.shards, results.shards_done) == (SHARDS, 3)
    assert read_status(Storage(run)).lines()[-1].endswith("; no driver is at work")


def test_shards_in_flight_are_told_with_their_worker_while_a_driver_is_at_work(run: Path) -> None:
    """Of a journal as workers write it: what is there, and what was given up on, is in flight no more."""
    storage = Storage(run)
    ended = [event for event in read_journals(storage) if event.event == "end"]
    assert {(event.stage, event.shard) for event in ended if event.stage == "results"} == {
        ("results", f"shard-0000{n}") for n in range(SHARDS)
    }
    given_up = storage.read_table("results/shard-00003.parquet")["image_id"].to_pylist()
    RunDirectory(storage).write_failures([Failure("results", name, "killed", 3) for name in {*given_up}])
    worker = WorkerJournal(storage, "node")
    for n in (1, 2, 3):
        (run / f"results/shard-0000{n}.parquet").unlink(missing_ok=n != 2)
        worker.began("results", f"shard-0000{n}", 3)
    storage.write_bytes("results/shard-00001.parquet", b"whole again")
    assert not any(worker.worker in line for line in read_status(storage).lines())
    storage.write_bytes(LOCK, Holder.this_process().to_bytes())
    told = [line for line in read_status(storage).lines() if worker.worker in line]
    assert len(told) == 1
    assert told[0].startswith(f"results/shard-00002: 3 images on {worker.worker}, begun ")


def test_before_the_images_are_selected_the_rest_is_unknown(run: Path) -> None:
    for path in ("images.parquet", "selection/shard-00003.parquet"):
        (run / path).unlink()
    selection, fit, _ = read_status(Storage(run)).stages
    assert (selection.images, selection.done, selection.left, selection.shards) == (PICTURES, 11, 3, 5)
    assert (fit.images, fit.left, fit.seconds_left) == (None, None, None)
    assert "?" in "".join(read_status(Storage(run)).lines())


@pytest.mark.parametrize(
    ("placements", "tolerances", "fitted"),
    [
        (["linear"], [], False),
        (["linear", "idg", "idg_released", "non_uniform"], [], False),
        (["linear"], [0.1], True),
        (["linear", "exact"], [], True),
        (["adaptive"], [], True),
        (["a_package.not_here:placement"], [], True),
    ],
)
def test_a_run_has_a_fit_stage_where_a_profile_places_samples(
    run: Path, placements: list[str], tolerances: list[float], fitted: bool
) -> None:
    found = json.loads((run / "run.json").read_text())
    found["config"]["grid"] = [{**found["config"]["grid"][0], "placements": placements}]
    found["config"]["grid"][0]["tolerances"] = tolerances
    (run / "run.json").write_text(json.dumps(found))
    assert ("fit" in [stage.name for stage in read_status(Storage(run)).stages]) is fitted


def finish_at(storage: Storage, moments: dict[str, float]) -> None:
    """Let shards say that they were done at these moments."""
    for name, moment in moments.items():
        table = storage.read_table(name)
        timings = Timings.of(table.schema)
        assert timings is not None
        storage.write_table(name, replace(timings, finished=moment).in_table(table))


def test_the_rate_is_what_the_shards_tell_whenever_their_files_were_written(
    run: Path, bucket: Bucket, tmp_path: Path
) -> None:
    start = 1_700_000_000.0
    finish_at(Storage(run), {f"results/shard-0000{n}.parquet": start + 10 * n for n in range(3)})
    (run / "results/shard-00003.parquet").unlink()
    subprocess.run(["cp", "-r", str(run), str(tmp_path / "copy")], check=True)
    far = Storage(bucket.uri("bucket/rate"))
    for name in Storage(run).list():
        far.write_bytes(name, Storage(run).read_bytes(name))
    for storage in (Storage(run), Storage(tmp_path / "copy"), far):
        status = read_status(storage)
        results = status.stages[-1]
        assert results.rate == pytest.approx(6 / 20)
        assert results.seconds_left == pytest.approx(2 / (6 / 20))
        assert results.written == start + 20


def test_a_copy_that_cannot_tell_its_rate_does_not(run: Path, tmp_path: Path) -> None:
    storage = Storage(run)
    for name in storage.list("results"):
        storage.write_table(name, storage.read_table(name).replace_schema_metadata(None))
    results = read_status(storage).stages[-1]
    assert (results.done, results.rate, results.written) == (EVALUATED, None, None)
    assert results.cells()[-2:] == ("?", "0:00:00")
    (run / "results/shard-00000.parquet").unlink()
    assert read_status(storage).stages[-1].cells()[-2:] == ("?", "?")


def test_a_pause_does_not_slow_the_rate() -> None:
    before = [(float(t), 4) for t in range(0, 100, 10)]
    after = [(5000.0 + t, 4) for t in range(0, 60, 20)]
    assert images_per_second(before, 10.0) == pytest.approx(0.4)
    assert images_per_second([*before, *after], 10.0) == pytest.approx(0.2)
    # Shards that take an hour each leave gaps of an hour.
    assert images_per_second([*before, *after], 4000.0) == pytest.approx(48 / 5040)
    assert images_per_second([], 1.0) is images_per_second(before[:1], 1.0) is None


def test_every_shard_tells_what_it_took(run: Path) -> None:
    for name, images in (("selection/shard-00000", 3), ("fit/shard-00000", FIT), ("results/shard-00003", 2)):
        found = Timings.of(Storage(run).read_table(f"{name}.parquet").schema)
        assert found is not None
        assert found.images == images
        assert 0 < found.decode_seconds < found.seconds < 60
        assert abs(found.finished - (run / f"{name}.parquet").stat().st_mtime) < 5
        # Selection takes no gradient; a fit takes 16 an image and no forward pass beside them.
        expected = {"selection": (0, 3), "fit": (16 * FIT, 0)}.get(name.split("/")[0])
        if expected is not None:
            assert (found.gradient_evaluations, found.forward_passes) == expected


def test_it_needs_neither_torch_nor_ray(run: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from riemannopt_dist.commands import app; "
        f"ended = CliRunner().invoke(app, ['status', {str(run)!r}]); print(ended.output); "
        "assert ended.exit_code == 0; assert not {'torch', 'ray'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"{run}: riemannopt_dist.testing.small_world:tiny_classifier" in ended.stdout


def test_a_run_of_another_version_is_one_line(run: Path) -> None:
    found = json.loads((run / "run.json").read_text())
    # In the first format nothing told of it, and shards held other images.
    (run / "run.json").write_text(json.dumps({key: value for key, value in found.items() if key != "format"}))
    with pytest.raises(ValueError, match=r"holds a run in format 1, written by .*, which knows format 3"):
        read_status(Storage(run))
    (run / "run.json").write_text(json.dumps({**found, "format": 7}))
    with pytest.raises(ValueError, match=r"holds a run in format 7, written by .*, which knows format 3"):
        read_status(Storage(run))
    (run / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json: not that of a run"):
        read_status(Storage(run))


def test_it_is_the_same_in_a_bucket(run: Path, bucket: Bucket) -> None:
    local, far = Storage(run), Storage(bucket.uri("bucket/copy"))
    for name in local.list():
        far.write_bytes(name, local.read_bytes(name))
    here, there = read_status(local), read_status(far)
    assert [stage.cells()[:7] for stage in here.stages] == [stage.cells()[:7] for stage in there.stages]
    assert there.root == "s3://bucket/copy"
    assert there.written == here.written


def test_a_run_whose_shards_tell_no_timings(run: Path) -> None:
    storage = Storage(run)
    for name in storage.list("results"):
        storage.write_table(name, storage.read_table(name).replace_schema_metadata(None))
    assert read_status(storage).finished
    (run / "images.parquet").unlink()
    (run / "listing.parquet").unlink()
    selection = read_status(storage).stages[0]
    assert (selection.images, selection.left, selection.shards_done) == (None, None, 5)


def test_a_second_driver_is_told_of_the_first(finished: Path, run: Path, tmp_path: Path) -> None:
    fields = json.loads((run / "run.json").read_text())["config"]
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**fields, "output": str(run)}))
    Storage(run).write_bytes(LOCK, Holder.this_process().to_bytes())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused = CliRunner().invoke(app, ["evaluate", "-c", str(config)])
    assert refused.exit_code == 1
    assert refused.output.startswith(
        f"error: {run}: another driver is at work on this run: process {os.getpid()} on"
    )
    assert len(refused.output.splitlines()) == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert f"locked by process {os.getpid()} on" in read_status(Storage(run)).lines()[-1]
    (run / LOCK).unlink()
    assert CliRunner().invoke(app, ["evaluate", "-c", str(config)]).exit_code == 0
    assert not (run / LOCK).exists()


def test_a_driver_that_loses_its_lock_stops(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "RENEWAL", 0.1)
    output = tmp_path / "run"
    config = small_config(
        finished.parent / "pictures",
        output,
        model={"name": "riemannopt_dist.testing.small_world:slow_classifier"},
    )
    usurper = replace(Holder.this_process(), token="another", host="elsewhere")

    def usurp() -> None:
        while not (output / "images.parquet").exists():
            time.sleep(0.01)
        storage, mine = Storage(output), usurper.to_bytes()
        # Again where a renewal that had begun came after it, as a driver does that takes over.
        while storage.read_bytes(LOCK) != mine:
            storage.write_bytes(LOCK, mine)
            time.sleep(0.3)

    thread = threading.Thread(target=usurp)
    thread.start()
    # At a look of its own, or before it writes.
    with pytest.raises((Stopped, TakenOver), match=r"images done in stage|another took the run over"):
        evaluate(config)
    thread.join()
    assert Holder(**json.loads((output / LOCK).read_bytes())) == usurper
    left = read_status(Storage(output)).stages[-1].left
    assert left is not None
    assert left > 0

"""Whole runs on a real Ray: the same rows whatever the workers, resumption, refusal of what does not fit."""

import json
import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch
from typer.testing import CliRunner, Result

from riemannopt_dist.commands import app
from riemannopt_dist.data.files import files_of
from riemannopt_dist.estimators.adaptive import START
from riemannopt_dist.methods import integrated_gradients
from riemannopt_dist.metrics.completeness import relative_error
from riemannopt_dist.metrics.controls import CONTROLS
from riemannopt_dist.metrics.metric import summaries_of
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.state import model_state
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.profile import Profile, profile_from_variations
from riemannopt_dist.quadrature.schedule import Schedule
from riemannopt_dist.reports.summary import summarize
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.errors import Interrupted, Stopped
from riemannopt_dist.run.examples import evaluated_examples
from riemannopt_dist.run.plan import make_plan
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.ray.worker import Payload, ShardWorker
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.stages.arithmetic import Arithmetic
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import FIT, PICTURES, SIDE, make_pictures, small_config, small_fields

CELLS = 8


pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("world") / "pictures")


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, RunDirectory]:
    """A run by one worker that goes through to its end."""
    config = small_config(pictures, tmp_path_factory.mktemp("one") / "run")
    return config, evaluate(config)


def results(directory: RunDirectory) -> list[dict[str, Any]]:
    """All result rows but for their timings."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in directory.shard_rows("results")]


def test_every_image_is_accounted_for(finished: tuple[Config, RunDirectory]) -> None:
    config, directory = finished
    images = directory.read_images()
    assert images is not None
    assert len(images) == PICTURES
    assert sum(row["in_fit"] for row in images) == FIT
    evaluated = [row["image_id"] for row in images if row["selected"] and not row["in_fit"]]
    rows = results(directory)
    keys = {(r["image_id"], r["placement"], r["estimator"], r["samples"]) for r in rows}
    assert len(rows) == len(keys) == CELLS * len(evaluated)
    assert {row["image_id"] for row in rows} == set(evaluated)
    assert [s.image.image_id for s in evaluated_examples(images, config)] == list(
        dict.fromkeys(row["image_id"] for row in rows)
    )


def test_rows_hold_what_the_library_computes(finished: tuple[Config, RunDirectory]) -> None:
    config, directory = finished
    model = load_model(config.model.name)
    fitted = directory.storage.read_json("schedules/ig.json")["schedules"]
    (example, *_) = evaluated_examples(directory.read_images() or [], config)
    image = read_tensor(example.image, model)[None]
    for entry in fitted:
        schedule = Schedule(tuple(entry["points"]), tuple(entry["weights"]))
        result = integrated_gradients(model, image, torch.tensor([example.target]), schedule)
        (row,) = (
            row
            for row in results(directory)
            if row["image_id"] == example.image.image_id
            and all(row[key] == entry[key] for key in ("placement", "estimator", "samples"))
        )
        assert row["relative_error"] == pytest.approx(float(relative_error(result)), rel=1e-3, abs=1e-5)
        assert row["f_input"] == pytest.approx(float(result.f_input), rel=1e-5)
        assert row["gradient_evaluations"] == entry["samples"]


class ToldWorker(ShardWorker):
    """A worker that can be asked how it rounds."""

    def settings(self) -> tuple[bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def test_workers_compute_in_ieee_float32(finished: tuple[Config, RunDirectory]) -> None:
    config, directory = finished
    model = load_model(config.model.name)
    files = files_of(config.images)
    payload = Payload(config.model.name, model_state(model), directory.storage, files, 1, 0.0, 4)
    worker = ray.remote(ToldWorker).remote([ray.put(payload)])
    assert ray.get(worker.settings.remote()) == (False, "highest")


def test_two_workers_give_equal_rows(finished: tuple[Config, RunDirectory], tmp_path: Path) -> None:
    config, directory = finished
    again = evaluate(small_config(Path(config.images), tmp_path / "run", scaling={"max_workers": 2}))
    assert results(again) == results(directory)


def test_a_worker_out_of_memory_goes_on_with_less(
    finished: tuple[Config, RunDirectory], tmp_path: Path
) -> None:
    """The same rows, from 2 gradients at once instead of 8."""
    config, directory = finished
    cramped = {"name": "riemannopt_dist.testing.small_world:cramped_classifier"}
    found = evaluate(small_config(Path(config.images), tmp_path / "run", model=cramped))
    assert found.read_failures() == []
    for row, expected in zip(results(found), results(directory), strict=True):
        assert row["image_id"] == expected["image_id"]
        assert row["relative_error"] == pytest.approx(expected["relative_error"], rel=1e-3, abs=1e-5)


@pytest.mark.long
def test_a_storage_that_does_not_answer_stops_the_run_and_costs_no_image(
    finished: tuple[Config, RunDirectory], tmp_path: Path
) -> None:
    """Where a shard of the selection is to be written stands a folder: for good, then for a while."""
    config, directory = finished
    pictures, output = Path(config.images), tmp_path / "run"
    in_the_way = tmp_path / "run/selection/shard-00001.parquet"
    in_the_way.mkdir(parents=True)
    with pytest.raises(Stopped, match=r"selection: no answer for 0.5 s \(.*shard-00001.parquet"):
        evaluate(small_config(pictures, output, scaling={"patience": 0.5}))
    assert not (tmp_path / "run/images.parquet").exists()
    threading.Timer(2.0, in_the_way.rmdir).start()
    found = evaluate(small_config(pictures, output, scaling={"patience": 60.0}))
    assert found.read_failures() == []
    assert results(found) == results(directory)


def test_so_does_one_that_does_not_answer_the_driver(
    finished: tuple[Config, RunDirectory], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "run/listing.parquet"
    in_the_way.mkdir(parents=True)
    with pytest.raises(Stopped, match=r"^a storage does not answer: .*listing.parquet: ") as stopped:
        evaluate(small_config(Path(finished[0].images), tmp_path / "run"))
    assert not isinstance(stopped.value, Interrupted)
    assert (tmp_path / "run/run.json").exists()
    assert not (tmp_path / "run/lock.json").exists()


@pytest.mark.long
def test_schedules_stay_when_a_fit_image_can_be_read_again(tmp_path: Path) -> None:
    pictures, output = make_pictures(tmp_path / "pictures", 8), tmp_path / "run"
    fit = {"images": FIT, "samples": 16, "refine": "always"}
    means = {"patience": 0.1, "max_given_up": 1.0}
    config = small_config(pictures, output, fit=fit, shard_size=1, scaling=means)
    directory = evaluate(config)
    # As if the run were just behind the selection, and an image of the fit subset gone.
    for folder in ("fit", "refine", "schedules", "results"):
        shutil.rmtree(output / folder)
    (gone, *_) = (row["image_id"] for row in directory.read_images() or [] if row["in_fit"])
    (pictures / gone).rename(tmp_path / gone)
    evaluate(config)
    expected, schedules = results(directory), (output / "schedules/ig.json").read_bytes()
    failed = directory.read_failures()
    assert [(failure.stage, failure.image_id) for failure in failed] == [("fit", gone), ("refine", gone)]

    (tmp_path / gone).rename(pictures / gone)
    (output / "results/shard-00000.parquet").unlink()
    evaluate(config)
    assert results(directory) == expected
    assert (output / "schedules/ig.json").read_bytes() == schedules
    assert directory.read_failures() == failed

    # As if it had been killed in the second pass: that one goes on at its positions.
    for folder in ("schedules", "results"):
        shutil.rmtree(output / folder)
    next((output / "refine").iterdir()).unlink()
    evaluate(config)
    assert {len(directory.shard_rows(folder)) for folder in ("fit", "refine")} == {FIT}
    assert len({tuple(row["alphas"]) for row in directory.shard_rows("refine")}) == 1
    assert directory.read_failures() == []


@pytest.mark.long
def test_a_fit_subset_of_which_nothing_can_be_read_is_one_line(
    finished: tuple[Config, RunDirectory], pictures: Path, tmp_path: Path
) -> None:
    """As if the run were just behind the selection, and the fit subset gone."""
    output = tmp_path / "run"
    shutil.copytree(finished[1].storage.root, output)
    for folder in ("fit", "schedules", "results"):
        shutil.rmtree(output / folder)
    config = small_config(pictures, output, scaling={"patience": 0.1, "max_given_up": 1.0})
    directory = RunDirectory(Storage(output))
    first, *others = sorted(row["image_id"] for row in directory.read_images() or [] if row["in_fit"])
    for name in (first, *others):
        (pictures / name).rename(tmp_path / name)
    try:
        with pytest.raises(ValueError, match=r"fit: none of the 3 images .* \(.*failures.parquet says why\)"):
            evaluate(config)
        # A mean over one image has no standard error, and is a mean all the same.
        (tmp_path / first).rename(pictures / first)
        evaluate(config)
    finally:
        for name in others:
            (tmp_path / name).rename(pictures / name)
    assert sorted(failure.image_id for failure in directory.read_failures()) == others


def test_another_configuration_is_refused(
    finished: tuple[Config, RunDirectory], pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[1].storage.root, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"another configuration \(differs in: seed\)"):
        evaluate(small_config(pictures, output, seed=1))
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": "/no/such/folder"}, "/no/such/folder"),
        ({"model": {"name": "resnet_fifty"}}, "resnet_fifty"),
        ({"model": {"name": "resnet18", "weights": "/no/such/file.pth"}}, "/no/such/file.pth"),
    ],
)
def test_what_cannot_be_had_writes_nothing(
    pictures: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    output = tmp_path / "run"
    with pytest.raises(ValueError, match=named) as error:
        evaluate(small_config(pictures, output, **changes))
    assert "\n" not in str(error.value)
    assert not output.exists()


def test_too_few_images_to_fit_is_one_line_and_tells_where_to_look(pictures: Path, tmp_path: Path) -> None:
    config = small_config(pictures, tmp_path / "run", fit={"images": PICTURES, "samples": 16})
    told = set()
    for _ in range(2):
        with pytest.raises(
            ValueError, match=rf"fit.images: {PICTURES} .* only {PICTURES} .*images.parquet"
        ) as e:
            evaluate(config)
        told.add(str(e.value))
    assert len(told) == 1
    assert (tmp_path / "run/images.parquet").exists()


def test_labels_that_the_model_lacks_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures/n01514668", 4)  # a cock, class 7 of ImageNet
    config = small_config(tmp_path / "pictures", tmp_path / "run")
    for refuse in (make_plan, evaluate):
        with pytest.raises(
            ValueError, match=r"^labels: 'n01514668/p00.png' has class 7, the model's are 0 to 5"
        ):
            refuse(config)
    assert not (tmp_path / "run").exists()


def test_every_path_and_metric_goes_through_the_grid(pictures: Path, tmp_path: Path) -> None:
    metrics = ["completeness", "insertion", "deletion", "information_fast"]
    block = {
        "paths": list(PATHS),
        "placements": ["linear", "equidistribution"],
        "estimators": ["trapezoid", "idgi_trapezoid"],
        "samples": [3, 5],
    }
    config = small_config(
        pictures, tmp_path / "run", grid=[block], metrics=metrics, controls=["random", "edges"], limit=3
    )
    directory = evaluate(config)
    rows = results(directory)
    assert len(rows) == 3 * (len(PATHS) * 8 + 2)
    for row in rows:
        assert row["insertion_curve"][0] == pytest.approx(row["deletion_curve"][-1], abs=1e-6)
        assert row["insertion_curve"][-1] == pytest.approx(row["f_input"], abs=1e-6)
        if row["estimator"] in CONTROLS:
            assert (row["path"], row["samples"], row["gradient_evaluations"]) == ("none", 0, 0)
            assert math.isnan(row["relative_error"])
        if row["estimator"] == "idgi_trapezoid":
            assert row["relative_error"] < 1e-4
        # The tiny classifier is never as sure as the information curves want it to be.
        assert row["sic_fast_skipped"]
        assert math.isnan(row["sic_fast"])
    summary = summarize(read_results(directory.storage))
    assert set(summary["sic_fast_left_out"]) == {3}
    assert summary["insertion_mean"].between(0, 1).all()
    for path in PATHS:
        fitted = directory.storage.read_json(f"schedules/{path}.json")["schedules"]
        assert {entry["path"] for entry in fitted} == {path}
        assert {entry["estimator"] for entry in fitted} == {"trapezoid", "idgi_trapezoid"}


def test_the_authors_sums_go_through_the_grid(pictures: Path, tmp_path: Path) -> None:
    """Points come from the first pass, whatever a second one and the average say; walks begin in a colour."""
    colour, label = (0.25, 0.5, 0.75), "guided_ig(fraction=0.5, baseline=0.25 0.5 0.75)"
    walk = {"path": "guided_ig", "fraction": 0.5, "baseline": list(colour)}
    blocks = [
        {"paths": ["ig"], "placements": ["linear", "riemannopt"], "estimators": ["released"], "samples": [8]},
        {"paths": [walk], "placements": ["riemannopt"], "estimators": ["left"], "samples": [8]},
    ]
    changes = {
        "fit": {"images": FIT, "samples": 16, "refine": "always", "average": "mean"},
        "precision": {"maps": "tf32", "scores": "bf16"},
    }
    config = small_config(pictures, tmp_path / "run", grid=blocks, limit=2, **changes)
    directory = evaluate(config)
    for key in shard_files(directory.storage, "results").values():
        told = Arithmetic.of(directory.storage.read_schema(key))
        assert (told.device, told.maps, told.scores) == ("CPU", "tf32", "bf16")  # a CPU computes in float32
        assert 0 < told.gradient_error < 1e-5
    for path, rule in (("ig", "released"), (label, "left")):
        rows = [row for row in directory.shard_rows("fit") if row["path"] == path]
        first = profile_from_variations(rows[0]["alphas"], [row["variation"] for row in rows])
        stored = directory.storage.read_json(f"schedules/{path}.json")
        profile = Profile.from_fields(stored["profile"])
        assert (profile.average, profile.medians) == ("mean", first.medians)
        assert len(profile.points) > len(first.points)
        (entry,) = stored["schedules"]
        expected = optimize_schedule(first, 8, rule, "riemannopt")
        assert Schedule(tuple(entry["points"]), tuple(entry["weights"])) == expected
    rows = results(directory)
    assert {(row["path"], row["gradient_evaluations"]) for row in rows} == {("ig", 8), (label, 8)}
    colours = {"ig": (0.0, 0.0, 0.0), label: colour}
    model = load_model(config.model.name)
    for row in rows:
        start = torch.tensor(colours[row["path"]])[:, None, None].expand(1, 3, SIDE, SIDE)
        with torch.no_grad():
            probability = float(model(start).softmax(dim=1)[0, row["target"]])
        assert row["f_baseline"] == pytest.approx(probability, abs=1e-6)


def test_points_per_image_and_the_true_error_go_through_the_grid(pictures: Path, tmp_path: Path) -> None:
    blocks = [
        {
            "paths": ["ig", "blur_ig"],
            "placements": ["adaptive"],
            "estimators": ["softmax_trapezoid", "rescale"],
            "samples": [9],
        },
        {
            "paths": ["ig"],
            "placements": ["linear"],
            "estimators": ["left"],
            "samples": [9],
            "tolerances": [0.05],
        },
        {"paths": ["ig", "blur_ig"], "placements": ["roughness"], "estimators": ["rescale"], "samples": [9]},
    ]
    changes = {"metrics": ["completeness", "reference"], "reference": {"images": 2, "intervals": 256}}
    directory = evaluate(small_config(pictures, tmp_path / "run", grid=blocks, limit=4, **changes))
    rows = results(directory)
    assert len(rows) == 4 * 8
    with_reference = [row for row in rows if not math.isnan(row["reference_error"])]
    # Two images were asked for, which is one whole batch.
    assert len({row["image_id"] for row in with_reference}) == 2
    for row in with_reference:
        assert row["reference_residual"] < 0.01
        if row["tolerance"] is not None:
            assert row["tolerance"] == 0.05
            assert row["reference_error"] <= 0.05
            assert START <= row["gradient_evaluations"] < row["samples"] == 256
        else:
            assert row["gradient_evaluations"] == 9
    error = {
        (row["placement"], row["estimator"]): row["reference_error"]
        for row in with_reference
        if row["path"] == "ig" and row["tolerance"] is None
    }
    assert error["roughness", "rescale"] < error["adaptive", "softmax_trapezoid"] < error["linear", "left"]
    assert error["adaptive", "rescale"] < error["adaptive", "softmax_trapezoid"]
    assert all(row["relative_error"] < 1e-3 for row in rows if row["estimator"] == "rescale")


def test_verification_finds_what_is_lost_doubled_or_foreign(
    finished: tuple[Config, RunDirectory], tmp_path: Path
) -> None:
    _, directory = finished
    assert list(problems(directory)) == []
    root = tmp_path / "copy"
    shutil.copytree(directory.storage.root, root)
    storage = Storage(root)
    first, second, third = (storage.read_table(f"results/shard-0000{n}.parquet") for n in range(3))
    storage.write_table("results/shard-00000.parquet", first.slice(1))
    storage.write_table("results/shard-00001.parquet", pa.concat_tables([second, second.slice(0, 1)]))
    storage.write_bytes("results/shard-00002.parquet", b"not Parquet")
    (root / "results/shard-00003.parquet").unlink()
    storage.write_table("results/shard-00009.parquet", third)
    found = list(problems(RunDirectory(storage)))
    assert [line.split(":")[0].rsplit("/", 1)[-1] for line in found] == [
        f"shard-0000{n}.parquet" for n in (9, 0, 1, 2, 3)
    ]
    for line, words in zip(
        found, ("not a shard", "is missing", "2 times", "not a Parquet", "missing"), strict=True
    ):
        assert words in line


def test_columns_carry_their_meaning(finished: tuple[Config, RunDirectory]) -> None:
    _, directory = finished
    table: pa.Table = Storage(directory.storage.root).read_table("results/shard-00000.parquet")
    metadata = table.schema.field("relative_error").metadata
    assert metadata[b"direction"] == b"lower is better"
    assert all(field.metadata[b"description"] for field in table.schema)
    assert {summary.name for summary in summaries_of(table)} >= {"relative_error_mean", "insertion_mean"}


@pytest.mark.long
def test_signals_stop_a_run_and_the_same_command_goes_on(pictures: Path, tmp_path: Path) -> None:
    fields = small_fields(pictures, tmp_path / "run", scaling={"max_workers": 1})
    fields |= {"model": {"name": "riemannopt_dist.testing.small_world:slow_classifier"}, "shard_size": 1}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(fields))
    # How one signal lets shards end is in test_extension.py, and what each stop exits with in test_stops.py.
    at_once = stopped_by([signal.SIGTERM, signal.SIGINT], config, tmp_path / "run/results")
    assert at_once.exit_code == 130
    assert at_once.stderr.endswith("interrupted; the same command goes on from here\n")
    assert len(list((tmp_path / "run/results").glob("*.parquet"))) < PICTURES - FIT
    whole = CliRunner().invoke(app, ["evaluate", "--config", str(config)])
    assert whole.exit_code == 0, whole.output
    assert list(problems(RunDirectory(Storage(str(tmp_path / "run"))))) == []


def stopped_by(signals: list[signal.Signals], config: Path, results: Path) -> Result:
    """What `riemannopt evaluate` says that gets these signals, all different, once there is a new result."""

    def stop() -> None:
        before = len(list(results.glob("*.parquet")))
        while len(list(results.glob("*.parquet"))) == before:
            time.sleep(0.01)
        for number in signals:
            os.kill(os.getpid(), number)

    # One that came late would end the tests.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    try:
        ended = CliRunner().invoke(app, ["evaluate", "--config", str(config)])
        thread.join(timeout=60)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not thread.is_alive()
    return ended

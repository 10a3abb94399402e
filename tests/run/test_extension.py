"""A run that is given more: what stays, what is computed, and that it ends as a run of all of it at once."""

import json
import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import riemannopt_dist as ro
from benchmarks.bit_flips import SHARD, made_run
from riemannopt_dist.commands import app
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.reports.summary import summarize
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.errors import Stopped
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.extension import Extension, extend
from riemannopt_dist.run.grid import place
from riemannopt_dist.run.plan import make_plan
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.shards import Location, shards_of
from riemannopt_dist.run.speed import assumed_speed
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.evaluate import Evaluation
from riemannopt_dist.run.stages.tally import Tally, Timings
from riemannopt_dist.run.status import read_status
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import make_pictures, small_config

OTHER = "results/shard-00001.parquet"
Rows = dict[tuple[Any, ...], dict[str, Any]]
"""Result rows by image and cell."""
KEY = ("image_id", "path", "estimator", "placement", "samples", "tolerance")
SLOW = {"name": "riemannopt_dist.testing.small_world:slow_classifier"}
BLOCK = {"placements": ["linear", "exact"], "estimators": ["left"], "samples": [4]}
SMALL = {"model": SLOW, "limit": 4, "grid": [BLOCK], "metrics": ["completeness", "insertion"]}
LARGE = {
    **SMALL,
    "limit": 7,
    "grid": [{**BLOCK, "samples": [4, 8]}],
    "metrics": ["deletion", "completeness", "insertion"],
    "maps": {"cells": ["*/8"]},
}
AT_ONCE = {key: value for key, value in LARGE.items() if key != "model"}
BLUR = {"paths": ["blur_ig"], "placements": ["exact"], "estimators": ["left"], "samples": [4]}
WITH_BLUR = {**LARGE, "grid": [*LARGE["grid"], BLUR], "controls": ["edges"]}


# --- Which rows stay, and what is refused ---


@pytest.mark.parametrize(
    ("changes", "stay"),
    [
        ({"limit": 5}, ["left/linear/4", "idgi/linear/4", "edges"]),
        ({"metrics": ["deletion", "reference"]}, []),
        ({"placements": ["linear"], "samples": [4, 8]}, ["left/linear/4", "idgi/linear/4", "edges"]),
        # The profile places the points of converged maps, with which IDGI's are not compared.
        ({"placements": ["linear", "exact"]}, ["idgi/linear/4", "edges"]),
    ],
    ids=["images", "a metric", "a count", "the first fitted points"],
)
def test_rows_stay_that_a_larger_run_would_have(
    tmp_path: Path, changes: dict[str, Any], stay: list[str]
) -> None:
    def config(limit: int = 4, metrics: tuple[str, ...] = ("reference",), **block: Any) -> Config:
        grid = [{"estimators": ["left", "idgi"], "placements": ["linear"], "samples": [4], **block}]
        return small_config(tmp_path, tmp_path, limit=limit, metrics=metrics, grid=grid, controls=["edges"])

    extension = Extension(config(), config(**changes))
    assert {str(cell) for cell in extension.kept} == {
        "none/edges/none/0" if name == "edges" else f"ig/{name}" for name in stay
    }
    assert {*extension.kept, *extension.lacking} == {*extension.now.row_cells()}
    assert Extension(config(), config()).lacking == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"limit": 3}, r"limit, 3 being less than its 4"),
        ({"grid": [{**BLOCK, "placements": ["linear"]}]}, r"grid, without its ig/left/exact/4"),
        ({"metrics": ["insertion", "deletion"]}, r"metrics, without its completeness"),
        ({"seed": 1, "limit": 9}, "seed"),
        ({"fit": {"images": 4, "samples": 16}}, "fit"),
        ({"shard_size": 5}, "shard_size"),
        ({"explain": "logit", "metrics": ["insertion"]}, "explain; metrics, without its completeness"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_less_and_other_is_refused_in_a_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    directory = RunDirectory(Storage(tmp_path / "run"))
    directory.claim(small_config(tmp_path, tmp_path / "run", **SMALL), "digest")
    line = rf"^{tmp_path}/run: holds a run of another configuration \(differs in: {told}\); choose another"
    with pytest.raises(ValueError, match=line):
        directory.holds(small_config(tmp_path, tmp_path / "run", **{**SMALL, **changes}), None)
    assert directory.holds(small_config(tmp_path, tmp_path / "run", **LARGE), "digest")
    with pytest.raises(ValueError, match=r"\(differs in: the model's weights\)"):
        directory.holds(small_config(tmp_path, tmp_path / "run", **LARGE), "another")


def test_what_was_not_compared_may_be_compared_in_any_way(tmp_path: Path) -> None:
    directory = RunDirectory(Storage(tmp_path / "run"))
    metrics = [*SMALL["metrics"], "reference"]
    directory.claim(small_config(tmp_path, tmp_path / "run", **SMALL), "digest")
    changes = {**SMALL, "metrics": metrics, "reference": {"intervals": 16}}
    larger = small_config(tmp_path, tmp_path / "run", **changes)
    assert directory.holds(larger, "digest")
    extend(directory, larger)
    changes["reference"] = {"intervals": 32}
    with pytest.raises(ValueError, match=r"\(differs in: reference\)"):
        directory.holds(small_config(tmp_path, tmp_path / "run", **changes), "digest")


@pytest.mark.parametrize("groups", [1, 3, 50])
def test_shards_stay_when_images_come_after_a_cut(groups: int) -> None:
    """Wherever the images lie: row groups of Parquet, whose images would come together in one shard."""

    def located(item: int) -> Location | None:
        return None if groups == 1 else Location("x", item % groups, item)

    items = list(range(40))
    first = shards_of(items[:10], 4, located)
    second = shards_of(items[:23], 4, located, [10])
    third = shards_of(items, 4, located, [10, 23])
    assert [*second.items()][: len(first)] == [*first.items()]
    assert [*third.items()][: len(second)] == [*second.items()]
    assert sorted(item for shard in third.values() for item in shard) == items
    # Of a limit that there were not enough images for, no shard tells.
    assert shards_of(items, 4, located, [100]) == shards_of(items, 4, located)


def test_a_run_to_be_extended_says_so_everywhere(tmp_path: Path) -> None:
    """Its one shard is of the run before, and lacks a metric."""
    directory = made_run(tmp_path)
    fields = directory.read_run()["config"]
    larger = small_config(tmp_path, tmp_path / "run", **{**fields, "metrics": ["completeness", "insertion"]})
    extension = extend(directory, larger)
    assert extension is not None
    assert [*extension.words()] == ["metrics insertion", "8 cells computed again for these"]
    assert extend(directory, larger) is None
    assert [*problems(directory)] == [f"{SHARD}: of before the run was extended, and not extended yet"]
    status = read_status(directory.storage).stages[-1]
    assert (status.done, status.left, status.behind) == (0, 3, ("shard-00000",))
    table = read_results(directory.storage)
    assert table.num_rows == 3 * 8
    assert "insertion" not in table.column_names


def test_each_part_alone_has_the_rows_that_all_have(tmp_path: Path) -> None:
    """Cells that share samples with others, a walk, and controls without any cell beside them."""
    block = {"paths": ["ig", "guided_ig"], "estimators": ["left", "trapezoid"], "placements": ["linear"]}
    config = small_config(
        make_pictures(tmp_path / "pictures", 3),
        tmp_path / "run",
        grid=[{**block, "samples": [3, 5]}],
        metrics=["completeness", "insertion", "reference"],
        controls=["edges", "random"],
    )
    examples = [Example(ref, 1) for ref in list_images(config.images)]
    stage = Evaluation(
        placed=place(config.cells(), config.paths(), {}),
        paths=config.paths(),
        controls=config.controls,
        metrics=config.metrics,
        reference_edges=dict.fromkeys(config.paths(), linear_partition(8)),
        reference_images=frozenset(example.image.image_id for example in examples),
        explain="probability",
        batch_size=2,
        seed=0,
    )
    model = load_model(config.model.name, None)
    engine = Engine(model, torch.device("cpu"), files_of(config.images), 8, Tally())

    def rows(some: Evaluation) -> Rows:
        return {tuple(row[name] for name in KEY): row for row in some.rows(engine, examples)}

    whole = rows(stage)
    parts = [rows(stage.only([part])) for part in stage.parts]
    assert [len(part) for part in parts] == [3] * (8 + 2)
    same_rows({key: row for part in parts for key, row in part.items()}, whole, 1e-5)


# --- Whole runs ---


def keyed(directory: RunDirectory) -> Rows:
    """Result rows by image and cell; each once."""
    rows = directory.shard_rows("results")
    by_key = {tuple(row[name] for name in KEY): row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def work_done(directory: RunDirectory) -> int:
    """Gradients of all result shards."""
    schemas = map(directory.storage.read_schema, directory.storage.list("results"))
    return sum(timings.gradient_evaluations for schema in schemas if (timings := Timings.of(schema)))


def same_rows(mine: Rows, others: Rows, within: float = 1e-6) -> None:
    """But for seconds, and for rounding, which micro-batches of other images have."""
    assert mine.keys() == others.keys()
    for key, row in mine.items():
        for name, value in row.items():
            expected = value if name == "seconds" else others[key][name]
            if not isinstance(expected, str | None):
                expected = pytest.approx(expected, rel=within, abs=within, nan_ok=True)
            assert value == expected, (key, name)


def stopped(config: Config, awaited: Path) -> Stopped:
    """How a run ends that gets a signal as soon as there is a file."""
    assert not awaited.exists()

    def stop() -> None:
        while not awaited.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(Stopped) as error:
        evaluate(config)
    thread.join(timeout=60)
    return error.value


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("world") / "pictures", 12)


@pytest.fixture(scope="module")
def at_once(pictures: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> RunDirectory:
    """The larger run, without a smaller one before, and with the same model at its own speed."""
    return evaluate(small_config(pictures, tmp_path_factory.mktemp("once") / "run", **AT_ONCE))


@pytest.fixture(scope="module")
def extended(pictures: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> RunDirectory:
    """A run of 4 images, extended to 7 with a count and a metric more, stopped at it, and gone on with."""
    output = tmp_path_factory.mktemp("more") / "run"
    evaluate(small_config(pictures, output, **SMALL))
    shutil.copytree(output, output.with_name("small"))
    larger = small_config(pictures, output, **LARGE)
    plan = make_plan(larger)
    assert (plan.there, plan.kept_rows, plan.result_rows, plan.result_files) == (4, 0, 7 * 4, 3)
    maps_of_a_shard = output / "maps/ig/left/linear/8" / Path(SHARD).name  # written before its rows
    assert " of 7 images done in stage results" in str(stopped(larger, maps_of_a_shard))
    # As if it had been killed a shard earlier.
    shutil.copy(output.with_name("small") / OTHER, output / OTHER)
    shutil.copytree(output, output.with_name("stopped"))
    return evaluate(larger)


def test_an_extended_run_ends_as_one_made_at_once(extended: RunDirectory, at_once: RunDirectory) -> None:
    assert [*problems(extended)] == []
    same_rows(keyed(extended), keyed(at_once))
    assert extended.read_images() == at_once.read_images()
    assert extended.read_schedules("ig") == at_once.read_schedules("ig")
    status = read_status(extended.storage)
    assert (status.finished, status.stages[-1].behind) == (True, ())
    mine, others = (summarize(read_results(one.storage)) for one in (extended, at_once))
    assert mine.columns.tolist() == others.columns.tolist()
    assert not mine.isna().any().any()
    assert (
        not ro.open_run(extended.storage.root)
        .results(["deletion", "insertion"])
        .to_pandas()
        .isna()
        .any()
        .any()
    )


def test_half_way_it_is_told_what_is_left(extended: RunDirectory) -> None:
    """One shard is done, one is of before, one is not there."""
    output = str(Path(extended.storage.root).with_name("stopped"))
    status = read_status(Storage(output))
    results = status.stages[-1]
    assert (results.images, results.done, results.left, results.shards, results.shards_done) == (
        7,
        3,
        4,
        3,
        1,
    )
    assert "results: 1 shards of before the run was extended are left" in status.lines()
    assert not status.finished
    runner = CliRunner()
    told = runner.invoke(app, ["verify", output])
    assert (told.exit_code, told.output.splitlines()) == (
        1,
        [
            f"{OTHER}: of before the run was extended, and not extended yet",
            "results/shard-00002.parquet: missing, with 3 images",
        ],
    )
    rows = json.loads(runner.invoke(app, ["summarize", output, "--json"]).output)
    assert {(row["samples"], row["images"], row.get("deletion_mean_left_out")) for row in rows} == {
        (4, 4, 1),
        (8, 3, 0),
    }
    table = ro.open_run(output).results(["deletion", "deletion_curve", "insertion"], samples=4).to_pandas()
    assert (
        table["deletion"].isna().sum() == 2 == sum(math.isnan(curve[0]) for curve in table["deletion_curve"])
    )
    assert not table["insertion"].isna().any()
    again = runner.invoke(app, ["report", output])
    assert again.exit_code == 0, again.output


@pytest.mark.long
def test_what_is_there_is_not_computed_again(extended: RunDirectory) -> None:
    """A path that had none, with its profile, and a control: other rows stay to the last bit."""
    before, work = keyed(extended), work_done(extended)
    fields = extended.read_run()["config"]
    larger = small_config(Path(fields["images"]), Path(fields["output"]), **WITH_BLUR)
    profile = extended.read_schedules("ig")
    plan = make_plan(larger)
    text = " ".join(plan.lines(assumed_speed(1.0)))
    assert "more than before: 1 further cells; controls edges" in text
    assert "images done there: selection 12 of 12, fit 3 of 3, results 7 of 7" in text
    evaluate(larger)
    assert [*problems(extended)] == []
    after = keyed(extended)
    assert {key: after[key] for key in before} == before
    assert {key[1:5] for key in after.keys() - before.keys()} == {
        ("blur_ig", "left", "exact", 4),
        ("none", "edges", "none", 0),
    }
    assert extended.read_schedules("ig") == profile
    planned = sum(part.images * part.gradients for part in plan.work if part.stage == "results")
    assert work_done(extended) - work == planned == 7 * 4


def test_more_images_alone_touch_no_file(at_once: RunDirectory, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(at_once.storage.root, output)
    before = {path: path.read_bytes() for path in output.rglob("*.parquet")}
    larger = small_config(pictures, output, **{**AT_ONCE, "limit": None})
    plan = make_plan(larger)
    assert (plan.there, plan.kept_rows, plan.result_rows) == (7, 7 * 4, 9 * 4)
    evaluate(larger)
    changed = {path for path, data in before.items() if path.read_bytes() != data}
    assert changed == set()
    assert [*problems(RunDirectory(Storage(output)))] == []
    assert read_status(Storage(output)).finished

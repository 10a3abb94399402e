"""The plan of a run against the run itself: the same images, gradients, forward passes and rows."""

import math
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from riemannopt_dist.commands import app
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.plan import START_SECONDS, Plan, make_plan
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.speed import (
    assumed_speed,
    converged_samples,
    measure_speed,
    own_samples,
    shared_samples,
)
from riemannopt_dist.run.stages.tally import Timings
from riemannopt_dist.testing.small_world import FIT, PICTURES, SIDE, make_pictures, small_config

EVALUATED = PICTURES - FIT
CONFIGS = sorted(Path("jobs/configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("world") / "pictures")


class _Summing(nn.Module):
    """A classifier with an operation that secants do not know."""

    input_size = resize_size = SIDE

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.cumsum(dim=2).mean(dim=(2, 3))


def summing_classifier() -> nn.Module:
    return _Summing()


def work_done(directory: RunDirectory, stage: str) -> tuple[int, int]:
    """The gradients and forward passes that a stage's shards tell of."""
    found = [Timings.of(directory.storage.read_table(n).schema) for n in directory.storage.list(stage)]
    shards = [shard for shard in found if shard is not None]
    return sum(s.gradient_evaluations for s in shards), sum(s.forward_passes for s in shards)


def work_planned(plan: Plan, stage: str) -> tuple[int, int]:
    parts = [part for part in plan.work if part.stage == stage]
    return sum(p.images * p.gradients for p in parts), sum(p.images * p.passes for p in parts)


def both(config: Config) -> tuple[Plan, RunDirectory]:
    plan = make_plan(config)
    assert not plan.begun
    assert not Path(config.output).exists()
    return plan, evaluate(config)


@pytest.mark.usefixtures("ray_here")
def test_a_run_does_what_its_plan_says(pictures: Path, tmp_path: Path) -> None:
    """Every method, shared points, points per image, several baselines, references, metrics and a control."""
    blocks: list[dict[str, Any]] = [
        {
            "paths": list(PATHS),
            "placements": ["linear", "equidistribution"],
            "estimators": ["left", "trapezoid", "idgi", "idgi_trapezoid"],
            "samples": [3, 5, 6],
        },
        {
            "paths": ["ig", "blur_ig"],
            "placements": ["equidistribution"],
            "estimators": ["gauss_legendre"],
            "samples": [4],
        },
        {
            "paths": ["ig", "blur_ig"],
            "placements": ["linear", "roughness"],
            "estimators": ["rescale"],
            "samples": [4, 6, 40],
        },
        {
            "paths": ["ig"],
            "placements": ["adaptive"],
            "estimators": ["softmax_trapezoid", "rescale"],
            "samples": [9],
        },
        {
            "paths": ["blur_ig", "guided_ig"],
            "placements": ["equidistribution"],
            "estimators": ["softmax_trapezoid"],
            "samples": [5],
        },
        {
            "paths": ["ig(baseline=noise, draws=3)"],
            "placements": ["linear", "equidistribution"],
            "estimators": ["trapezoid", "rescale", "expected_gradients"],
            "samples": [5],
        },
    ]
    config = small_config(
        pictures,
        tmp_path / "run",
        grid=blocks,
        metrics=["completeness", "insertion", "deletion", "infidelity", "reference"],
        reference={"images": 4, "intervals": 16},
        controls=["edges"],
        fit={"images": FIT, "samples": 16, "refine": "always"},
        limit=8,
    )
    plan, directory = both(config)
    assert (plan.found, plan.unusable, plan.fit, plan.evaluated) == (PICTURES, 0, FIT, 8)
    for stage in ("selection", "fit", "refine", "results"):
        assert work_planned(plan, stage) == work_done(directory, stage), stage
    assert plan.result_rows == len(directory.shard_rows("results"))
    assert plan.result_files == len(directory.done_shards("results"))
    again = make_plan(config)
    assert again.begun
    assert again.gradients == again.passes == 0


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_what_only_the_run_can_tell_is_a_bound(pictures: Path, tmp_path: Path) -> None:
    block = {
        "placements": ["linear", "riemannopt", "eq9", "exact"],
        "estimators": ["left", "midpoint"],
        "samples": [4, 8],
        "tolerances": [0.3],
        "maximum": 32,
    }
    plan, directory = both(
        small_config(pictures, tmp_path / "run", grid=[block], metrics=["information_fast"])
    )
    gradients, passes = work_done(directory, "results")
    planned_gradients, planned_passes = work_planned(plan, "results")
    assert EVALUATED * (8 + 8) < gradients < planned_gradients
    assert passes < planned_passes
    assert work_planned(plan, "fit") == work_done(directory, "fit")
    size = sum((tmp_path / "run" / name).stat().st_size for name in directory.storage.list("results"))
    # Files of three images are mostly their schema; of whole shards the bytes a row are near.
    assert 0.1 * size < plan.result_bytes < 10 * size


def test_gradients_that_cells_share_count_once(pictures: Path, tmp_path: Path) -> None:
    def gradients(**block: Any) -> int:
        given = {"placements": ["linear"], "estimators": ["left"], **block}
        plan = make_plan(small_config(pictures, tmp_path / "run", grid=[given], metrics=["completeness"]))
        (part,) = (p for p in plan.work if p.stage == "results" and p.gradients)
        return part.gradients

    assert gradients(samples=[16, 32, 64, 128]) == 128
    assert gradients(samples=[16, 17], estimators=["left", "trapezoid"]) == 17 + 16 + 14
    assert gradients(samples=[16, 32], placements=["equidistribution"]) == 32
    # The exact points of one count are no others', but all begin at 0.
    assert gradients(samples=[16, 32], placements=["exact"]) == 47
    assert gradients(samples=[16, 32], paths=["guided_ig"]) == 48


def test_hours_follow_from_the_rate(pictures: Path, tmp_path: Path) -> None:
    plan = make_plan(small_config(pictures, tmp_path / "run"))
    seconds = plan.device_seconds(assumed_speed(10.0))
    assert seconds == pytest.approx(plan.gradients / 10 + plan.passes / 30)
    for rate in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"rate: expected finite gradients/s above 0, got {rate}"):
            assumed_speed(rate)


def test_each_kind_of_map_has_its_own_time(pictures: Path, tmp_path: Path) -> None:
    blocks = [
        {"paths": ["ig", "guided_ig"], "placements": ["linear"], "estimators": ["left"], "samples": [4, 8]},
        {"paths": ["ig"], "placements": ["linear", "adaptive"], "estimators": ["rescale"], "samples": [9, 5]},
    ]
    config = small_config(
        pictures,
        tmp_path / "run",
        grid=blocks,
        metrics=["reference"],
        reference={"intervals": 16},
        fit={"profiles": "demo:"},
    )
    plan = make_plan(config)
    kinds = {
        shared_samples("ig"),
        shared_samples("guided_ig"),
        own_samples(Cell("ig", "rescale", "linear", 5)),
        own_samples(Cell("ig", "rescale", "adaptive", 9)),
        converged_samples("ig"),
        converged_samples("guided_ig"),
    }
    assert plan.kinds == kinds
    speed = measure_speed(config, plan.kinds)
    assert speed.seconds.keys() == kinds
    assert all(
        0 < seconds < 1 for seconds in (1 / speed.gradients, 1 / speed.passes, *speed.seconds.values())
    )
    assert "measured on this machine's" in speed.source
    plain = replace(speed, seconds={})
    walked = next(part for part in plan.work if part.kind == shared_samples("guided_ig"))
    slow = replace(plain, seconds={walked.kind: 1 + 1 / plain.gradients})
    more = plan.device_seconds(slow) - plan.device_seconds(plain)
    assert more == pytest.approx(walked.images * walked.gradients)


def test_workers_share_the_shards_of_a_stage(pictures: Path, tmp_path: Path) -> None:
    """Five shards of three images to select from, one to fit on and four to evaluate."""
    plan, speed = make_plan(small_config(pictures, tmp_path / "run")), assumed_speed(10.0)
    stages: dict[str, float] = defaultdict(float)
    for part in plan.work:
        stages[part.stage] += part.seconds(speed)
    for workers, rounds in ((1, (5, 1, 4)), (2, (3, 1, 2)), (9, (1, 1, 1))):
        shares = dict(
            zip(("selection", "fit", "results"), (rounds[0] / 5, rounds[1], rounds[2] / 4), strict=True)
        )
        shares["refine"] = shares["fit"]
        wall = START_SECONDS + sum(shares[stage] * seconds for stage, seconds in stages.items())
        assert replace(plan, workers=workers).wall_seconds(speed) == pytest.approx(wall)
    assert plan.workers == 1


@pytest.mark.parametrize(
    ("workers", "room", "told"),
    [
        (1, 1, "with 1 worker, which this machine has room for"),
        (16, 2, "with 16 workers, of which this machine has room for 2"),
        (16, 0, "with 16 workers, of which this machine has room for none"),
    ],
)
def test_workers_that_there_is_no_room_for_are_told(
    pictures: Path, tmp_path: Path, workers: int, room: int, told: str
) -> None:
    plan = replace(make_plan(small_config(pictures, tmp_path / "run")), workers=workers, room=room)
    assert any(line.endswith(told) for line in plan.lines(assumed_speed(10.0)))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scaling": {"gpus_per_worker": 0.00001}}, "scaling.gpus_per_worker: .*, got 1e-05"),
        ({"model": {"name": "resnet_fifty"}}, "model: unknown name 'resnet_fifty'"),
        ({"model": {"name": "resnet18", "weights": "IMAGENET1K_V9"}}, "weights: no file 'IMAGENET1K_V9'"),
        ({"model": {"name": "resnet18", "weights": __file__}}, "weights: .*not a plain state dict"),
        (
            {
                "model": {"name": "tests.run.test_plan:summing_classifier"},
                "grid": [{"placements": ["linear"], "estimators": ["rescale"]}],
            },
            "model: the Rescale rule is not known for its operation cumsum",
        ),
        (
            {"model": {"name": "tests.unsound:unregistered"}},
            "model: built once more from its weights",
        ),
    ],
)
def test_a_model_that_the_run_would_refuse_has_no_plan(
    pictures: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        make_plan(small_config(pictures, tmp_path / "run", **changes))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_has_a_plan(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(260):
        (folder / f"{n}.jpg").touch()
    images = [] if config.stem == "demo" else ["--images", str(folder)]
    output = tmp_path / "run"
    ended = CliRunner().invoke(
        app,
        ["evaluate", "-c", str(config), "--output", str(output), "--dry-run", "--rate", "500", *images],
    )
    assert ended.exit_code == 0, ended.output
    found = re.search(r"gradients: (\d+) in all", ended.output)
    assert found is not None
    assert int(found[1]) > 100
    assert not output.exists()


def test_the_recommendation_costs_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(1000):
        (folder / f"{n}.jpg").touch()
    command = [
        "evaluate",
        "-c",
        "jobs/configs/best.yaml",
        "--images",
        str(folder),
        "--dry-run",
        "--rate",
        "500",
    ]
    lines = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "run")]).output.splitlines()
    table = [re.split(r"  +", line.strip()) for line in lines]
    gradients = {row[1]: int(row[3]) for row in table if row[0] in ("fit", "results")}
    # Secants share nothing, and take a sample at the path's start along; every schedule of a walk is its own.
    for samples in (16, 32, 64):
        cells = (f"{path}/rescale/adaptive/{samples}" for path in ("ig", "blur_ig"))
        assert [gradients[cell] for cell in cells] == [samples + 1] * 2
    assert gradients["guided_ig, 3 cells"] == 112
    assert gradients["reference ig"] == gradients["reference blur_ig"] == 1025
    # A walk's integral is its own, too: 8 pieces for each of its steps.
    assert gradients["reference guided_ig"] == sum(8 * (samples - 1) + 1 for samples in (16, 32, 64))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metrics": ["pointing_game"]}, "metrics: pointing_game needs the boxes of objects"),
        ({"grid": [{"paths": [{"path": "ig", "baseline": "gone/black.png"}]}]}, "baseline: "),
        ({"grid": [{"paths": [{"path": "ig", "baseline": [0.5, 0.5]}]}]}, "baseline: "),
    ],
    ids=["no boxes", "no picture", "two channels"],
)
def test_what_does_not_depend_on_weights_is_refused_without_them(
    changes: dict[str, Any], told: str, pictures: Path, tmp_path: Path
) -> None:
    """Of a published network, for which random weights stand in."""
    config = small_config(pictures, tmp_path / "run", model={"name": "resnet18"}, **changes)
    with pytest.raises(ValueError, match=f"^{told}"):
        make_plan(config)


def test_a_dry_run_starts_no_ray_and_refuses_what_the_run_would(pictures: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from riemannopt_dist.commands import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "finally:\n    assert 'ray' not in sys.modules"
    )
    config = tmp_path / "config.yaml"
    fields = small_config(pictures, tmp_path / "run").model_dump_json()
    config.write_text(fields)
    command = [sys.executable, "-c", code, "evaluate", "-c", str(config), "--dry-run"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "device hours" in ended.stdout
    assert not (tmp_path / "run").exists()
    config.write_text(fields.replace(f'"images":{FIT}', f'"images":{PICTURES}'))
    refused = CliRunner().invoke(app, ["evaluate", "-c", str(config), "--dry-run", "--rate", "1"])
    assert refused.exit_code == 2
    assert refused.output.startswith(f"error: fit.images: {PICTURES} images to fit on")
    assert len(refused.output.splitlines()) == 1

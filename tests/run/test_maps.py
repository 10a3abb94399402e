"""Maps on disk: what a run stores of them, how far off that is, and what is done when a file is gone."""

import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import riemannopt_dist as ro
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.reader import RunReader
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import load_config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.examples import evaluated_examples
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.maps import MapOutput, about_maps, maps_of
from riemannopt_dist.run.plan import make_plan
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.speed import assumed_speed
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.run.verification import problems
from riemannopt_dist.testing.s3_server import Bucket
from riemannopt_dist.testing.small_world import FIT, SIDE, make_pictures, small_config

pytestmark = pytest.mark.usefixtures("ray_here")

CELLS = [Cell("ig", "left", "linear", 4), Cell("blur_ig", "trapezoid", "linear", 5)]


@pytest.mark.parametrize("channels", ["sum", "all"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_maps_come_back_as_exact_as_is_said(channels: str, dtype: str) -> None:
    """Of any size: half precision alone would lose those below 6e-8. The error is of the largest value."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1.0, 1e-9, 3e4, 0.0]).view(4, 1, 1, 1)
    maps = sizes * torch.randn(4, 3, 6, 5, generator=generator)
    output = MapOutput(frozenset(CELLS), None, channels, dtype)  # type: ignore[arg-type]
    names = ["a", "b", "c", "d"]
    table = output.table(CELLS[0], names, maps)
    assert about_maps(table)["shape"] == ([6, 5] if channels == "sum" else [3, 6, 5])
    assert about_maps(table)["cell"] == {
        "path": "ig",
        "estimator": "left",
        "placement": "linear",
        "samples": 4,
        "tolerance": None,
    }
    expected = (maps.sum(1) if channels == "sum" else maps).numpy()
    for place, (name, values) in enumerate(maps_of(table)):
        assert name == names[place]
        assert values.dtype == np.float32
        error = np.abs(values - expected[place]).max()
        largest = np.abs(expected[place]).max()
        assert error == 0 if dtype == "float32" else error <= 2**-11 * largest * (1 + 1e-3)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run that stores all maps of its first five images, in float32 with their channels."""
    world = tmp_path_factory.mktemp("world")
    maps = {"channels": "all", "dtype": "float32", "images": 5}
    config = small_config(make_pictures(world / "pictures"), world / "run", maps=maps)
    evaluate(config)
    return config


@pytest.fixture
def reader(stored: Config) -> RunReader:
    return ro.open_run(stored.output)


def test_a_run_stores_what_the_library_computes(stored: Config, reader: RunReader) -> None:
    model = load_model(stored.model.name)
    chosen = evaluated_examples(reader.images().to_pylist(), stored)[:5]
    schedules = reader.schedules("ig")
    assert list(problems(reader.directory)) == []
    for estimator, placement, samples in (("left", "linear", 8), ("trapezoid", "exact", 4)):
        found = dict(reader.maps(estimator=estimator, placement=placement, samples=samples))
        assert [*found] == [example.image.image_id for example in chosen]
        for example in chosen:
            image, target = read_tensor(example.image, model)[None], torch.tensor([example.target])
            schedule = schedules.get((estimator, placement, samples)) or ro.linear_schedule(8)
            expected = ro.integrated_gradients(model, image, target, schedule).maps[0].numpy()
            np.testing.assert_allclose(found[example.image.image_id], expected, rtol=1e-3, atol=1e-6)


def test_sums_of_maps_are_those_of_the_results(reader: RunReader) -> None:
    rows = reader.results(["image_id", "attribution_sum"], placement="linear", samples=8, estimator="left")
    sums = dict(zip(rows["image_id"].to_pylist(), rows["attribution_sum"].to_pylist(), strict=True))
    for name, values in reader.maps(placement="linear", samples=8, estimator="left"):
        assert float(values.astype(np.float64).sum()) == pytest.approx(sums[name], rel=1e-6, abs=1e-9)


def test_what_is_lost_or_damaged_is_told_and_nothing_else_made_again(
    stored: Config, reader: RunReader, tmp_path: Path
) -> None:
    """A file of maps, and a shard of rows, which has no maps."""
    output = tmp_path / "run"
    shutil.copytree(stored.output, output)
    fields = {**stored.model_dump(mode="json"), "output": str(output)}
    config = small_config(Path(stored.images), output, maps=fields["maps"])
    directory = RunDirectory(ro.open_run(str(output)).directory.storage)
    before = {path: path.read_bytes() for path in (output / "maps").rglob("*.parquet")}
    assert len(before) == 2 * 8  # the first five images are in two shards
    lost = output / "maps/ig/left/linear/8/shard-00001.parquet"
    lost.unlink()
    assert [*problems(directory)] == [f"{output}/maps/ig/left/linear/8/shard-00001.parquet: no such file"]
    rows = output / "results/shard-00003.parquet"
    rows.unlink()
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    evaluate(config)
    assert list(problems(directory)) == []
    changed = {path for path in output.rglob("*.parquet") if path.stat().st_mtime_ns != times.get(path)}
    assert {path.stem for path in changed if path.parent != output} == {"shard-00001", "shard-00003"}
    rows_of = [one.results().drop_columns(["seconds"]) for one in (reader, ro.open_run(str(output)))]
    assert rows_of[0].equals(rows_of[1])
    again = dict(maps_of(directory.table("maps/ig/left/linear/8/shard-00001.parquet")))
    assert [*again] == [
        name
        for name in dict(ro.open_run(stored.output).maps(samples=8, estimator="left", placement="linear"))
    ][3:]
    data = bytearray(lost.read_bytes())
    data[len(data) // 2] ^= 1
    lost.write_bytes(data)
    (told,) = problems(directory)
    assert "shard-00001.parquet: damaged" in told


@pytest.mark.long
def test_storing_maps_later_does_the_shards_again_and_changes_no_row(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures", 7)
    config = small_config(pictures, tmp_path / "run")
    directory = evaluate(config)
    rows = [{**row, "seconds": 0} for row in directory.shard_rows("results")]
    maps = {"cells": ["ig/left/*"], "channels": "sum"}
    evaluate(small_config(pictures, tmp_path / "run", maps=maps))
    assert [{**row, "seconds": 0} for row in directory.shard_rows("results")] == rows
    reader = ro.open_run(str(tmp_path / "run"))
    assert {table.num_rows for table in reader.map_tables()} <= {3, 1}
    assert {(about["placement"], about["samples"]) for about in cells(reader)} == {
        (placement, samples) for placement in ("linear", "exact") for samples in (4, 8)
    }
    shapes = {values.shape for _, values in reader.maps()}
    assert shapes == {(SIDE, SIDE)}
    assert len([*reader.maps(placement="exact", samples=8)]) == 7 - FIT


def test_converged_maps_are_stored_of_the_images_that_are_compared(bucket: Bucket, tmp_path: Path) -> None:
    """A path's once, and none of a walk, which has as many as schedules. In a bucket as in a folder."""
    grid = [{"paths": ["ig", "guided_ig"], "placements": ["linear"], "estimators": ["left"], "samples": [4]}]
    config = small_config(
        make_pictures(tmp_path / "pictures", 8),
        bucket.uri("bucket/run"),
        grid=grid,
        metrics=["reference"],
        reference={"images": 2, "intervals": 16},
        maps={"images": 3, "converged": True, "channels": "all", "dtype": "float32"},
    )
    directory = evaluate(config)
    assert list(problems(directory)) == []
    reader, model = ro.open_run(config.output), load_model(config.model.name)
    chosen = evaluated_examples(reader.images().to_pylist(), config)
    stored = dict(reader.maps(estimator="converged"))
    assert [*stored] == [example.image.image_id for example in chosen[:2]]
    assert len(dict(reader.maps(path="guided_ig"))) == 3
    for example in chosen[:2]:
        image, target = read_tensor(example.image, model)[None], torch.tensor([example.target])
        expected = (
            ro.converge(ro.Objective(model, target), ro.StraightPath.from_black(image), 16).maps[0].numpy()
        )
        np.testing.assert_allclose(stored[example.image.image_id], expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"maps.converged: converged maps come with the metric reference"):
        small_config(tmp_path, tmp_path, maps={"converged": True})


def cells(reader: RunReader) -> list[dict[str, object]]:
    return [about_maps(table)["cell"] for table in reader.map_tables()]


def test_the_page_on_reading_runs_and_all_readers_agree(
    stored: Config, reader: RunReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page reads the demo; here its cell has 8 samples."""
    demo = load_config("jobs/configs/demo.yaml")
    assert demo.maps is not None
    assert Cell("ig", "left", "linear", 16) in demo.maps.chosen(demo.cells())
    page = Path("docs/reading.md").read_text(encoding="utf-8")
    page, count = re.subn(r"(?<=linear/)16\b|(?<=samples=)16\b", "8", page)
    assert count == 5
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(stored.output)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found: list[dict[str, Any]] = []
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        found.append({})
        exec(block, found[-1])
    ours, of_pandas, of_duckdb, of_polars, of_datasets, columns = found
    expected, errors = ours["maps"], ours["errors"].to_numpy()
    assert len(expected) == 5
    assert len(errors) == 4
    np.testing.assert_allclose(of_pandas["errors"].to_numpy(), errors, rtol=1e-12)
    np.testing.assert_allclose(of_duckdb["errors"]["error"], errors, rtol=1e-12)
    np.testing.assert_allclose(of_polars["errors"]["relative_error"], errors, rtol=1e-12)
    rows = of_datasets["rows"].to_pandas()
    rows = rows[(rows["path"] == "ig") & (rows["estimator"] == "left")]
    of_rows = rows.groupby(["placement", "samples"])["relative_error"].mean()
    np.testing.assert_allclose(of_rows.to_numpy(), errors, rtol=1e-12)
    sums = dict(of_duckdb["sums"].itertuples(index=False))
    for name, values in expected.items():
        np.testing.assert_array_equal(of_pandas["maps"][name], values)
        np.testing.assert_array_equal(of_polars["maps"][name], values.ravel())
        assert sums[name] == pytest.approx(values.sum(dtype=np.float64), abs=1e-6)
    np.testing.assert_array_equal(of_datasets["attribution"], next(iter(expected.values())).ravel())
    assert columns["meanings"]["relative_error"][b"direction"] == b"lower is better"


def test_what_is_not_there_is_named(stored: Config, reader: RunReader, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no maps of path blur_ig are stored"):
        [*reader.maps(path="blur_ig")]
    with pytest.raises(ValueError, match=r"^rule: cells are chosen by path, estimator"):
        [*reader.maps(rule="left")]
    with pytest.raises(ValueError, match=r"columns: expected some of image_id, .* got 'errors'"):
        reader.results(["errors"])
    for read in (reader.profile, reader.schedules):
        with pytest.raises(ValueError, match=r"no profile of the path 'blur_ig'"):
            read("blur_ig")
    with pytest.raises(ValueError, match="no run in it"):
        ro.open_run(str(tmp_path))
    with pytest.raises(ValueError, match=r"maps.cells: no cell of the grid is called 'ig/secant/\*'"):
        small_config(tmp_path, tmp_path, maps={"cells": ["ig/secant/*"]})


def test_the_plan_counts_their_bytes(stored: Config, tmp_path: Path) -> None:
    plan = make_plan(small_config(Path(stored.images), tmp_path / "new", maps={"images": 3}))
    assert plan.map_bytes == 3 * 8 * SIDE * SIDE * 2
    maps = {"channels": "all", "dtype": "float32", "images": 5}
    full = make_plan(small_config(Path(stored.images), tmp_path / "new", maps=maps))
    assert full.map_bytes == 5 * 8 * 3 * SIDE * SIDE * 4
    assert "0.0691 MB before compression" in " ".join(full.lines(assumed_speed(9.0)))
    # The converged map of the one path, of the two images that are compared.
    compared = make_plan(
        small_config(
            Path(stored.images),
            tmp_path / "new",
            maps={**maps, "converged": True},
            metrics=["completeness", "reference"],
            reference={"intervals": 32, "images": 2},
        )
    )
    assert compared.map_bytes == (5 * 8 + 2) * 3 * SIDE * SIDE * 4

"""What is done with the maps that a run has stored: exported, scored again, audited."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from typer.testing import CliRunner

import riemannopt_dist as ro
from riemannopt_dist.commands import app
from riemannopt_dist.map_files.export import export_maps
from riemannopt_dist.metrics.metric import Metric
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.reader import RunReader, StoredMaps
from riemannopt_dist.reports.formats import FORMATS
from riemannopt_dist.reports.run_page import INDEX
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.examples import example_of
from riemannopt_dist.run.grid import cell_of
from riemannopt_dist.run.maps import Channels, MapOutput, StoredType, maps_of
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.schemas import results_schema
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.run.verification import problems
from riemannopt_dist.run_data.curves import mean_curves
from riemannopt_dist.run_data.data import run_data
from riemannopt_dist.scoring import check_scorable, score_run
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DamagedFile
from riemannopt_dist.testing.s3_server import Bucket
from riemannopt_dist.testing.small_world import FIT, SIDE, make_pictures, small_fields

pytestmark = pytest.mark.usefixtures("ray_here")

IMAGES = 8
SHARDS = 4
MODEL = "riemannopt_dist.testing.small_world:tiny_classifier"
SCORED = (
    "completeness",
    "insertion",
    "insertion_smoothed",
    "deletion",
    "infidelity",
    "information_fast",
    "sensitivity_n",
    "road",
    "sparseness",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Config:
    """A run that stores its maps, in float32 with their channels."""
    world = tmp_path_factory.mktemp("world")
    fields = small_fields(
        make_pictures(world / "pictures", FIT + IMAGES),
        world / "run",
        grid=[
            {"placements": ["linear"], "estimators": ["left", "trapezoid"], "samples": [3, 6]},
            {"placements": ["idg"], "estimators": ["idg"], "samples": [6]},
            {"placements": ["non_uniform"], "estimators": ["left_ig"], "samples": [6]},
        ],
        metrics=[*SCORED, "reference"],
        reference={"intervals": 64},
        maps={"channels": "all", "dtype": "float32", "cells": ["*/linear/*"]},
        shard_size=2,
        internal_batch_size=32,
    )
    config = make_config(fields, "test")
    evaluate(config)
    return config


@pytest.fixture(scope="module")
def reader(config: Config) -> RunReader:
    return ro.open_run(config.output)


def rows_of(table: pa.Table) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows by image and cell."""
    return {(row["image_id"], cell_of(row)): row for row in table.to_pylist()}


def assert_alike(table: pa.Table, expected: pa.Table) -> None:
    """The same rows, with numbers equal to 1e-6, of lists each; texts and what is missing are the same."""
    rows, others = rows_of(table), rows_of(expected)
    assert rows.keys() == others.keys()
    for key, row in rows.items():
        for name, value in row.items():
            other = others[key][name]
            if isinstance(other, float | list):
                np.testing.assert_allclose(value, other, rtol=1e-6, atol=1e-6, equal_nan=True, err_msg=name)
            else:
                assert value == other, name


def stored_as(reader: RunReader, output: Path, channels: Channels, dtype: StoredType) -> RunReader:
    """The same run with its maps stored otherwise."""
    shutil.copytree(reader.directory.storage.root, output, ignore=shutil.ignore_patterns("scores"))
    copy = ro.open_run(str(output))
    for stored in reader.stored_maps():
        cell = cell_of(stored.about["cell"])
        form = MapOutput(frozenset({cell}), None, channels, dtype)
        for file in stored.files:
            ids, maps = zip(*maps_of(reader.directory.table(file)), strict=True)
            copy.directory.write_table(file, form.table(cell, ids, torch.from_numpy(np.stack(maps))))
    return copy


def test_scores_of_stored_maps_are_those_of_the_run(reader: RunReader) -> None:
    """And are found again when they are asked for again; the run is as whole as before."""
    assert list(problems(reader.directory)) == []
    tables = score_run(reader, SCORED)
    for name, table in tables.items():
        assert_alike(table, reader.results(table.column_names, placement="linear"))
        meant = {field.name: field.metadata for field in results_schema([METRICS[name]])}
        assert table.schema.field(table.column_names[-1]).metadata == meant[table.column_names[-1]]
    assert list(problems(reader.directory)) == []
    files = {
        path: path.stat().st_mtime_ns
        for path in Path(reader.directory.storage.root, "scores").rglob("*.parquet")
    }
    assert len(files) == len(SCORED) * SHARDS
    lost = next(path for path in files if path.parent.name == "deletion")
    lost.unlink()
    again = score_run(reader, ["insertion", "deletion"])
    assert_alike(again["deletion"], tables["deletion"])
    written = {path for path, moment in files.items() if path.stat().st_mtime_ns != moment}
    assert written == {lost}


@pytest.mark.parametrize(("estimator", "placement"), [("idg", "idg"), ("left_ig", "non_uniform")])
def test_points_by_the_output_are_those_of_the_library(
    reader: RunReader, config: Config, estimator: str, placement: str
) -> None:
    """And the metrics of maps that were not stored, which are no nearer to Integrated Gradients' integral."""
    model = load_model(MODEL)
    chosen = {row["image_id"]: row for row in reader.images().to_pylist()}
    rows = reader.results(estimator=estimator, placement=placement).to_pylist()
    assert len(rows) == IMAGES
    for row in rows[:3]:
        image = read_tensor(example_of(chosen[row["image_id"]], config.targets).image, model)[None]
        target = torch.tensor([row["target"]])
        found = ro.attribute(model, image, target, estimator=estimator, placement=placement, samples=6)
        assert row["attribution_sum"] == pytest.approx(float(found.maps.sum()), rel=1e-4)
        assert row["sparseness"] == pytest.approx(float(ro.sparseness(found.maps)), rel=1e-4)
        curve = ro.road(ro.Objective(model, target), image, found.maps, seed=config.seed)
        assert row["road_curve"] == pytest.approx(curve.curve[0].tolist(), rel=1e-3)
        assert np.isnan(row["reference_error"])


def test_mean_curves_are_at_the_shares_that_their_columns_tell(reader: RunReader) -> None:
    curves = {curve.score: curve for curve in mean_curves(reader.directory)}
    assert {"insertion", "road"} <= curves.keys()
    assert "sensitivity_n" not in curves  # which is no f
    assert curves["insertion"].x == pytest.approx(np.arange(21) / 20)
    road = curves["road"]
    assert road.x == pytest.approx(np.arange(10) / 10)
    path, estimator, placement, samples, _ = road.cell
    rows = reader.results(path=path, estimator=estimator, placement=placement, samples=samples)
    assert road.values == pytest.approx(np.mean(rows["road_curve"].to_pylist(), axis=0), rel=1e-5)


def test_pixels_are_taken_out_to_the_start_of_the_maps_path(tmp_path: Path) -> None:
    """By a run and from its stored maps, whatever is computed beside; black of a control."""
    paths = ["ig", "ig(baseline=white)", "ig(baseline=noise, draws=2)", "blur_ig"]
    names = ["infidelity", "sensitivity_n"]
    fields = small_fields(
        make_pictures(tmp_path / "pictures", FIT + 2),
        tmp_path / "run",
        grid=[{"paths": paths, "placements": ["linear"], "estimators": ["left"], "samples": [6]}],
        metrics=names,
        controls=["edges"],
        maps={"channels": "all", "dtype": "float32"},
    )
    config = make_config(fields, "test")
    evaluate(config)
    reader = ro.open_run(config.output)
    tables = score_run(reader, names)
    for table in tables.values():
        assert_alike(table, reader.results(table.column_names, placement="linear"))
    model = load_model(MODEL)
    listed = {row["image_id"]: example_of(row, config.targets) for row in reader.images().to_pylist()}
    scores = {(row["image_id"], row["path"]): row for row in tables["infidelity"].to_pylist()}
    files = [file for stored in reader.stored_maps(path=paths[1]) for file in stored.files]
    for name, values in (one for file in files for one in maps_of(reader.directory.table(file))):
        image, row = read_tensor(listed[name].image, model)[None], scores[name, paths[1]]
        objective = ro.Objective(model, torch.tensor([row["target"]]), config.explain)
        maps, white = torch.from_numpy(values.copy())[None], torch.ones_like(image)
        expected = ro.infidelity(objective, image, maps, baselines=white, seed=config.seed)
        assert row["infidelity"] == pytest.approx(float(expected), rel=1e-4)


def test_sums_over_channels_are_enough(reader: RunReader, tmp_path: Path) -> None:
    """In float32 for the same scores; in float16 for those of maps that are off by what is said."""
    summed = stored_as(reader, tmp_path / "summed", "sum", "float32")
    for table in score_run(summed, ("completeness", "insertion"), samples=6).values():
        assert_alike(table, reader.results(table.column_names, samples=6, placement="linear"))
    halved = stored_as(reader, tmp_path / "halved", "sum", "float16")
    cell = {"samples": 6, "estimator": "left"}
    tables = score_run(halved, ("completeness", "insertion"), **cell)
    exact, rounded = dict(reader.maps(**cell)), dict(halved.maps(**cell))
    sums = dict(
        zip(*reader.results(["image_id", "attribution_sum"], **cell).to_pydict().values(), strict=True)
    )
    for row in tables["completeness"].to_pylist():
        largest = np.abs(exact[row["image_id"]].sum(0)).max()
        assert abs(row["attribution_sum"] - sums[row["image_id"]]) <= SIDE**2 * largest * 2**-11
    model = load_model(MODEL)
    for row in tables["insertion"].to_pylist():
        example = example_of(
            next(r for r in reader.images().to_pylist() if r["image_id"] == row["image_id"]), "label"
        )
        image, target = read_tensor(example.image, model)[None], torch.tensor([row["target"]])
        maps = torch.from_numpy(rounded[row["image_id"]] / 3).expand(1, 3, SIDE, SIDE)
        assert row["insertion"] == pytest.approx(
            float(ro.insertion(ro.Objective(model, target), image, maps).score), abs=1e-4
        )


def test_what_cannot_be_scored_is_refused_by_name(reader: RunReader, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^metrics: reference compares with converged maps, which take gradients"
    ):
        score_run(reader, ["reference"])
    with pytest.raises(ValueError, match=r"^metric: expected one of completeness, .* got 'insert'"):
        score_run(reader, ["insert"])
    with pytest.raises(ValueError, match=r"^metrics: expected each at most once, got 'deletion' twice"):
        score_run(reader, ["deletion", "deletion"])
    (whole, *_) = reader.stored_maps()
    summed = StoredMaps(whole.name, whole.files, {**whole.about, "shape": [SIDE, SIDE]})
    own = Metric("sparseness", (), (), lambda batch: {})
    check_scorable([own], [whole])
    with pytest.raises(
        ValueError, match=r"sparseness needs the attributions of every channel, .*ig/left/linear/3"
    ):
        check_scorable([own], [whole, summed])
    moved = tmp_path / "run"
    shutil.copytree(reader.directory.storage.root, moved, ignore=shutil.ignore_patterns("scores"))
    pictures = shutil.copytree(reader.about["config"]["images"], tmp_path / "pictures")
    evaluated = reader.results(["image_id"])["image_id"][0].as_py()
    images = reader.images().to_pylist()
    other = next(row["image_id"] for row in images if row["in_fit"])
    shutil.copy(pictures / other, pictures / evaluated)
    place = [{**row, "uri": str(pictures / row["image_id"]), "size": None} for row in images]
    copy = ro.open_run(str(moved))
    copy.directory.write_images(place)
    with pytest.raises(ValueError, match=rf"{evaluated}: not the image that was selected"):
        score_run(copy, ["insertion"])


@pytest.mark.long
def test_a_run_in_a_bucket_is_scored_and_exported_too(
    reader: RunReader, bucket: Bucket, tmp_path: Path
) -> None:
    storage, root = Storage(bucket.uri("bucket/run")), Path(reader.directory.storage.root)
    for path in root.rglob("*"):
        if path.is_file() and "scores" not in path.parts:
            storage.write_bytes(path.relative_to(root).as_posix(), path.read_bytes())
    remote = ro.open_run(bucket.uri("bucket/run"))
    table = score_run(remote, ["deletion"], samples=3)["deletion"]
    assert_alike(table, reader.results(table.column_names, samples=3))
    assert len(storage.list("scores/deletion")) == SHARDS
    export_maps(remote, "npy", str(tmp_path / "npy"), samples=3, estimator="left")
    values = np.load(tmp_path / "npy/ig/left/linear/3.npy")
    expected = dict(reader.maps(samples=3, estimator="left"))
    np.testing.assert_array_equal(values, np.stack([*expected.values()]))
    local = reader.directory.storage
    there, here = (FORMATS["html"](run_data(one))[INDEX] for one in (storage, local))
    assert there.replace(storage.root.encode(), local.root.encode()) == here


def test_hdf5_has_virelays_layout(reader: RunReader, tmp_path: Path) -> None:
    """Of channel sums, too, whose one channel its reader takes for the axis of colours."""
    summed = stored_as(reader, tmp_path / "summed", "sum", "float16")
    images = sorted(reader.images().to_pylist(), key=lambda row: row["image_id"])
    for run, channels in ((reader, 3), (summed, 1)):
        expected = dict(run.maps(samples=6, estimator="trapezoid"))
        export_maps(run, "hdf5", str(tmp_path / f"h5-{channels}"), samples=6)
        with h5py.File(tmp_path / f"h5-{channels}/ig/trapezoid/linear/6.h5") as file:
            ids = [*file["image_id"].asstr()]
            assert ids == [*expected]
            assert file["attribution"].shape == (IMAGES, channels, SIDE, SIDE)
            assert file["attribution"].dtype == np.float32
            for name, index, label, prediction, maps in zip(
                ids, file["index"], file["label"], file["prediction"], file["attribution"], strict=True
            ):
                row = images[index]
                assert row["image_id"] == name
                assert label == row["prediction"] == prediction.argmax()
                assert prediction.shape == (6,)
                assert prediction.max() == pytest.approx(row["probability"])
                np.testing.assert_array_equal(maps, expected[name].reshape(maps.shape))


def test_zarr_and_npy_hold_the_maps_with_their_ids(reader: RunReader, tmp_path: Path) -> None:
    expected = {one.name: dict(reader.maps(**one.about["cell"])) for one in reader.stored_maps()}
    names = export_maps(reader, "zarr", str(tmp_path / "zarr"))
    assert names == export_maps(reader, "npy", str(tmp_path / "npy")) == [*expected]
    group = zarr.open_group(tmp_path / "zarr", mode="r")
    for name, maps in expected.items():
        values = np.stack([*maps.values()])
        array = group[name]
        assert array.metadata.dimension_names == ("image", "channel", "y", "x")
        assert array.attrs["image_ids"] == [*maps]
        assert array.attrs["unit"] == "f, the explained output"
        np.testing.assert_array_equal(array[:], values)
        np.testing.assert_array_equal(np.load(tmp_path / f"npy/{name}.npy"), values)
        about = json.loads((tmp_path / f"npy/{name}.json").read_text())
        assert about["image_ids"] == [*maps]
        assert cell_of(about["cell"]) == cell_of(
            next(o for o in reader.stored_maps() if o.name == name).about["cell"]
        )


def test_an_export_is_whole_or_not_there(
    reader: RunReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(reader.directory.storage.root, broken, ignore=shutil.ignore_patterns("scores"))
    *_, last = reader.stored_maps()
    data = bytearray((broken / last.files[-1]).read_bytes())
    data[len(data) // 2] ^= 1
    (broken / last.files[-1]).write_bytes(data)
    with pytest.raises(DamagedFile, match=rf"{last.files[-1]}: damaged"):
        export_maps(ro.open_run(str(broken)), "npy", str(tmp_path / "out" / "maps"))
    assert list((tmp_path / "out").iterdir()) == []
    for kind, package in (("zarr", "zarr"), ("hdf5", "h5py")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            ValueError, match=rf"^{kind}: needs {package}: pip install 'riemannopt-dist\[export\]'$"
        ):
            export_maps(reader, kind, str(tmp_path / "out" / "maps"))
    assert list((tmp_path / "out").iterdir()) == []
    taken = tmp_path / "taken"
    taken.mkdir()
    export_maps(reader, "npy", str(taken), samples=3)
    for arguments, line in (
        ([str(taken), "--to", "npy"], "dest: expected an empty folder, or none yet, "),
        (["s3://bucket/maps", "--to", "zarr"], "dest: expected a local folder, got s3://bucket/maps"),
        ([str(tmp_path / "new"), "--to", "npz"], "export: expected one of zarr, npy, hdf5, got 'npz'"),
        ([str(tmp_path / "new"), "--to", "npy", "--samples", "99"], "no maps of samples [99] are stored"),
    ):
        ended = CliRunner().invoke(app, ["export", reader.directory.storage.root, *arguments])
        assert ended.exit_code == 2
        assert line in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["zarr", "npy", "hdf5", "parquet"])
def test_an_audit_of_a_runs_maps_gives_the_runs_own_errors(
    reader: RunReader, tmp_path: Path, kind: str
) -> None:
    """As they are exported, and as they are in the run."""
    folder = Path(reader.directory.storage.root, "maps")
    if kind != "parquet":
        folder = tmp_path / kind
        export_maps(reader, kind, str(folder), samples=3)
    images, output = reader.about["config"]["images"], tmp_path / "audit.parquet"
    arguments = ["audit", str(folder), "--images", images, "--model", MODEL, "--intervals", "64"]
    ended = CliRunner().invoke(app, [*arguments, "--output", str(output)])
    assert ended.exit_code == 0, ended.output
    rows = pq.read_table(output).to_pylist()
    expected = {
        (str(cell), name): row["reference_error"]
        for (name, *_), row in rows_of(reader.results()).items()
        for cell in [cell_of(row)]
    }
    assert len(rows) == IMAGES * (4 if kind == "parquet" else 2)
    elsewhere = CliRunner().invoke(app, [*arguments, "--path", "blur_ig"])
    assert elsewhere.exit_code == 2
    assert "are along ig, not blur_ig: name that path" in elsewhere.stderr
    for row in rows:
        assert row["reference_error"] == pytest.approx(expected[row["maps"], row["image_id"]], rel=1e-3)


def test_the_command_prints_a_table_of_scores(reader: RunReader) -> None:
    ended = CliRunner().invoke(
        app, ["score", reader.directory.storage.root, "--metrics", "insertion", "--samples", "6"]
    )
    assert ended.exit_code == 0, ended.output
    means = reader.summary().to_pandas()
    best = means[means["samples"] == 6]["insertion_mean"].max()
    assert "insertion mean (higher is better)" in ended.output
    assert f"{best:.3g}*" in ended.output

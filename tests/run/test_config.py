"""Configurations: what is accepted, what is one clear line, what the fingerprint covers."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import load_config, make_config
from riemannopt_dist.run.config.requirements import check_metrics
from riemannopt_dist.testing.small_world import small_fields

BASE = {"images": "photos", "output": "run", "model": {"name": "resnet50"}}


def test_defaults_are_the_papers() -> None:
    config = make_config(BASE, "test")
    assert config.fit.images == 200
    assert config.fit.samples == 128
    assert {cell.samples for cell in config.cells()} == {16, 32, 64, 128}
    assert {cell.placement for cell in config.cells()} == {"linear", "riemannopt"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"imagse": "x"}, "imagse: unknown key"),
        ({"fit": {"image": 3}}, "fit.image: unknown key"),
        ({"model": {}}, "model.name: missing"),
        ({"limit": 0}, "limit: .* got 0"),
        ({"grid": []}, r"grid: expected at least one, got \[\]"),
        ({"grid": [{"placements": ["lienar"]}]}, "grid.0.placements.0: .*linear, .*got 'lienar'"),
        (
            {"grid": [{"placements": ["exact"], "estimators": ["gauss_legendre"]}]},
            "gauss_legendre/exact/16: exp",
        ),
        ({"grid": [{"estimators": ["trapezoid"], "samples": [1]}]}, "trapezoid needs at least 2"),
        (
            {"grid": [{"placements": ["powell"]}]},
            r"grid.0.placements.0: placement: 'powell' is called 'eq9' now \(",
        ),
        (
            {"grid": [{"estimators": ["released"], "samples": [20]}]},
            "grid.0: ig/released/linear/20: samples: .* divides 128, got 20$",
        ),
        ({"fit": {"average": "mode"}}, "fit.average: expected one of 'mean'.*, got 'mode'$"),
        (
            {"guided": {"fraction": 0.5}},
            "^test: 'guided' is told with its path now: paths: .*{path: guid",
        ),
        (
            {"grid": [{"paths": [{"path": "guided_ig", "fraction": 0}]}]},
            "grid.0.paths.0: fraction: expected a number above 0 and at most 1, got 0$",
        ),
        ({"grid": [{"paths": [{"path": "ig", "colour": 1}]}]}, "paths.0: path ig: expected some of baseline"),
        (
            {"grid": [{"paths": [{"path": "ig", "baseline": "grey"}]}]},
            "baseline: expected black, white, mean",
        ),
        (
            {"grid": [{"paths": [{"path": "ig", "baseline": None}]}]},
            "grid.0.paths.0: baseline: expected black, white, mean, .* got None$",
        ),
        ({"grid": [{"paths": ["curved"]}]}, "paths.0.path: path: expected one of ig, .* got 'curved'$"),
        ({"grid": [{"paths": ["ig_idgi"]}]}, "'ig_idgi' is called 'ig, with the estimator idgi' now$"),
        ({"grid": [{"placements": ["secant"]}]}, "placement: expected one of linear, adaptive, .*riemannopt"),
        ({"grid": [{"methods": ["ig"]}]}, "grid.0: 'methods' is called 'paths' now$"),
        ({"grid": [{"rules": ["left"]}]}, "grid.0: 'rules' is called 'estimators' now$"),
        (
            {"grid": [{"estimators": ["secant"]}]},
            "estimators.0: estimator: 'secant' is called 'rescale' now$",
        ),
        ({"explain": "loss"}, "explain: .*got 'loss'"),
        ({"images": ""}, "images: expected text, got ''$"),
        ({"labels": ""}, "labels: expected text, got ''$"),
        ({"image_extensions": []}, r"image_extensions: expected at least one, got \[\]$"),
        ({"image_extensions": "jpg"}, "image_extensions: expected a list, got 'jpg'$"),
        ({"image_extensions": ["."]}, "image_extensions.0: expected an extension such as jpg, got '.'$"),
        ({"output": ""}, "output: expected text, got ''$"),
        ({"seed": -1}, "seed: expected at least 0, got -1$"),
        ({"scaling": {"time_limit": math.inf}}, "scaling.time_limit: expected a finite number, got inf$"),
        ({"scaling": {"time_limit": math.nan}}, "scaling.time_limit: expected a finite number, got nan$"),
        ({"scaling": {"gpus_per_worker": math.inf}}, "gpus_per_worker: expected a finite number, got inf$"),
        ({"grid": [{"tolerances": [math.inf]}]}, "tolerances.0: expected a finite number, got inf$"),
        ({"grid": [{"paths": []}]}, r"grid.0.paths: expected at least one, got \[\]$"),
        ({"grid": [{"placements": []}]}, r"grid.0: placements: expected at least one, got \[\]$"),
        ({"grid": [{"estimators": []}]}, r"grid.0: estimators: expected at least one, got \[\]$"),
        ({"grid": [{"samples": []}]}, r"grid.0: samples: expected at least one, got \[\]$"),
        (
            {"metrics": ["insertion", "deletion", "insertion"]},
            "metrics: expected each at most once, got 'insertion' twice$",
        ),
        ({"controls": ["edges", "edges"]}, "controls: expected each at most once, got 'edges' twice$"),
        ({"grid": [{"samples": [0]}]}, "test: grid.0.samples.0: [^;]* got 0$"),
        (
            {"grid": [{"paths": ["guided_ig"], "placements": ["adaptive"], "estimators": ["rescale"]}]},
            "test: grid.0: guided_ig/rescale/adaptive/16: .* the rule needs the path before$",
        ),
    ],
)
def test_bad_fields_are_named_in_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as error:
        make_config({**BASE, **changes}, "test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"metrics": "insertion"}, "metrics: expected a list, got 'insertion'"),
        ({"grid": {"samples": [4]}}, "grid: expected a list, got keys and values"),
        ({"model": "resnet50"}, "model: expected keys and values, got 'resnet50'"),
        ({"images": None}, "images: expected text, got nothing"),
        ({"labels": 2024}, "labels: expected text, got 2024"),
        ({"model": {"name": True}}, "model.name: expected text, got true"),
        ({"limit": True}, "limit: expected a whole number, got true"),
        ({"limit": "16"}, "limit: expected a whole number, got '16'"),
        ({"limit": 16.0}, "limit: expected a whole number, got 16.0"),
        ({"seed": False}, "seed: expected a whole number, got false"),
        ({"grid": [{"samples": [8, True]}]}, "grid.0.samples.1: expected a whole number, got true"),
        ({"grid": [{"tolerances": [True]}]}, "grid.0.tolerances.0: expected a number, got true"),
        ({"grid": [{"tolerances": ["0.1"]}]}, "grid.0.tolerances.0: expected a number, got '0.1'"),
        ({"scaling": {"time_limit": "60"}}, "scaling.time_limit: expected a number, got '60'"),
        ({"scaling": {"gpus_per_worker": True}}, "scaling.gpus_per_worker: expected a number, got true"),
        ({"internal_batch_size": True}, "internal_batch_size: expected a count or auto, got true"),
        ({"internal_batch_size": "8"}, "internal_batch_size: expected a count or auto, got '8'"),
        ({"fit": {"refine": False}}, "fit.refine: expected one of 'auto', 'always' or 'never', got false"),
        ({"internal_batch_size": 0}, "internal_batch_size: expected a count or auto, got 0"),
        ({"internal_batch_size": "big"}, "internal_batch_size: expected a count or auto, got 'big'"),
        ({"fit": {"images": 2.5}}, "fit.images: expected a whole number, got 2.5"),
        ({"limit": "all"}, "limit: expected a whole number, got 'all'"),
        ({"scaling": {"time_limit": 0}}, "scaling.time_limit: expected a number above 0, got 0"),
        ({"reference": {"intervals": 3}}, "reference.intervals: expected a multiple of 2, got 3"),
        ({"explain": "loss"}, "explain: expected one of 'probability' or 'logit', got 'loss'"),
        ({"maps": {"cells": ["x"]}}, "maps.cells: no cell of the grid is called 'x'"),
        ({"maps": {"converged": True}}, "maps.converged: converged maps come with the metric reference"),
        ({"maps": {"converged": "yes"}}, "maps.converged: expected true or false, got 'yes'"),
        ({"min_probability": 2}, "min_probability: expected at most 1, got 2"),
        ({"scaling": {"max_given_up": 1.5}}, "scaling.max_given_up: expected at most 1, got 1.5"),
        ({"images": "\ud800"}, "images: expected text in Unicode, got '\\ud800'"),
        ({"images": [None, True, {}]}, "images: expected text, got [nothing, true, keys and values]"),
        *(
            ({"model": {"name": "resnet50", key: value}}, f"model.{key}: {line}")
            for key, value, line in (
                ("channels", 2, "expected 1 or 3, got 2"),
                ("channels", True, "expected a whole number, got true"),
                ("channels", 10**30, f"expected 1 or 3, got {10**30}"),
                ("output_key", True, "expected a key, or a place from 0 on, got true"),
                ("output_key", -1, "expected a key, or a place from 0 on, got -1"),
                ("output_key", "", "expected a key, or a place from 0 on, got ''"),
                ("classes", 7, "expected a file, or a list of names, got 7"),
                ("classes", "", "expected a file, or a list of names, got ''"),
                ("classes", ["cat", 7], "expected a name of each class, got 7 for class 1"),
                ("classes", ["", "cat"], "expected a name of each class, got '' for class 0"),
            )
        ),
    ],
)
def test_messages_are_plain(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="test: ") as error:
        make_config({**BASE, **changes}, "test")
    assert str(error.value) == f"test: {line}"


@pytest.mark.parametrize(("fields", "shown"), [([], "[]"), (None, "nothing"), ("demo", "'demo'")])
def test_what_is_wrong_with_all_of_it_is_no_keys(fields: Any, shown: str) -> None:
    with pytest.raises(ValueError, match="test: ") as error:
        make_config(fields, "test")
    assert str(error.value) == f"test: expected keys and values, got {shown}"


def test_much_that_is_wrong_is_not_all_told() -> None:
    with pytest.raises(ValueError, match="grid") as error:
        make_config({**BASE, "limit": "1" * 10_000, "grid": [{"samples": [0] * 3000}]}, "test")
    first, *others, tenth, last = str(error.value).split("; ")
    assert first == "test: grid.0.samples.0: expected at least 1, got 0"
    assert len(others) == 8
    assert tenth == "grid.0.samples.9: expected at least 1, got 0"
    assert last == "and 2991 more"
    with pytest.raises(ValueError, match=r"limit: expected a whole number, got '1{300}") as error:
        make_config({**BASE, "limit": "1" * 10_000}, "test")
    assert len(str(error.value)) < 500


def test_an_unknown_metric_is_told_once() -> None:
    with pytest.raises(ValueError, match=r"metrics.0: metric: expected one of completeness, .*") as error:
        make_config({**BASE, "metrics": ["insert"]}, "test")
    assert str(error.value).count("got 'insert'") == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[1, 2]", r"expected keys and values, got \[1, 2\]$"),
        ("", "expected keys and values, got nothing$"),
        ("a: [", "not YAML"),
        ("a: \x00", "not YAML: unacceptable character"),
        ("a: !!str b", "expected a value without a tag"),
        ("seed: 1\nlimit: 5\nseed: 2", "yaml: key seed is given twice, line 3, column 1$"),
        ("scaling:\n  attempts: 1\n  attempts: 2", "yaml: key attempts is given twice, line 3, column 3$"),
        ("images: \xff".encode("latin-1"), "not YAML: 'utf-8' codec"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str | bytes, named: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=named) as error:
        load_config(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="No such file"):
        load_config(str(tmp_path / "missing.yaml"))


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    address = "s3://KEY:swordfish@bucket/x"
    for content, named in (
        (f"images: [{address}]", r"images: .*got \['s3://bucket/x'\]"),
        (f"images: {address}: y", "not YAML: .*line 1, column 36"),
        (f"images: {address}{'/folder' * 20}: y", "not YAML"),  # of so long a line only the end was quoted
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=named) as error:
            load_config(str(path))
        assert "swordfish" not in str(error.value)


def test_tolerances_need_no_product_beside_them() -> None:
    config = make_config({**BASE, "grid": [{"samples": [], "tolerances": [0.05]}]}, "test")
    assert [str(cell) for cell in config.cells()] == ["ig/softmax_trapezoid/adaptive/256/0.05"]


def test_merge_keys_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    block = "[&base {samples: [4], estimators: [left]}, {<<: *base, samples: [8]}]"
    path.write_text(f"images: a\noutput: b\nmodel: {{name: resnet18}}\ngrid: {block}")
    assert {cell.samples for cell in load_config(str(path)).cells()} == {4, 8}


def test_a_metric_whose_package_is_missing_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({**BASE, "metrics": ["information_official_ms_ssim"]}))
    config = load_config(str(path))
    check_metrics(config)
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    with pytest.raises(ValueError, match=r"metrics: .* needs pytorch-msssim: pip install pytorch-msssim$"):
        check_metrics(config)


def test_overrides_replace_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(BASE))
    config = load_config(str(path), {"images": "others", "output": None, "limit": 5})
    assert (config.images, config.output, config.limit) == ("others", "run", 5)
    path.write_text(json.dumps({**BASE, "scaling": {"min_workers": 2, "attempts": 7}}))
    means = load_config(str(path), {"scaling": {"min_workers": 9, "gpus_per_worker": None}}).scaling
    assert (means.min_workers, means.gpus_per_worker, means.attempts) == (9, None, 7)
    path.write_text(json.dumps({**BASE, "scaling": 3}))
    with pytest.raises(ValueError, match=r"scaling: .*got 3"):
        load_config(str(path), {"scaling": {"min_workers": 9}})


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("limit: yes", "limit: expected a whole number, got 'yes'"),
        ("limit: 016", "limit: expected a whole number, got '016'"),
        ("limit: 1_000", "limit: expected a whole number, got '1_000'"),
        ("limit: 0b11", "limit: expected a whole number, got '0b11'"),
        ("limit: 2026-11-26", "limit: expected a whole number, got '2026-11-26'"),
        ("limit: 1e3", "limit: expected a whole number, got 1000.0"),
        ("limit: true", "limit: expected a whole number, got true"),
        ("seed: on", "seed: expected a whole number, got 'on'"),
        ("internal_batch_size: on", "internal_batch_size: expected a count or auto, got 'on'"),
        ("grid: [{samples: [1:30]}]", "grid.0.samples.0: expected a whole number, got '1:30'"),
        ("grid: [{tolerances: [yes]}]", "grid.0.tolerances.0: expected a number, got 'yes'"),
        ("scaling: {gpus_per_worker: yes}", "scaling.gpus_per_worker: expected a number, got 'yes'"),
        ("labels: 10", "labels: expected text, got 10"),
    ],
)
def test_a_scalar_is_not_taken_for_another_type(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"images: a\noutput: b\nmodel: {{name: resnet18}}\n{line}\n")
    with pytest.raises(ValueError, match="config") as error:
        load_config(str(path))
    assert str(error.value) == f"config {path}: {named}"


def test_numbers_of_yaml_1_2_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    given = "limit: 0o17\nseed: 0x10\ngrid: [{tolerances: [.5, 1e-2, 1]}]\nscaling: {time_limit: 1e3}"
    path.write_text(f"images: y\noutput: 2026-11-26\nlabels: ~\nmodel: {{name: no}}\n{given}")
    config = load_config(str(path))
    assert (config.images, config.output, config.labels, config.model.name) == ("y", "2026-11-26", None, "no")
    assert (config.limit, config.seed, config.scaling.time_limit) == (15, 16, 1000.0)
    assert config.grid[0].tolerances == (0.5, 0.01, 1.0)


def test_a_configuration_goes_through_json() -> None:
    for path in Path("jobs/configs").glob("*.yaml"):
        config = load_config(str(path))
        assert make_config(json.loads(json.dumps(config.published())), "run.json") == config


def test_it_is_checked_without_torch_and_ray(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    fields = small_fields(
        tmp_path, tmp_path, grid=[{"estimators": ["gauss_legendre"], "placements": ["equidistribution"]}]
    )
    good.write_text(json.dumps(fields))
    bad.write_text(json.dumps({**fields, "limit": 0}))
    code = (
        "import sys; from riemannopt_dist.run.config.loading import load_config; "
        f"load_config({str(good)!r}).cells(); assert not {{'torch', 'ray'}} & {{*sys.modules}}; "
        "from typer.testing import CliRunner; from riemannopt_dist.commands import app; "
        f"ended = CliRunner().invoke(app, ['evaluate', '-c', {str(bad)!r}]); print(ended.output); "
        "assert ended.exit_code == 2; assert not {'torch', 'ray', 'matplotlib'} & {*sys.modules}"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "limit: expected at least 1, got 0" in ended.stdout


def test_every_entry_has_the_name_under_which_it_is_found() -> None:
    assert {name: metric.name for name, metric in METRICS.items()} == {name: name for name in METRICS}
    assert {name: one.name for name, one in ESTIMATORS.items()} == {name: name for name in ESTIMATORS}
    assert {name: make().label for name, make in PATHS.items()} == {name: name for name in PATHS}


def test_fingerprint_covers_results_alone(tmp_path: Path) -> None:
    def fingerprint(digest: str = "w", **changes: Any) -> str:
        return make_config(small_fields(tmp_path, tmp_path, **changes), "test").fingerprint(digest)

    same = fingerprint()
    assert same == fingerprint(output="elsewhere", scaling={"max_workers": 7, "time_limit": 5.0})
    assert same == fingerprint(batch_size=5, internal_batch_size="auto", reference={"intervals": 1024})
    s3 = "s3://user:swordfish@bucket/photos?region=eu-west-1"
    assert fingerprint(images=s3) == fingerprint(images="s3://bucket/photos")
    block = {"placements": ["linear"], "estimators": ["left"], "samples": [4]}
    assert fingerprint(grid=[block, block]) == fingerprint(grid=[block])
    different = {
        fingerprint("other weights"),
        fingerprint(seed=1),
        fingerprint(limit=5),
        fingerprint(images="others"),
        fingerprint(labels="LOC_val_solution.csv"),
        fingerprint(image_extensions=["png"]),
        fingerprint(explain="logit"),
        fingerprint(grid=[block]),
        fingerprint(shard_size=4),
        fingerprint(precision={"maps": "tf32"}),
        fingerprint(precision={"scores": "bf16"}),
    }
    assert same == fingerprint(precision={"maps": "fp32"})
    assert len(different | {same}) == 12
    assert fingerprint(image_extensions=[".PNG"]) == fingerprint(image_extensions=["png"])


SECRET = "s3://KEY:swordfish@bucket/x?region=eu-west-1"
BARE = "s3://bucket/x?region=eu-west-1"


@pytest.mark.parametrize(
    "fields",
    [
        lambda address: {"images": address},
        lambda address: {"labels": address},
        lambda address: {"output": address},
        lambda address: {"fit": {"profiles": address}},
        lambda address: {"model": {"name": address}},
        lambda address: {"model": {"name": "resnet50", "classes": ["cat", address]}},
        lambda address: {"model": {"name": "resnet50", "output_key": address}},
        lambda address: {"targets": [address, "cat"]},
        lambda address: {"grid": [{"paths": [{"path": "ig", "baseline": address}], "estimators": ["left"]}]},
        lambda address: {
            "grid": [{"paths": [f"guided_ig(baseline={address}, fraction=0.5)"], "estimators": ["left"]}]
        },
    ],
)
def test_no_secret_of_any_key_is_stored(fields: Callable[[str], dict[str, Any]]) -> None:
    """Nor does a fingerprint tell of one; what run.json holds is a configuration of the same one."""
    secret, bare = ({**BASE, **fields(address)} for address in (SECRET, BARE))
    config = make_config(secret, "test")
    stored = json.dumps(config.published())
    assert "swordfish" not in stored
    assert "KEY" not in stored
    assert "bucket/x" in stored
    known = make_config(json.loads(stored), "run.json")
    assert known.fingerprint("w") == config.fingerprint("w") == make_config(bare, "test").fingerprint("w")
    assert config.differences(known) == []


def test_an_address_without_a_secret_is_stored_as_it_was() -> None:
    """So are those that a run begun before has in its run.json, options and all."""
    config = make_config({**BASE, "fit": {"profiles": "S3://bucket/x?region=eu-west-1"}}, "test")
    assert config.published()["fit"]["profiles"] == "S3://bucket/x?region=eu-west-1"
    # That of the version before this one.
    assert config.fingerprint("w") == "d52639c4f8d07c3a14cecdc45401071bf62c5b6afd43ca2ed7dc6f55f94eb08a"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"boxes": SECRET}, "boxes.folder: expected a local path, got s3://bucket/x"),
        (
            {"model": {"name": "a", "weights": SECRET}},
            "model.weights: expected a local path, got s3://bucket/x",
        ),
        (
            {"model": {"name": "a", "classes": SECRET}},
            "model.classes: expected a local path, got s3://bucket/x",
        ),
        ({"model": {"name": f"hf:{SECRET}"}}, "model.name: expected a local path, got s3://bucket/x"),
    ],
)
def test_an_address_of_what_is_read_locally_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="test: ") as error:
        make_config({**BASE, **changes}, "test")
    assert str(error.value) == f"test: {line}"


@pytest.mark.parametrize("path", sorted(Path("jobs/configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert isinstance(load_config(str(path)), Config)

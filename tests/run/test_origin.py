"""Whose a table is: of which run, which model and whose code; and that a run goes on as it began."""

import importlib
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.bit_flips import SHARD, made_run
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.state import model_state, weights_digest
from riemannopt_dist.paths import pictures
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.directory import RUN, RunDirectory
from riemannopt_dist.run.origin import Origin, code_digest
from riemannopt_dist.run.probe import check_resumption, probes_of
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError
from riemannopt_dist.testing.small_world import make_pictures, small_config

MODEL = """
from riemannopt_dist.testing.small_world import tiny_classifier
from torch import nn

class Scaled(nn.Module):
    input_size = resize_size = 12

    def __init__(self):
        super().__init__()
        self.network = tiny_classifier()

    def forward(self, images):
        return self.network(images) * 1.0
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights_digest": "another"}, r"of another model \(weights another, not digest\)"),
        ({"fingerprint": "f" * 64}, r"of a run of another configuration \(fingerprint ffffffffffff\)"),
        ({"run": "0123456789abcdef"}, r"of another run \(0123456789abcdef, not "),
        ({"code_digest": "c"}, r"of another model \(its code is none that this run was made with\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_shard_from_elsewhere_is_told_by_name(tmp_path: Path, change: dict[str, object], told: str) -> None:
    directory = made_run(tmp_path)
    origin = Origin(**{**vars(directory.origin()), **change})
    directory.storage.write_table(SHARD, origin.in_table(directory.table(SHARD)))
    with pytest.raises(StorageError, match=rf"{SHARD}: not a file of this run: {told}"):
        read_results(directory.storage)
    (line,) = problems(directory)
    assert f"{SHARD}: not a file of this run: " in line


def test_a_shard_of_a_run_of_equal_configuration_is_not_this_run_s(tmp_path: Path) -> None:
    one, other = made_run(tmp_path / "one"), made_run(tmp_path / "other")
    other.storage.write_bytes(SHARD, one.storage.read_bytes(SHARD))
    (line,) = problems(other)
    assert f"{SHARD}: not a file of this run: of " in line
    # A copy of the whole is a run of its own right.
    shutil.copytree(one.storage.root, tmp_path / "copy")
    assert list(problems(RunDirectory(Storage(tmp_path / "copy")))) == []


def test_a_table_without_an_origin_is_told(tmp_path: Path) -> None:
    directory = made_run(tmp_path)
    directory.storage.write_table(SHARD, directory.table(SHARD).replace_schema_metadata(None))
    (line,) = problems(directory)
    assert line.endswith("not a file of this run: it does not tell which run wrote it")


def test_earlier_stages_and_lists_are_verified_too(tmp_path: Path) -> None:
    one, other = made_run(tmp_path / "one"), made_run(tmp_path / "other")
    for directory in (one, other):
        directory.write_listing([])
    one.storage.write_bytes("listing.parquet", other.storage.read_bytes("listing.parquet"))
    one.storage.write_bytes("fit/shard-00000.parquet", b"PAR1")
    foreign, damaged = problems(one)
    assert "listing.parquet: not a file of this run: of " in foreign
    assert "fit/shard-00000.parquet: without the digest" in damaged


def test_another_configuration_in_run_json_is_told(tmp_path: Path) -> None:
    directory = made_run(tmp_path)
    run = directory.read_run()
    run["config"]["reference"]["intervals"] = 512
    directory.storage.write_json(RUN, run)
    assert "its fingerprint is not that of its configuration" in next(problems(directory))


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a model that can be changed."""
    path = tmp_path / "changing_model.py"
    path.write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop("changing_model", None)


@pytest.fixture
def begun(tmp_path: Path, factory: Path) -> tuple[RunDirectory, Config]:
    """A run that has listed its images."""
    make_pictures(tmp_path / "pictures", 5)
    config = small_config(tmp_path / "pictures", tmp_path / "run", model={"name": "changing_model:Scaled"})
    directory = RunDirectory(Storage(config.output))
    model, refs = load_model(config.model.name), list_images(config.images)
    directory.claim(config, weights_digest(model_state(model)))
    directory.write_probes(probes_of(model, files_of(config.images), refs))
    directory.write_listing(refs)
    return directory, config


def resumed(directory: RunDirectory, config: Config, factory: Path, text: str) -> None:
    """As the run would be with the model's file changed to `text`."""
    factory.write_text(text)
    importlib.invalidate_caches()
    sys.modules.pop("changing_model", None)
    shutil.rmtree(factory.parent / "__pycache__", ignore_errors=True)
    model = load_model(config.model.name)
    assert directory.holds(config, weights_digest(model_state(model)))
    check_resumption(directory, config, model)


def test_code_that_gives_other_values_is_refused(begun: tuple[RunDirectory, Config], factory: Path) -> None:
    resumed(*begun, factory, MODEL)
    assert len(begun[0].read_probes()) == 2
    for change in ("* 1.001", "+ 1e-3", "* float('nan')"):
        with pytest.raises(
            ValueError, match=r"^model: it gives other values than .*: the logit of class \d for p00.png was "
        ):
            resumed(*begun, factory, MODEL.replace("* 1.0", change))


def test_code_that_gives_the_same_is_told_and_goes_on(
    begun: tuple[RunDirectory, Config], factory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, _ = begun
    before = code_digest("changing_model:Scaled")
    resumed(*begun, factory, MODEL.replace("* 1.0", "* 1.000001"))
    assert "the file of changing_model:Scaled is not what it was" in caplog.text
    directory.admit({})
    assert directory.read_run()["code_digest"] == before
    assert directory.origin().code_digest == directory.read_run()["resumed"][0]["code_digest"] != before
    assert len(directory.read_listing() or []) == 5  # of the earlier code, and of this run all the same
    directory.admit({})
    assert len(directory.read_run()["resumed"]) == 1


def test_other_versions_are_told_in_a_line(
    begun: tuple[RunDirectory, Config], factory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, _ = begun
    run = directory.read_run()
    number = run["versions"]["torch"]
    directory.storage.write_json(RUN, {**run, "versions": {**run["versions"], "torch": "1.0"}})
    caplog.set_level(logging.WARNING)
    resumed(*begun, factory, MODEL)
    (record,) = caplog.records
    assert record.getMessage().endswith(f"goes on with other versions: torch 1.0 → {number}")
    directory.admit({})
    caplog.clear()
    resumed(*begun, factory, MODEL)
    assert caplog.records == []


def test_other_pictures_to_begin_at_are_refused(
    begun: tuple[RunDirectory, Config], factory: Path, tmp_path: Path
) -> None:
    directory, config = begun
    folder = make_pictures(tmp_path / "baselines", 2)
    block = {"paths": [{"path": "ig", "baseline": str(folder)}], "placements": ["linear"], "samples": [4]}
    fields = config.published()
    from_pictures = make_config({**fields, "grid": [*fields["grid"], block]}, "test")
    directory.admit(from_pictures.baseline_digests())
    resumed(directory, from_pictures, factory, MODEL)
    (folder / "p00.png").write_bytes((folder / "p01.png").read_bytes())
    pictures._pixels.cache_clear()  # as another process
    with pytest.raises(
        ValueError, match=r"^baseline: the pictures of ig\(baseline=baselines\) are not those"
    ):
        resumed(directory, from_pictures, factory, MODEL)


def test_another_picture_under_the_name_of_a_probe_is_refused(
    begun: tuple[RunDirectory, Config], factory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = tmp_path / "pictures/p00.png"
    size = picture.stat().st_size
    Image.new("RGB", (12, 12), (200, 10, 10)).save(picture)
    picture.write_bytes(picture.read_bytes().ljust(size, b"\0"))  # of another size it would not be read
    with pytest.raises(ValueError, match=r"^images: p00.png is another file than when the run began"):
        resumed(*begun, factory, MODEL)
    picture.unlink()
    (tmp_path / "pictures/p01.png").unlink()
    resumed(*begun, factory, MODEL)
    assert "whether the model gives what it gave cannot be told" in caplog.text

"""What somebody else adds: an entry of their own in each table."""

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.methods import attribute, integrated_gradients
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.baselines import BASELINES
from riemannopt_dist.paths.table import PATHS, Straight
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.quadrature.schedule import Schedule
from riemannopt_dist.registry import Registry
from riemannopt_dist.reports.formats import FORMATS
from riemannopt_dist.reports.summary import comparison_files, summarize
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.examples import Example, evaluated_examples
from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.run.verification import problems
from riemannopt_dist.run_data.data import run_data
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import FIT, make_pictures, small_config

PACKAGE = {
    "simpson_rule.py": """
        \"""Simpson's rule on equal intervals, of the user's own: an estimator.\"""

        from riemannopt_dist.estimators.riemann import RiemannSums
        from riemannopt_dist.estimators.table import Riemann
        from riemannopt_dist.quadrature.schedule import Schedule


        class Simpson(Riemann):
            def rule(self, path):
                return "trapezoid"

            def refusal(self, path, placement, samples):
                if placement != "linear" or samples % 2 == 0:
                    return f"needs linear points, an odd number of them, got {samples} {placement}"
                return super().refusal(path, placement, samples) if path.walked else None

            def attribute(self, objective, path, placed):
                from riemannopt_dist.estimators.passes import sums_along

                (result,) = sums_along(path, objective, [(RiemannSums, of(placed.samples))])
                return result

            @property
            def sums(self):
                return None


        def of(samples):
            weights = [1, *[4, 2] * ((samples - 3) // 2), 4, 1]
            points = tuple(k / (samples - 1) for k in range(samples))
            return Schedule(points, tuple(w / 3 / (samples - 1) for w in weights))


        SIMPSON = Simpson("simpson")
    """,
    "middling.py": """
        \"""Points closer together in the middle, whatever the profile: a placement of the user's own.\"""

        import numpy as np


        def middle(profile, rule, counts):
            return [(1 - np.cos(np.pi * np.linspace(0, 1, count + 1))) / 2 for count in counts]
    """,
    "chequered.py": """
        \"""A checkerboard, and one whose squares are as a file has them: baselines of the user's own.\"""

        from pathlib import Path

        import torch

        from riemannopt_dist.paths.baselines import Baseline


        class Checkerboard(Baseline):
            name = "checkerboard"

            def side(self):
                return 2

            def of(self, images, draw):
                rows, columns = (torch.arange(size) // self.side() for size in images.shape[2:])
                return ((rows[:, None] + columns) % 2).to(images).expand_as(images)


        class OfFile(Checkerboard):
            name = "board of a file"
            file = Path(__file__).with_name("side.txt")

            def side(self):
                return int(self.file.read_text())

            def digest(self):
                return self.file.read_text()


        CHECKERS, OF_FILE = Checkerboard(), OfFile()
    """,
    "whatever.py": """
        \"""Equal intervals, whatever the output: a placement by it, of the user's own.\"""

        import numpy as np

        from riemannopt_dist.quadrature.placement.output import OutputPlacement
        from riemannopt_dist.quadrature.rules import linear_schedule


        def asked(samples):
            return np.array([0.0, 1.0])


        def schedule(values, rule, samples):
            return linear_schedule(samples, rule)


        EVEN = OutputPlacement(asked, schedule)
    """,
    "row_count.py": """
        \"""The number of result rows, of the user's own: a part of a report.\"""


        def count_files(data):
            return {"report/rows.txt": str(len(data.results)).encode()}
    """,
    "sparseness.py": """
        \"""How few features hold a map's magnitude, of the user's own: a metric.\"""

        from riemannopt_dist.metrics.metric import Column, Metric, Summary


        def compute(batch):
            magnitudes = batch.maps.abs().flatten(2).double().sort(dim=2).values
            features = magnitudes.shape[2]
            ranks = 2 * magnitudes.new_tensor(range(1, features + 1)) - features - 1
            return {"gini": (magnitudes * ranks).sum(2) / (features * magnitudes.sum(2))}


        GINI = Metric(
            "sparseness:GINI",
            (Column("gini", "Gini index in [0, 1]", "higher"),),
            (Summary("gini_mean", "mean", ("gini",), "higher"),),
            compute,
            against_controls="gini",
        )
    """,
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user's modules, which workers find as well."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    yield folder
    for name in PACKAGE:
        sys.modules.pop(Path(name).stem, None)


def first_image(
    config: Config, directory: RunDirectory
) -> tuple[Classifier, torch.Tensor, torch.Tensor, Example]:
    """The model, and the first image that a run explains, with its class."""
    model = load_model(config.model.name)
    (example, *_) = evaluated_examples(directory.read_images() or [], config)
    return model, read_tensor(example.image, model)[None], torch.tensor([example.target]), example


def test_entries_of_their_own_go_through_a_run(package: Path, tmp_path: Path) -> None:
    """By name, through a Ray of its own, the fingerprint, the summary, and the intervals against controls."""
    grid = [
        {"estimators": ["simpson_rule:SIMPSON", "trapezoid"], "placements": ["linear"], "samples": [17]},
        {"estimators": ["left"], "placements": ["middling:middle"], "samples": [17]},
        {"estimators": ["left"], "placements": ["whatever:EVEN", "linear"], "samples": [17]},
    ]
    changes = {"metrics": ["completeness", "sparseness:GINI"], "controls": ["random"]}
    config = small_config(make_pictures(tmp_path / "pictures", 7), tmp_path / "run", grid=grid, **changes)
    directory = evaluate(config)
    assert list(problems(directory)) == []
    results = read_results(directory.storage)
    summary = summarize(results).set_index("estimator")
    assert set(summary.index) == {"simpson_rule:SIMPSON", "trapezoid", "left", "random"}
    (theirs,) = directory.storage.read_json("schedules/ig.json")["schedules"]
    assert theirs["points"] == pytest.approx((1 - np.cos(np.pi * np.arange(17) / 17)) / 2)
    assert (summary["images"] == 7 - FIT).all()
    errors = summary["relative_error_mean"]
    even, linear = (errors[summary["placement"] == name]["left"] for name in ("whatever:EVEN", "linear"))
    assert even == pytest.approx(linear, rel=1e-5)
    assert errors["simpson_rule:SIMPSON"] < errors["trapezoid"] / 10  # the network is smooth
    # |N(0, 1)| has a Gini index of √2 − 1, whatever the map's size.
    assert summary["gini_mean"]["random"] == pytest.approx(2**0.5 - 1, abs=0.03)
    assert b"gini" in comparison_files(results)["controls.csv"]
    part = FORMATS["row_count:count_files"](run_data(directory.storage))
    assert part == {"report/rows.txt": str(len(results)).encode()}
    other = small_config(Path(config.images), tmp_path / "run", grid=grid[:1], metrics=["completeness"])
    assert config.fingerprint("w") != other.fingerprint("w")


@pytest.mark.usefixtures("ray_here")
def test_a_white_baseline_takes_a_line_of_yaml(tmp_path: Path) -> None:
    """With fitted points, the profile being that of paths from white; complete as they are."""
    white = {"path": "ig", "baseline": "white"}
    grid = [{"paths": [white, "ig"], "placements": ["linear", "exact"], "estimators": ["trapezoid"]}]
    config = small_config(
        make_pictures(tmp_path / "pictures", 7), tmp_path / "run", grid=[{**grid[0], "samples": [33]}]
    )
    directory = evaluate(config)
    assert list(problems(directory)) == []
    model, image, target, example = first_image(config, directory)
    rows = [row for row in directory.shard_rows("results") if row["image_id"] == example.image.image_id]
    assert {row["path"] for row in rows} == {"ig", "ig(baseline=white)"}
    stored = directory.storage.read_json("schedules/ig(baseline=white).json")
    (entry,) = stored["schedules"]
    assert stored["profile"] != directory.storage.read_json("schedules/ig.json")["profile"]
    schedules = {
        "linear": linear_schedule(33, "trapezoid"),
        "exact": Schedule(tuple(entry["points"]), tuple(entry["weights"])),
    }
    for row in rows:
        if row["path"] != "ig":
            baselines = torch.ones_like(image)
            result = integrated_gradients(
                model, image, target, schedules[row["placement"]], baselines=baselines
            )
            assert row["attribution_sum"] == pytest.approx(float(result.maps.double().sum()), abs=1e-5)
            assert row["f_baseline"] == pytest.approx(float(result.f_baseline), abs=1e-6)
    direct = attribute(model, image, target, path=Straight("white"), estimator="trapezoid", samples=33)
    linear = integrated_gradients(model, image, target, schedules["linear"], baselines=torch.ones_like(image))
    assert torch.equal(direct.maps, linear.maps)


def test_a_checkerboard_of_their_own_takes_a_line_of_yaml(package: Path, tmp_path: Path) -> None:
    """With fitted points; a baseline that is read from a file is looked at again when the run goes on."""
    (package / "side.txt").write_text("3")
    boards = [{"path": "ig", "baseline": f"chequered:{name}"} for name in ("CHECKERS", "OF_FILE")]
    grid = [{"paths": boards, "placements": ["exact"], "estimators": ["trapezoid"], "samples": [33]}]
    config = small_config(make_pictures(tmp_path / "pictures", 7), tmp_path / "run", grid=grid)
    directory = evaluate(config)
    assert list(problems(directory)) == []
    assert directory.read_run()["baselines"] == {"ig(baseline=board of a file)": "3"}
    model, image, target, example = first_image(config, directory)
    found = {
        row["path"]: row["f_baseline"]
        for row in directory.shard_rows("results")
        if row["image_id"] == example.image.image_id
    }
    for name, side in (("checkerboard", 2), ("board of a file", 3)):
        rows, columns = np.indices(image.shape[2:]) // side
        start = torch.from_numpy((rows + columns) % 2).to(image).expand_as(image)
        value = float(Objective(model, target).values(start))
        assert found[f"ig(baseline={name})"] == pytest.approx(value, abs=1e-6)
    (package / "side.txt").write_text("4")
    with pytest.raises(ValueError, match=r"board of a file.* are not those that the run began with"):
        evaluate(config)


def test_entry_points_add_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an installed package has them; a built-in name stays what it is."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[riemannopt_dist.paths]\ndim = dim_path:dim\nig = dim_path:dim\nlost = dim_path:nothing\n"
        "[riemannopt_dist.baselines]\ndusk = dim_path:DUSK\n"
    )
    (tmp_path / "dim_path.py").write_text(
        "from riemannopt_dist.paths.baselines import Colour\nDUSK = Colour((0.125,))\n"
        "from riemannopt_dist.paths.table import Straight\ndef dim(grey=0.25):\n    return Straight(grey)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    tables: tuple[Registry[Any], ...] = (PATHS, ESTIMATORS, BASELINES)
    for table in tables:
        vars(table).pop("_added", None)
    try:
        assert PATHS["dim"](0.5) == Straight(0.5)
        assert PATHS["ig"] is Straight
        assert Straight("dusk") == Straight(0.125)
        assert "dim" in [*PATHS]
        with pytest.raises(ValueError, match=r"path: 'lost' .* imported: dim_path:nothing of .*theirs"):
            PATHS["lost"]
    finally:
        for table in tables:
            vars(table).pop("_added", None)
        sys.modules.pop("dim_path", None)


def test_a_run_directory_tells_what_it_is(tmp_path: Path) -> None:
    """Of an older format, in a line that says what to do."""
    (tmp_path / "run.json").write_text('{"format": 2, "versions": {"riemannopt-dist": "0.1.0"}}')
    with pytest.raises(ValueError, match=r"holds a run in format 2, .* knows format 3: choose another"):
        RunDirectory(Storage(tmp_path)).read_run()

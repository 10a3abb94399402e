"""What is chosen by an address or comes of an installed package: what it has to be, in one line."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.map_files.table import EXPORTERS, READERS
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.paths.baselines import BASELINES
from riemannopt_dist.paths.table import PATHS, Straight, path_family
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.placement.table import OUTPUT_PLACEMENTS, PLACEMENTS
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.registry import Registry
from riemannopt_dist.reports.formats import FORMATS
from riemannopt_dist.run.config.loading import make_config

BASE = {"images": "photos", "output": "run", "model": {"name": "resnet50"}}
TABLES = (BASELINES, ESTIMATORS, EXPORTERS, FORMATS, METRICS, OUTPUT_PLACEMENTS, PATHS, PLACEMENTS, READERS)

THEIRS = """
import functools
from riemannopt_dist.paths.table import Straight

class Half:
    name = "half"
    early = ()

def dim(grey=0.25):
    return Straight(grey)

def none(profile, rule, counts):
    return None

def logged(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call

@logged
def middle(profile, rule, counts):
    return [[0.0, 0.5, 1.0] for count in counts]

def everything(*args, **kwargs):
    return {}
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with an entry point in every table, and one that will do in some."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    groups = {vars(table)["_group"] for table in TABLES}
    points = [f"[{group}]\nodd = theirs_here:Half.name" for group in sorted(groups)]
    (info / "entry_points.txt").write_text("\n".join(points))
    (tmp_path / "theirs_here.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for table in TABLES:
        vars(table).pop("_added", None)
    yield
    for table in TABLES:
        vars(table).pop("_added", None)
    sys.modules.pop("theirs_here", None)


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("table", TABLES, ids=lambda table: str(vars(table)["_group"]))
def test_an_entry_point_of_something_else_is_one_line(table: Registry[Any]) -> None:
    with pytest.raises(
        ValueError, match=f"^{table.kind}: 'odd', theirs_here:Half.name of the package"
    ) as error:
        table["odd"]
    assert "package theirs: expected a" in str(error.value)
    assert "got a value of the type str" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: str(vars(table)["_group"]))
def test_every_built_in_entry_is_what_it_has_to_be(table: Registry[Any]) -> None:
    for name in table:
        table._checked(name, table[name])


NOTHING = "os.path:join"
OTHERS = {
    f"grid.0.estimators.0 {NOTHING}": f"estimator: {NOTHING!r}: expected an Estimator as of "
    "riemannopt_dist.estimators.base, got the function join, without name, sums, early, takes_tolerance, "
    "tends_to_integral, refusal, check, rule, cost, attribute",
    "grid.0.estimators.0 riemannopt_dist.estimators.table:Riemann": "estimator: "
    "'riemannopt_dist.estimators.table:Riemann': expected an Estimator as of "
    "riemannopt_dist.estimators.base, got the class Riemann: give an instance",
    "grid.0.estimators.0 .os:sep": "estimator: expected a name or package.module:name, got '.os:sep'",
    f"grid.0.placements.0 {NOTHING}": f"placement: {NOTHING!r}: expected a function of (profile, rule, "
    "counts) that makes partitions, got the function join",
    f"metrics.0 {NOTHING}": f"metric: {NOTHING!r}: expected a Metric as of riemannopt_dist.metrics.metric, "
    "got the function join",
    f"grid.0.paths.0 {NOTHING}": f"path {NOTHING}: expected a function that makes a family of paths of no "
    "parameters (join() missing 1 required positional argument: 'a')",
    "grid.0.paths.0 theirs_here:everything": "path theirs_here:everything: expected a PathFamily as of "
    "riemannopt_dist.paths.base, got a value of the type dict, without label, walked, through, sampling, "
    "profile_gradients, reference_gradients",
    f"grid.0.paths.0 ig(baseline={NOTHING})": f"baseline: {NOTHING!r}: expected a Baseline as of "
    "riemannopt_dist.paths.baselines, got the function join, without name, of, count, several, digest",
    "grid.0.paths.0 ig(baseline=nowhere.at_all:checker)": "baseline: 'nowhere.at_all:checker' cannot be "
    "imported: No module named 'nowhere'",
    "grid.0.paths.0.path os:sep": "path: 'os:sep': expected a function that makes a family of paths, got a "
    "value of the type str",
}
"""What is said of an address, by the place that the message names and the address itself."""


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("told", OTHERS)
def test_an_address_of_something_else_is_one_line(told: str) -> None:
    place, address = told.split()
    key = next(key for key in ("estimators", "placements", "paths", "metrics") if key in place)
    changes = {"metrics": [address]} if key == "metrics" else {"grid": [{key: [address]}]}
    with pytest.raises(ValueError, match="test: ") as error:
        make_config({**BASE, **changes}, "test")
    assert str(error.value) == f"test: {place}: {OTHERS[told]}"


@pytest.mark.parametrize("table", [FORMATS, EXPORTERS, READERS], ids=lambda table: str(table.kind))
def test_what_cannot_be_called_so_is_no_part_of_a_report_and_no_format(table: Registry[Any]) -> None:
    for address in ("os.path:join", "os:sep", "os:getcwd"):
        with pytest.raises(
            ValueError, match=rf"^{table.kind}: '{address}': expected a function of \(.*, got "
        ):
            table[address]


@pytest.mark.usefixtures("theirs")
def test_what_will_do_is_taken() -> None:
    """A function behind a decorator, one that takes anything, placements of either table, a path's own."""
    assert PLACEMENTS["theirs_here:middle"](None, "left", [2]) == [[0.0, 0.5, 1.0]]  # type: ignore[arg-type]
    assert FORMATS["theirs_here:everything"](None) == {}  # type: ignore[arg-type]
    assert path_family("theirs_here:dim", {"grey": 0.5}) == Straight(0.5)
    by_output = {"estimators": ["idg"], "placements": ["riemannopt_dist.quadrature.placement.idg:RISE"]}
    config = make_config({**BASE, "grid": [by_output]}, "test")
    assert all(cell.per_image for cell in config.cells())


@pytest.mark.usefixtures("theirs")
def test_a_placement_that_makes_nothing_is_one_line() -> None:
    points = tuple(np.linspace(0.0, 1.0, 9).tolist())
    profile = Profile(points, (1.0,) * 9, (0.0,) * 9, 1)
    with pytest.raises(ValueError, match=r"^placement: 'theirs_here:none': expected a list of .*, got None$"):
        optimize_schedule(profile, 4, "left", "theirs_here:none")

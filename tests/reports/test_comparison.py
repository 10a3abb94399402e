"""Runs side by side: changes computed by hand, what has no partner, and 80 columns."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from riemannopt_dist.commands import app
from riemannopt_dist.commands.compare import read_named
from riemannopt_dist.reports.answer import counted
from riemannopt_dist.reports.comparison import Comparison, compare_runs
from riemannopt_dist.reports.comparison_lines import comparison_lines
from riemannopt_dist.run.grid import Cell
from tests.reports.small_run import GRID, halved, make_run

BARE = {"maps": None, "controls": [], "metrics": ["reference"]}
runner = CliRunner()


def better(image_id: str, cell: Cell) -> float:
    """A quarter less, but for the first half of the images of 4 points, which have 0.01 more."""
    if cell.samples == 4 and image_id < "p08":
        return halved(image_id, cell) + 0.01
    return 0.75 * halved(image_id, cell)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 images, a better one of 14, with other draws and another cell, and one of 5."""
    folder = tmp_path_factory.mktemp("worlds")
    make_run(folder / "first", **BARE)
    grid = [GRID[0], {**GRID[1], "samples": [4, 8, 32]}]
    make_run(folder / "second", images=14, error=better, **{**BARE, "grid": grid, "seed": 7})
    make_run(folder / "few", images=5, error=better, **BARE)
    return folder


def comparison_of(world: Path, *names: str) -> Comparison:
    return compare_runs([read_named(str(world / name / "run")) for name in names])


def images_of(world: Path, name: str) -> set[str]:
    return set(pd.read_parquet(world / name / "run/results")["image_id"])


def test_changes_are_the_means_of_paired_differences(world: Path) -> None:
    changes = comparison_of(world, "first", "second").changes
    errors = changes[changes["score"] == "reference_error"].set_index(["placement", "samples"])
    assert set(errors.index) == {("linear", 4), ("linear", 8), ("linear", 16), ("exact", 4), ("exact", 8)}
    row = errors.loc[("linear", 8)]
    common = sorted(images_of(world, "first") & images_of(world, "second"))
    assert (row["images"], row["before"], row["after"]) == pytest.approx((len(common), 0.125, 0.09375))
    assert (row["change"], row["low"], row["high"]) == pytest.approx((-0.03125,) * 3)
    assert row["verdict"] == "better"
    # Some have 0.01 more, the others a quarter of 1/4 less.
    row, worse = errors.loc[("linear", 4)], sum(image < "p08" for image in common)
    assert 0 < worse < len(common)
    assert row["change"] == pytest.approx((worse * 0.01 - (len(common) - worse) * 0.0625) / len(common))
    assert row["low"] < row["change"] < row["high"]
    cosines = changes[changes["score"] == "reference_cosine"].set_index(["placement", "samples"])
    assert cosines.loc[("linear", 8)]["verdict"] == "better"  # higher is better there
    assert cosines.loc[("linear", 8)]["change"] > 0


def test_the_other_way_round_it_is_worse(world: Path) -> None:
    changes = comparison_of(world, "second", "first").changes
    errors = changes[(changes["score"] == "reference_error") & (changes["samples"] == 8)]
    assert set(errors["verdict"]) == {"worse"}


def test_what_has_no_partner_is_counted(world: Path) -> None:
    first, second = (str(world / name / "run") for name in ("first", "second"))
    told = comparison_of(world, "first", "second").unpaired
    here, there = images_of(world, "first"), images_of(world, "second")
    assert (len(here), len(there)) == (12, 14)
    assert len(there - here) > 1
    assert told == [
        f"{len(here & there)} images in both {first} and {second}.",
        f"{counted(len(here - there), 'image')} in {first} alone, without a partner.",
        f"{len(there - here)} images in {second} alone, without a partner.",
        f"1 cell in {second} alone, without a partner: ig exact left 32.",
    ]


def test_fewer_than_ten_images_have_no_verdict(world: Path) -> None:
    comparison = comparison_of(world, "first", "few")
    assert set(comparison.changes["verdict"]) == {"too few"}
    assert "5 images in both" in comparison.unpaired[0]
    assert "fewer than the 10 of a verdict" in comparison.unpaired[0]


def test_an_image_with_other_bytes_is_no_pair(world: Path) -> None:
    runs = [read_named(str(world / name / "run")) for name in ("first", "second")]
    common = sorted(images_of(world, "first") & images_of(world, "second"))
    changed = [replace(run, digests={common[0]: name}) for run, name in zip(runs, "ab", strict=True)]
    comparison = compare_runs(changed)
    assert set(comparison.changes["images"]) == {len(common) - 1}
    assert "1 image of one name with other bytes in the two, left out." in comparison.unpaired


def test_what_differs_in_the_configurations_is_told(world: Path) -> None:
    differences = comparison_of(world, "first", "second").differences
    assert differences["seed"][1] == "7"
    assert set(differences) == {"images", "seed", "grid"}


@pytest.mark.parametrize("names", [("first", "second"), ("first", "second", "few"), ("few", "first")])
def test_lines_have_80_columns_at_most(world: Path, names: tuple[str, ...]) -> None:
    lines = [*comparison_lines(comparison_of(world, *names))]
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80


def test_the_command_prints_and_writes_them(world: Path, tmp_path: Path) -> None:
    runs = [str(world / name / "run") for name in ("first", "second")]
    page = tmp_path / "compared.html"
    shown = runner.invoke(app, ["compare", *runs, "-o", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "reference error (lower is better)" in shown.output
    html = page.read_text()
    verdicts = list(comparison_of(world, "first", "second").changes["verdict"])
    assert f"pairs of cell and score {verdicts.count('better')} are better" in html
    assert "What differs" in html
    assert "ig exact left 32" in html
    assert html == _again(runs, page)
    fields = json.loads(runner.invoke(app, ["compare", *runs, "--json"]).stdout)
    assert fields["runs"] == runs
    rows = list(csv.DictReader(io.StringIO(runner.invoke(app, ["compare", *runs, "--csv"]).stdout)))
    assert [float(row["change"]) for row in rows] == [row["change"] for row in fields["changes"]]


def _again(runs: list[str], page: Path) -> str:
    runner.invoke(app, ["compare", *runs, "-o", str(page)])
    return page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "error: runs: expected two or more, got a\n"),
        (["a", "b", "-o", "x.pdf"], "error: output: expected a name that ends in .html, got x.pdf\n"),
        (["a", "b", "--json", "--csv"], "error: json: expected --json or --csv, got both\n"),
        (["a", "b"], "error: a: no run in it (expected run.json)\n"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str) -> None:
    ended = runner.invoke(app, ["compare", *arguments])
    assert (ended.exit_code, ended.stderr) == (2, said)

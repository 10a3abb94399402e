"""The page of a run: its numbers against DuckDB, what it says of half a run, and that nothing in it acts."""

import base64
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from riemannopt_dist.reports.answer import best_of, missing, savings_of, verdict
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.equal_points import against_equal_points
from riemannopt_dist.reports.exclusions import exclusions
from riemannopt_dist.reports.formats import FORMATS
from riemannopt_dist.reports.gallery import gallery
from riemannopt_dist.reports.line_charts import error_charts
from riemannopt_dist.reports.page.heat_maps import overlay, scale_of, smooth
from riemannopt_dist.reports.page.parts import Block, Table, shown
from riemannopt_dist.reports.run_page import INDEX, run_page
from riemannopt_dist.reports.table_one import table_of
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.config.yaml_text import parse_yaml
from riemannopt_dist.run.directory import Failure, RunDirectory
from riemannopt_dist.run.draw import drawn_images
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run_data.data import run_data
from tests.reports.small_run import data_of, halved, make_run

MARKUP = "<script>alert(1)<%script><img src=x onerror=alert(2)>.png".replace("/", "%")


class Elements(HTMLParser):
    """The elements of a page, their attributes and their text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data


def page_of(directory: RunDirectory) -> str:
    return FORMATS["html"](data_of(directory))[INDEX].decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Twelve images, of which one has a name of markup."""
    return make_run(tmp_path_factory.mktemp("world"), names={7: MARKUP})


@pytest.fixture(scope="module")
def html(run: RunDirectory) -> str:
    return page_of(run)


def test_the_same_run_gives_the_same_bytes(run: RunDirectory, html: str) -> None:
    assert page_of(run) == html
    assert len(html.encode()) < 5_000_000


def test_the_answer_is_that_of_the_errors(html: str) -> None:
    """Fitted points have the errors of twice as many equal ones: they spare half of the evaluations."""
    answer = re.findall(r"<li>(.*?)</li>", html)
    assert len(answer) == 3
    assert "12 images of" in answer[0]
    assert "in 5 cells of path, placement and estimator of 4 to 16 samples" in answer[0]
    assert "ig exact left 8 saves most against equal points: for its true error of 0.0625" in answer[1]
    assert "on 12 images these take" in answer[1]
    assert answer[1].endswith("16 evaluations, and it takes 8, 50 % less.")
    assert answer[2].startswith("16 inputs, 15 usable, 1 left out (1 unreadable or without a valid label)")
    assert "all 12 images to be evaluated are done; 1 image given up on" in answer[2]


def test_the_images_told_are_those_that_have_the_error(tmp_path: Path) -> None:
    """Converged maps of 6 of 12 images: too few for a winner."""

    def some(image_id: str, cell: Cell) -> float:
        return halved(image_id, cell) if image_id < "p06" else float("nan")

    data = data_of(make_run(tmp_path, error=some))
    values = np.array([row["reference_error"] for row in data.results.to_pylist() if row["samples"] == 8])
    defined = int((~np.isnan(values)).sum()) // 2
    assert defined < 10
    html = FORMATS["html"](data)[INDEX].decode()
    assert f"Cells by their true error, {defined} images each" in html
    cells = re.search(r'<table id="cells">.*?</table>', html, re.DOTALL)
    assert cells is not None
    assert "best" not in cells.group()


def test_numbers_are_those_in_the_parquet(run: RunDirectory, html: str) -> None:
    files = f"{run.storage.root}/results/*.parquet"
    query = (
        "SELECT samples, placement, AVG(reference_error), AVG(seconds), AVG(insertion) FROM "
        f"read_parquet('{files}') WHERE path = 'ig' GROUP BY ALL"
    )
    expected = duckdb.sql(query).fetchall()
    assert len(expected) == 5
    cells, scores = (
        re.search(rf'<table id="{name}">.*?</table>', html, re.DOTALL) for name in ("cells", "scores")
    )
    assert cells is not None
    assert scores is not None
    for samples, placement, error, seconds, insertion in expected:
        for table, value in ((cells, error), (cells, seconds), (scores, insertion), (scores, error)):
            rows = [row for row in re.findall(r"<tr>.*?</tr>", table[0]) if f"<td>{placement}</td>" in row]
            (row,) = (row for row in rows if f'data-number="{samples}.0">{samples}<' in row)
            numbers = [float(number) for number in re.findall(r'data-number="(.*?)"', row)]
            assert any(number == pytest.approx(value, rel=1e-12) for number in numbers)
            assert f">{shown(value)}" in row


def test_data_behind_a_figure_is_what_is_drawn(run: RunDirectory, html: str) -> None:
    """Mean curves and profiles, as CSV."""
    files = dict(re.findall(r'download="(.*?)" href="data:text/csv;base64,(.*?)"', html))
    texts = {name: base64.b64decode(unquote(data)).decode() for name, data in files.items()}
    lines = [line.split(",") for line in texts["curves-insertion.csv"].splitlines()[1:]]
    drawn = [float(value) for cell, _, value in lines if cell == "ig exact left 8"]
    rows = pa.concat_tables(run.tables(f"results/shard-{n:05}.parquet" for n in range(4)))
    rows = rows.to_pandas().query("placement == 'exact' and samples == 8")
    assert drawn == pytest.approx(np.stack(rows["insertion_curve"]).mean(0), rel=1e-6)
    assert [float(line[1]) for line in lines[:21]] == pytest.approx(np.linspace(0, 1, 21))
    profile = [line.split(",") for line in texts["profile-0.csv"].splitlines()]
    assert [float(y) - float(x) for name, x, y in profile[1:] if name == "|g′|"] == pytest.approx([1] * 10)
    assert {"cells.csv", "scores.csv", "missing.csv", "reference_error_mean-seconds.csv"} <= texts.keys()


def test_nothing_in_a_page_acts_but_its_own_script(html: str) -> None:
    elements = Elements(html)
    assert elements.tags["script"] == 1
    assert MARKUP in elements.words
    assert "OutOfMemory: <b>no</b> room" in elements.words
    assert elements.tags["b"] == 0
    assert not [name for _, name, _ in elements.attributes if name.startswith("on")]
    links = [v for _, name, v in elements.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert len(links) > 30
    assert not [link for link in links if not link.startswith(("data:", "#"))]
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    policy = next(value for _, name, value in elements.attributes if name == "content")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert all(
        identity in {v for _, n, v in elements.attributes if n == "id"}
        for identity in (link.removeprefix("#") for link in links if link.startswith("#"))
    )
    identities = [value for _, name, value in elements.attributes if name == "id"]
    assert len(identities) == len({*identities})


def test_the_configuration_in_the_page_makes_the_same_run(run: RunDirectory, html: str) -> None:
    (data,) = re.findall(r'download="run.yaml" href="data:text/plain;base64,(.*?)"', html)
    config = make_config(parse_yaml(base64.b64decode(data).decode()), "run.yaml")
    assert config.fingerprint("0" * 64) == run.read_run()["fingerprint"]
    assert run.read_run()["fingerprint"] in html


def test_images_come_with_maps_and_the_least_error_first(run: RunDirectory, html: str) -> None:
    titles = re.findall(r"<h3>(.*?) <small>(.*?)</small></h3>", html)
    assert [title for title, _ in titles] == [f"{rank} of 12" for rank in (1, 2, 3, 10, 11, 12)]
    assert all("class 2, probability 0.75" in about for _, about in titles)
    assert html.count("<img ") == 6 * 6
    assert html.count("less converged, ×") == 6 * 2 * 2  # as the alternative text, too


def test_heat_maps_are_orange_for_and_purple_against() -> None:
    """Half of a grey photo each, and nothing of it where the map is zero."""
    values = np.zeros((32, 48), dtype=np.float32)
    values[:, :16], values[:, 32:] = 1, -1
    smoothed = smooth(values)
    assert smoothed.sum() == pytest.approx(0, abs=1e-9)
    drawn = overlay(np.full((32, 48, 3), 255, dtype=np.uint8), smoothed, scale_of(smoothed)).astype(int)
    red, _, blue = drawn[16].T
    assert (red[:12] > blue[:12] + 20).all()
    assert (red[36:] < blue[36:] - 20).all()
    assert (drawn[16, 24] == round(255 * 0.85)).all()


# --- Runs that lack something ---


def told(blocks: Iterable[Block]) -> str:
    return " ".join(map(str, blocks))


def answer_of(data: RunData) -> str:
    return f"{verdict(data, best_of(savings_of(data.results)))} {missing(data)}"


def test_a_run_without_results_has_a_page_that_says_so(tmp_path: Path) -> None:
    directory = make_run(tmp_path, done=0)
    data = run_data(directory.storage)
    files = {name: content for part in FORMATS.values() for name, content in part(data).items()}
    html = files[INDEX].decode()
    assert "No verdict: there are no results yet." in html
    assert "the run is not finished: 0 of 12 images are done" in html
    assert "report/table1.md" in files


def test_of_few_images_there_is_no_verdict(tmp_path: Path) -> None:
    data = data_of(make_run(tmp_path, images=9, maps=None))
    assert answer_of(data).startswith(
        "No verdict, for which 10 images are needed and 9 are there. So far, ig exact"
    )
    assert "no number here is a verdict" in told(against_equal_points(data, savings_of(data.results)))


def test_a_cell_with_a_tolerance_is_not_the_best_of_its_most(tmp_path: Path) -> None:
    data = data_of(make_run(tmp_path, maps=None))

    def best(summary: pd.DataFrame) -> list[tuple[str, str]]:
        (table, *_) = against_equal_points(replace(data, summary=summary), {})
        assert isinstance(table, Table)
        of = [column.head for column in table.columns]
        rows = [dict(zip(of, row, strict=True)) for row in table.rows]
        return [(r["placement"].text, r["samples"].text) for r in rows if r["true error"].verdict == "best"]

    assert best(data.summary) == [("linear", "16"), ("exact", "4"), ("exact", "8")]
    tolerance = data.summary["placement"].eq("exact").map({True: 0.05, False: np.nan})
    assert best(data.summary.assign(tolerance=tolerance)) == [("linear", count) for count in ("4", "8", "16")]


def test_one_image_and_half_a_run_are_told(tmp_path: Path) -> None:
    data = data_of(make_run(tmp_path, done=1))
    assert answer_of(data).startswith("No verdict: one image tells nothing of others.")
    assert "the run is not finished: 1 of 12 images are done" in answer_of(data)
    assert "1 of 1" in told(gallery(data, {}))


def test_a_run_that_gave_an_image_up_is_finished(tmp_path: Path) -> None:
    directory = make_run(tmp_path, done=11, maps=None)
    assert "the run is not finished: 11 of 12 images are done" in missing(data_of(directory))
    assert "11 images of 12: the run is not finished" in " ".join(table_of(data_of(directory)).notes)
    evaluated = {*data_of(directory).results["image_id"].to_pylist()}
    about = directory.read_run()["config"]
    drawn = drawn_images(directory.read_images() or [], about["seed"])[about["fit"]["images"] :]
    (lost,) = {*drawn} - evaluated
    directory.write_failures([Failure("results", lost, "OutOfMemory: no room", 3)])
    data = data_of(directory)
    assert "all 11 images to be evaluated are done; 1 image given up on" in missing(data)
    assert "not finished" not in " ".join(table_of(data).notes)


def test_what_the_selection_gave_up_on_is_told_once(tmp_path: Path) -> None:
    directory = make_run(tmp_path, maps=None)
    directory.write_failures([Failure("selection", "broken.png", "OutOfMemory: no room", 3)])
    data = data_of(directory)
    assert missing(data).startswith("16 inputs, 15 usable, none left out; all 12 images")
    (table,) = (block for block in exclusions(data) if isinstance(block, Table))
    assert [[value.text for value in row[:3]] for row in table.rows] == [
        ["selection", "OutOfMemory: no room", "1"]
    ]


def test_without_maps_the_page_tells_how_to_store_them_and_photos_may_be_gone(tmp_path: Path) -> None:
    directory = make_run(tmp_path, maps=None)
    shown_of = told(gallery(data_of(directory), {}))
    assert shown_of.count("data:image/jpeg") == 6
    assert 'With maps: {cells: ["ig/*/8"], converged: true} in the configuration' in shown_of
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    shown_of = told(gallery(data_of(directory), {}))
    assert shown_of.count("data:image/jpeg") == 0
    assert len(re.findall("The photo is not shown: .*?no such file", shown_of)) == 6


def test_photos_are_shown_without_the_model(tmp_path: Path) -> None:
    """Whose function a stranger may have chosen. Sizes that run.json does not tell are no error."""
    directory = make_run(tmp_path, images=2, maps=None)
    about = directory.read_run()
    about["config"]["model"]["name"] = "nowhere:nothing"
    directory.storage.write_json("run.json", about)
    assert told(gallery(data_of(directory), {})).count("data:image/jpeg") == 2
    del about["sizes"]
    directory.storage.write_json("run.json", about)
    assert told(gallery(data_of(directory), {})).count("run.json does not tell the sizes") == 2


def test_errors_that_are_not_defined_are_no_numbers(tmp_path: Path) -> None:
    def undefined(image_id: str, cell: Cell) -> float:
        return float("nan") if cell.placement == "exact" else halved(image_id, cell)

    html = page_of(make_run(tmp_path / "cells", error=undefined))
    assert re.search(r"\bnan\b", html) is None
    assert "No verdict: nothing is compared with equal points." in html
    data = data_of(make_run(tmp_path / "all", error=lambda image_id, cell: float("nan")))
    assert answer_of(data).startswith("No verdict: there is no error to compare by.")
    assert "Without an error there are no best and no worst images." in told(gallery(data, {}))
    assert "No error above 0 is there to draw" in told(error_charts(data))


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            ["insertion"],
            [
                "No verdict: there is no error to compare by.",
                "The run measures no error: the metric reference gives the true error",
                "The run has no relative errors: they come with the metric completeness.",
            ],
        ),
        (
            ["completeness"],
            [
                "saves most against equal points: for its completeness gap of 0.0312",
                "The run has no curves: the metrics insertion and deletion bring them.",
            ],
        ),
    ],
)
def test_a_metric_that_is_missing_is_named(tmp_path: Path, metrics: list[str], said: list[str]) -> None:
    html = page_of(make_run(tmp_path, metrics=metrics, maps=None, controls=[]))
    assert [text for text in said if text not in html] == []


def test_bare_results_have_a_page_too(run: RunDirectory) -> None:
    data = data_of(run)
    bare = RunData(data.results, data.summary, "a model", 12, {}, {})
    page = run_page(bare)
    words = told(block for section in page.sections for block in section.blocks)
    assert "There is no run.json beside the results" in words
    assert "The photo is not shown: the run directory does not tell where images lie" in words
    assert page.answer[2] == "All 12 images to be evaluated are done; none was given up on."


def test_a_saving_that_images_do_not_tell_from_nothing_is_doubted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def noisy(image_id: str, cell: Cell) -> float:
        return float(rng.gamma(0.2)) * (1.0 if cell.placement == "linear" else 0.9) / cell.samples

    data = data_of(make_run(tmp_path, error=noisy, maps=None))
    best = best_of(savings_of(data.results))
    assert best is not None
    assert best.spared[1] < 0 < best.spared[0]
    assert "which these images do not tell from nothing" in answer_of(data)


def test_numbers_have_three_digits_and_no_more() -> None:
    expected = {
        16.0: "16",
        0.12345: "0.123",
        -2.5: "−2.50",
        1e-7: "1.00e−07",
        12345.678: "12,346",
        0.0: "0",
        0.9996: "1.00",
    }
    assert {value: shown(value) for value in expected} == expected
    assert [shown(value) for value in (math.nan, math.inf, -math.inf)] == ["–", "∞", "−∞"]

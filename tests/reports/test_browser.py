"""The page of a run in a real browser: nothing fails, nothing is asked for, tables sort, two schemes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from riemannopt_dist.reports.formats import FORMATS
from riemannopt_dist.reports.run_page import INDEX
from riemannopt_dist.run.directory import RunDirectory
from tests.reports.small_run import data_of, make_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs Chromium: apt-get install --no-install-recommends chromium chromium-driver",
    ),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1240,1000",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of forty images, one with a name of markup, and its page."""
    names = {7: "<script>alert(1)<%script><img src=x onerror=alert(2)>.png"}
    directory = make_run(tmp_path_factory.mktemp("world"), images=40, names=names)
    directory.storage.write_bytes(INDEX, FORMATS["html"](data_of(directory))[INDEX])
    return directory


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with a profile of its own, which logs what it asks the network for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def page(run: RunDirectory, browser: Any) -> Any:
    """The browser with the page just opened, in light colours."""
    prefer(browser, "light")
    browser.get((Path(run.storage.root) / INDEX).as_uri())
    return browser


def prefer(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def column(page: Any, table: str, place: int) -> list[str]:
    cells = f"#{table} tbody td:nth-child({place + 1})"
    script = f"return [...document.querySelectorAll('{cells}')].map((cell) => cell.textContent)"
    texts: list[str] = page.execute_script(script)
    return texts


def background(page: Any) -> str:
    colour: str = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    return colour


def test_nothing_fails_and_no_request_leaves_the_file(run: RunDirectory, page: Any) -> None:
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    own = (Path(run.storage.root) / INDEX).as_uri()
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = [params["request"]["url"] for params in sent if params["documentURL"] == own]
    assert {url.partition(",")[0] for url in asked} <= {own, "data:", "data:image/jpeg;base64"}
    assert own in asked
    resources = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [name for name in page.execute_script(resources) if not name.startswith("data:")] == []
    drawn = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert page.execute_script(drawn) is True
    assert page.execute_script("return document.querySelectorAll('svg').length") >= 6


def test_a_table_is_sorted_by_the_column_that_is_clicked(page: Any) -> None:
    heads = page.find_elements("css selector", "#cells th")
    (place,) = (n for n, head in enumerate(heads) if head.text.startswith("true error"))
    before = column(page, "cells", place)
    heads[place].find_element("css selector", "button").click()
    rising = column(page, "cells", place)
    heads[place].find_element("css selector", "button").click()
    falling = column(page, "cells", place)
    assert rising == sorted(before, key=lambda text: float(text.split()[0]))
    assert falling == rising[::-1]
    assert before not in (rising, falling)
    assert heads[place].get_attribute("aria-sort") == "descending"
    heads[0].find_element("css selector", "button").click()
    assert heads[place].get_attribute("aria-sort") == "none"
    words = page.find_elements("css selector", "#cells th.number")[0]
    assert words.text.startswith("samples")


def test_rows_without_a_number_come_last_both_ways(page: Any) -> None:
    heads = page.find_elements("css selector", "#scores th")
    (place,) = (n for n, head in enumerate(heads) if head.text.startswith("reference error mean"))
    for _ in range(2):
        heads[place].find_element("css selector", "button").click()
        assert column(page, "scores", place)[-1] == "–"


def test_numbers_in_the_table_are_those_in_the_parquet(run: RunDirectory, page: Any) -> None:
    query = (
        f"SELECT placement, samples, AVG(reference_error) FROM read_parquet('{run.storage.root}/results/*')"
        " WHERE path = 'ig' GROUP BY ALL"
    )
    expected = {
        (placement, str(samples)): error for placement, samples, error in duckdb.sql(query).fetchall()
    }
    heads = [
        head.text.split("\n")[0].split(" ↕")[0] for head in page.find_elements("css selector", "#cells th")
    ]
    columns = {
        name: column(page, "cells", heads.index(name)) for name in ("placement", "samples", "true error")
    }
    told = dict(
        zip(zip(columns["placement"], columns["samples"], strict=True), columns["true error"], strict=True)
    )
    assert told.keys() == expected.keys()
    assert len(told) == 5
    for cell, text in told.items():
        assert float(text.split()[0]) == pytest.approx(expected[cell], rel=5e-3)  # three digits


def test_light_and_dark_differ_and_the_switch_overrides_the_system(page: Any) -> None:
    light = background(page)
    prefer(page, "dark")
    dark = background(page)
    assert light != dark
    switch = page.find_element("id", "scheme")
    switch.click()
    assert (switch.text, background(page)) == ("scheme: light", light)
    switch.click()
    assert (switch.text, background(page)) == ("scheme: dark", dark)
    prefer(page, "light")
    assert background(page) == dark
    inks = page.execute_script("return getComputedStyle(document.querySelector('svg text')).fill")
    assert inks == page.execute_script("return getComputedStyle(document.body).color")


def test_it_prints_in_light_colours(page: Any) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert background(page) == "rgb(255, 255, 255)"
    assert page.find_element("id", "scheme").is_displayed() is False
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})

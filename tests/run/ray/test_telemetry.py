"""What a run exports to Prometheus, read from the port of a real Ray, and the dashboard that shows it."""

import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from riemannopt_dist.run.ray.driver import evaluate
from riemannopt_dist.run.ray.telemetry import BUSY, GRADIENTS, IMAGES_DONE, SERIES, DriverTelemetry
from riemannopt_dist.run.stages.tally import Timings
from riemannopt_dist.testing.small_world import FIT, PICTURES, make_pictures, small_config

DASHBOARD = json.loads(Path("jobs/grafana.json").read_text(encoding="utf-8"))


@pytest.fixture
def port() -> Iterator[int]:
    """The metrics port of a Ray that reports twice a second."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = int(opened.getsockname()[1])
    ray.init(
        "local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 500},
    )
    yield port
    ray.shutdown()


def scraped(port: int) -> dict[str, dict[str, float]]:
    """Every series of ours on the port: its values by their labels, as they stand there."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    found: dict[str, dict[str, float]] = {}
    for name, labels, value in re.findall(r"^(ray_riemannopt_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        found.setdefault(name, {})[labels] = float(value)
    return found


def test_a_run_exports_every_series_under_its_name(port: int, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = small_config(make_pictures(tmp_path / "pictures"), output)
    started = time.monotonic()
    directory = evaluate(config)
    took = time.monotonic() - started
    # What only happens when things go wrong.
    telemetry = DriverTelemetry("elsewhere")
    telemetry.failed("results", 2)
    telemetry.lost("results")
    expected = {series.exported for series in SERIES}
    deadline = time.monotonic() + 20
    while set(found := scraped(port)) != expected:
        assert time.monotonic() < deadline, expected ^ set(found)
        time.sleep(0.5)
    done = {
        stage: sum(v for labels, v in found[IMAGES_DONE.exported].items() if f'stage="{stage}"' in labels)
        for stage in ("selection", "fit", "results")
    }
    assert done == {"selection": PICTURES, "fit": FIT, "results": PICTURES - FIT}
    assert all(f'run="{output}"' in labels for labels in found[IMAGES_DONE.exported])
    # The files and the metrics tell of the same gradients.
    timings = [
        Timings.of(directory.storage.read_table(name).schema)
        for stage in ("fit", "results")
        for name in directory.storage.list(stage)
    ]
    made = sum(shard.gradient_evaluations for shard in timings if shard is not None)
    assert sum(found[GRADIENTS.exported].values()) == made > 0
    assert all(0 < share <= 1 for share in found[BUSY.exported].values())
    seconds = sum(found["ray_riemannopt_seconds_total"].values())
    assert 0 < seconds < took


def test_every_panel_shows_what_is_exported() -> None:
    names = {series.exported: series for series in SERIES}
    shown = set()
    for panel in DASHBOARD["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            used = re.findall(r"\bray_\w+", target["expr"])
            assert used, target["expr"]
            assert set(used) <= set(names), target["expr"]
            shown |= set(used)
            labels = {label for name in used for label in names[name].labels}
            grouped = re.findall(r"by \((\w+)\)", target["expr"])
            legend = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert {*grouped, *legend, "run"} <= labels, target["expr"]
            # rate and increase are of counters, and a counter alone is a growing number.
            counted = "_total{" in target["expr"]
            assert counted == (names[used[0]].name.endswith("_total"))
    assert shown == set(names), "a series that no panel shows"
    (run,) = (v for v in DASHBOARD["templating"]["list"] if v["name"] == "run")
    assert re.findall(r"ray_\w+", run["definition"])[0] in names


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

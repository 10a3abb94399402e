"""What is not finite is no result, whatever is measured: rows are refused, and those of a run are told of."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from riemannopt_dist.data.files import LocalFiles
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.estimators.converged import Reference
from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.metrics.information.metric import INFORMATION_FAST
from riemannopt_dist.metrics.insertion import INSERTION
from riemannopt_dist.metrics.metric import Metric
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.paths.table import path_family
from riemannopt_dist.quadrature.profile import equispaced
from riemannopt_dist.quadrature.rules import linear_partition
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.finiteness import check_maps, faulty_column
from riemannopt_dist.run.grid import make_cell, place
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.evaluate import Evaluation
from riemannopt_dist.run.stages.fit import Fitting
from riemannopt_dist.run.stages.select import Selection
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.testing.problems import RISING
from riemannopt_dist.testing.small_world import SIDE, make_pictures

PAIRS = [("ig", "left"), ("ig", "idgi"), ("guided_ig", "left"), ("guided_ig", "idgi")]


def engine(name: str) -> Engine:
    return Engine(load_model(f"tests.unsound:{name}"), torch.device("cpu"), LocalFiles(), 8, Tally())


def examples(engine: Engine, folder: Path) -> list[Example]:
    """The pictures in a folder, each with the class that is predicted."""
    refs = list_images(str(folder))
    rows = Selection(4).rows(engine, refs)
    return [Example(ref, row["prediction"] or 0) for ref, row in zip(refs, rows, strict=True)]


def evaluation(
    metrics: list[str], path: str, estimator: str = "left", *, adaptive: bool = False
) -> Evaluation:
    family = path_family(path)
    cell = make_cell(family, estimator, "adaptive" if adaptive else "linear", 4)
    return Evaluation(
        placed=place([cell], {path: family}, {path: RISING}),
        paths={path: family},
        controls=("random",),
        metrics=tuple(metrics),
        reference_edges={path: linear_partition(8)} if "reference" in metrics else {},
        reference_images=frozenset({"p00.png"}),
        explain="probability",
        batch_size=4,
        seed=0,
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures", 2)


@pytest.mark.parametrize("metrics", [[], ["completeness"], ["insertion"], ["deletion", "reference"]])
@pytest.mark.parametrize(("path", "estimator"), PAIRS)
def test_a_map_that_is_not_finite_fails_whatever_is_measured(
    pictures: Path, metrics: list[str], path: str, estimator: str
) -> None:
    worker = engine("standardised")
    with pytest.raises(FloatingPointError, match=rf"^the map of {path}/{estimator}/linear/4 is not finite$"):
        list(evaluation(metrics, path, estimator).rows(worker, examples(worker, pictures)))


@pytest.mark.parametrize(
    ("rule", "adaptive", "what"),
    [
        ("right", False, "f_baseline"),
        ("gauss_legendre", False, "f_baseline"),
        ("softmax_trapezoid", False, "the map"),
        ("softmax_trapezoid", True, "the map"),
    ],
)
def test_finite_sums_from_an_end_that_is_not_fail_too(
    pictures: Path, rule: str, adaptive: bool, what: str
) -> None:
    worker = engine("standardised")
    stage = evaluation(["completeness"], "ig", rule, adaptive=adaptive)
    with pytest.raises(FloatingPointError, match=rf"^{what} of ig/{rule}/\w+/4 is not finite$"):
        list(stage.rows(worker, examples(worker, pictures)))


def test_a_path_that_does_not_meet_the_fault_has_its_rows(pictures: Path) -> None:
    worker = engine("standardised")
    rows = list(evaluation(["completeness"], "blur_ig").rows(worker, examples(worker, pictures)))
    assert [row["path"] for row in rows] == ["blur_ig"] * 2 + ["none"] * 2
    assert all(math.isfinite(row["relative_error"]) for row in rows[:2])
    assert all(math.isnan(row["relative_error"]) for row in rows[2:])  # a control has no path


@pytest.mark.parametrize(
    ("metric", "column"),
    [("insertion", "insertion"), ("deletion", "deletion"), ("information_fast", "sic_fast")],
)
def test_a_score_that_is_not_finite_fails(pictures: Path, metric: str, column: str) -> None:
    """The maps are: only what the metric shows the model is not."""
    worker = engine("partial")
    assert len(list(evaluation(["completeness"], "ig").rows(worker, examples(worker, pictures)))) == 4
    with pytest.raises(FloatingPointError, match=rf"^{column} of ig/left/linear/4 is not finite$"):
        list(evaluation(["completeness", metric], "ig").rows(worker, examples(worker, pictures)))


def test_a_converged_map_is_checked_before_it_is_compared_with() -> None:
    cells = [make_cell(path_family("ig"), "left", "linear", n) for n in (2, 4)]
    maps, none = torch.ones(2, 1, 3, 2, 2), torch.ones(1)
    sound, faulty = (Reference(fill * maps[0], none, none) for fill in (1.0, math.inf))
    check_maps(cells, maps, [None, sound])
    with pytest.raises(FloatingPointError, match=r"^the converged map of ig/left/linear/4 is not finite$"):
        check_maps(cells, maps, [sound, faulty])


def test_fit_and_selection_fail_too(tmp_path: Path) -> None:
    worker = engine("standardised")
    noise = make_pictures(tmp_path / "noise", 2)
    stage = Fitting("fit", {"ig": tuple(equispaced(4))}, {"ig": path_family("ig")}, "probability", 4)
    with pytest.raises(FloatingPointError, match=r"^the gradients along the path ig are not finite$"):
        list(stage.rows(worker, examples(worker, noise)))
    (tmp_path / "black").mkdir()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / "black/black.png")
    with pytest.raises(FloatingPointError, match=r"^the logits are not finite$"):
        list(Selection(4).rows(worker, list_images(str(tmp_path / "black"))))


def test_what_is_not_defined_is_no_fault(tmp_path: Path) -> None:
    """A black picture: f does not change, no curve gains anything, and there is no map to compare."""
    (tmp_path / "black").mkdir()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / "black/p00.png")
    worker = engine("plain")
    metrics = ["completeness", "insertion", "information_fast", "reference"]
    rows = list(evaluation(metrics, "ig").rows(worker, examples(worker, tmp_path / "black")))
    assert len(rows) == 2
    assert math.isnan(rows[0]["reference_error"])
    assert math.isnan(rows[0]["sic_fast"])


# --- The rule ---

ROW = {
    "path": "ig",
    "placement": "linear",
    "f_input": 0.5,
    "f_baseline": 0.1,
    "attribution_sum": 0.3,
    "output_change": 0.4,
    "completeness_delta": -0.1,
    "relative_error": 0.25,
    "insertion": 0.2,
    "insertion_normalized": 0.4,
    "insertion_curve": [0.1, 0.5],
    "sic_fast": 0.5,
    "aic_fast": 1.0,
    "information_fast_x": [0.5],
    "sic_fast_y": [0.5],
    "aic_fast_y": [1.0],
    "sic_fast_skipped": None,
    "aic_fast_skipped": None,
}
NAN, INFINITE = math.nan, math.inf
SKIPPED = {"sic_fast": NAN, "sic_fast_y": [NAN], "sic_fast_skipped": "too unsure"}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"f_input": NAN}, "f_input"),
        ({"f_baseline": INFINITE}, "f_baseline"),
        ({"f_baseline": None}, "f_baseline"),
        ({"attribution_sum": NAN}, "attribution_sum"),
        ({"relative_error": NAN}, None),
        ({"relative_error": INFINITE}, "relative_error"),
        ({"insertion_normalized": NAN}, None),
        ({"insertion": -INFINITE}, "insertion"),
        ({"insertion_curve": [0.1, NAN]}, "insertion_curve"),
        ({"insertion_curve": [0.1, None]}, "insertion_curve"),
        (SKIPPED, None),
        ({**SKIPPED, "sic_fast_skipped": None}, "sic_fast"),
        ({**SKIPPED, "aic_fast": NAN}, "aic_fast"),
        ({"path": "none", "f_baseline": NAN, "output_change": NAN, "completeness_delta": NAN}, None),
        ({"path": "none", "f_input": NAN}, "f_input"),
    ],
)
def test_what_is_faulty(changes: dict[str, Any], fault: str | None) -> None:
    assert faulty_column({**ROW, **changes}, [COMPLETENESS, INSERTION, INFORMATION_FAST]) == fault


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_column_that_gives_reasons_is_a_text_of_its_metric(metric: Metric) -> None:
    texts = {column.name for column in metric.columns if column.kind == "text"}
    assert {column.reason for column in metric.columns if column.reason} <= texts
    assert all(column.undefined for column in metric.columns if column.reason)

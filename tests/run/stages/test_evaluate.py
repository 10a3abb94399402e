"""What the files of the last stage tell of themselves."""

import json

import pytest

from riemannopt_dist.metrics.metric import WITHOUT_GAP
from riemannopt_dist.paths.table import path_family
from riemannopt_dist.run.grid import make_cell, place
from riemannopt_dist.run.stages.evaluate import Evaluation


@pytest.mark.parametrize(
    ("estimators", "without"),
    [(["left", "rescale", "idgi"], ["idgi", "rescale"]), (["left"], [])],
)
def test_results_tell_the_estimators_without_a_gap(estimators: list[str], without: list[str]) -> None:
    family = path_family("ig")
    cells = [make_cell(family, name, "linear", 4) for name in estimators]
    stage = Evaluation(
        placed=place(cells, {"ig": family}, {}),
        paths={"ig": family},
        controls=(),
        metrics=("completeness",),
        reference_edges={},
        reference_images=frozenset(),
        explain="probability",
        batch_size=4,
        seed=0,
    )
    assert json.loads(stage.schema.metadata[WITHOUT_GAP.encode()]) == without

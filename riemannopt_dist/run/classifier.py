"""The classifier of a run, as the driver has it: loaded, and checked before a worker is started.

Workers build theirs from its weights, by `models.folding.fast_classifier`.
"""

from typing import Unpack

import torch

from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import assemble_model, load_model
from riemannopt_dist.models.logits import moved
from riemannopt_dist.models.recipe import ModelSettings
from riemannopt_dist.models.soundness import (
    REARRANGED,
    check_classifier,
    noise,
    run_model,
)
from riemannopt_dist.models.state import model_state
from riemannopt_dist.objective import Output
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.requirements import check_metrics
from riemannopt_dist.storage.redaction import one_line


def checked_classifier(
    name: str, weights: str | None, output: Output = "probability", **settings: Unpack[ModelSettings]
) -> Classifier:
    """`load_model(name, weights, …)`. Raises ValueError for one whose `output` cannot be explained."""
    model = load_model(name, weights, **settings)
    check_classifier(model, output)
    return model


def check_for_run(model: Classifier, config: Config) -> int:
    """The number of classes of a classifier that `config` can be run with.

    Raises ValueError, before a worker is started, where its output cannot be explained, workers cannot build
    it, an estimator in the grid cannot explain it, or a baseline's pictures cannot be read.
    """
    check_choices(config)
    classes = check_classifier(model, config.explain)
    check_suitability(model, config)
    _check_rebuilding(model)
    return classes


def check_choices(config: Config) -> None:
    """Raise ValueError for metrics that lack something, and a baseline whose pictures cannot be read."""
    check_metrics(config)
    config.baseline_digests()


def check_suitability(model: Classifier, config: Config) -> None:
    """Raise ValueError where an estimator or a path in `config` does not go with the model.

    Whatever the model's weights are: a baseline has as many channels as the images, for example.
    """
    for family in config.paths().values():
        family.through(noise(model)[:1])
    for name in dict.fromkeys(cell.estimator for cell in config.cells()):
        ESTIMATORS[name].check(model)


def _check_rebuilding(model: Classifier) -> None:
    """Raise ValueError unless the model, built once more from its weights as by workers, has its logits."""
    image = noise(model)[:1]
    try:
        rebuilt = assemble_model(model.name, model_state(model))
    except Exception as error:
        told = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"model: it cannot be built once more, as every worker does: {told}") from error
    with torch.no_grad():
        logits, expected = run_model(rebuilt, image), run_model(model, image)
    if not moved(logits, expected) <= REARRANGED:
        raise ValueError(
            "model: built once more from its weights, as every worker does, it gives other logits: keep all "
            "that they depend on as parameters and buffers"
        )

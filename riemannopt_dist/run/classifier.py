"""The classifier of a run: loaded and checked by the driver, built once more from its weights by workers."""

from collections.abc import Iterable
from typing import Any

import torch

from riemannopt_dist.data.classes import CLASSES, class_name
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import assemble_model, load_model, model_state
from riemannopt_dist.models.soundness import (
    REARRANGED,
    check_classifier,
    moved,
    noise,
    run_model,
)
from riemannopt_dist.objective import Output
from riemannopt_dist.run.config import Config, check_packages
from riemannopt_dist.storage.redaction import one_line


def checked_classifier(
    name: str, weights: str | None, output: Output = "probability", **settings: Any
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
    check_packages(config)
    config.baseline_digests()
    classes = check_classifier(model, config.explain)
    check_operations(model, config)
    _check_rebuilding(model)
    return classes


def check_operations(model: Classifier, config: Config) -> None:
    """Raise ValueError where an estimator in the grid of `config` cannot explain the model."""
    for name in dict.fromkeys(cell.estimator for cell in config.cells()):
        ESTIMATORS[name].check(model)


def labelled_images(config: Config, classes: int) -> list[ImageRef]:
    """The images of a run of a model of so many classes, with their labels.

    Raises ValueError for a label that the model lacks, and names of other classes than it has.
    """
    names = config.model.class_names()
    if names is not None and len(names) != classes:
        raise ValueError(f"model.classes: expected the names of {classes} classes, got {len(names)}")
    own = None if classes == CLASSES else classes
    refs = list_images(config.images, config.labels, config.image_extensions, own if names is None else names)
    check_labels(refs, classes)
    return refs


def check_labels(refs: Iterable[ImageRef], classes: int) -> None:
    """Raise ValueError for a label that is none of the model's classes, 0 … classes − 1."""
    for ref in refs:
        if ref.label is not None and ref.label >= classes:
            raise ValueError(
                f"labels: {ref.image_id!r} has class {ref.label}, the model's are 0 to {classes - 1}: "
                "expected a model of the classes that the labels name"
            )


def class_names(model: Classifier, classes: int) -> list[str] | None:
    """The names of a classifier's classes: its network's `class_names`, else of 1,000 ILSVRC's; or None.

    Raises ValueError for names that are not one for each class.
    """
    own = getattr(model.network, "class_names", None)
    if own is None:
        return [class_name(index) for index in range(classes)] if classes == CLASSES else None
    if len(own) != classes:
        raise ValueError(f"model: class_names are {len(own)}, expected one for each of {classes} classes")
    return [str(name) for name in own]


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

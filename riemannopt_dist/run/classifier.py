"""The classifier of a run: loaded and checked by the driver, built once more from its weights by workers."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Unpack

import torch

from riemannopt_dist.choices import TARGET_RULES
from riemannopt_dist.data.boxes import boxes_of
from riemannopt_dist.data.classes import CLASSES, class_name, named_class
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
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


def labelled_images(config: Config, classes: int, names: Sequence[str] | None = None) -> list[ImageRef]:
    """The images of a run of a model of so many classes, called `names`, with their labels.

    Raises ValueError for a label that the model lacks, names of other classes than it has, and boxes of other
    images.
    """
    if names is not None and len(names) != classes:
        raise ValueError(f"model.classes: expected the names of {classes} classes, got {len(names)}")
    is_named = names is not None and (classes != CLASSES or config.model.classes is not None)
    own = None if classes == CLASSES else classes
    refs = list_images(config.images, config.labels, config.image_extensions, names if is_named else own)
    check_labels(refs, classes)
    if config.boxes is not None:
        boxes_of(config.boxes.folder, [ref.image_id for ref in refs])
    return refs


def with_class_index(config: Config, names: Sequence[str] | None, classes: int) -> Config:
    """The configuration with the indices of the classes that its `targets` name, if they name any.

    Raises ValueError where the model has no such class, and for the second of a single one.
    """
    targets = config.targets
    if targets == "runner_up" and classes < 2:
        raise ValueError("targets: runner_up: expected two classes or more, the model has 1")
    if targets in TARGET_RULES:
        return config
    try:
        if isinstance(targets, tuple):
            indices = {target_index(str(one), names, classes) for one in targets}
            return config.model_copy(update={"targets": tuple(sorted(indices))})
        return config.model_copy(update={"targets": target_index(str(targets), names, classes)})
    except ValueError as error:
        rules = ", ".join(TARGET_RULES)
        raise ValueError(f"targets: expected {rules} or a class: {error}".replace(": target:", ":")) from None


def target_index(target: str, names: Sequence[str] | None, classes: int) -> int:
    """The class that an index stands for, or one of the classes' `names`, or another of ImageNet's for it.

    Raises ValueError where there is none, and for a name of several.
    """
    if target.isdecimal():
        if int(target) < classes:
            return int(target)
        raise ValueError(f"target: expected a class below {classes}, got {target}")
    if names is None:
        raise ValueError(f"target: expected the index of one of {classes} classes, got {target!r}")
    places = [place for place, name in enumerate(names) if name == target]
    index = places[0] if len(places) == 1 else named_class(target) if classes == CLASSES else None
    if index is None:
        near = get_close_matches(target, names, 3, 0.5)
        meant = f" (did you mean {', '.join(near)}?)" if near else ""
        raise ValueError(f"target: {target!r} is the name of no class, or of several{meant}")
    return index


def check_labels(refs: Iterable[ImageRef], classes: int) -> None:
    """Raise ValueError for a label that is none of the model's classes, 0 … classes − 1."""
    for ref in refs:
        if ref.label is not None and ref.label >= classes:
            raise ValueError(
                f"labels: {ref.image_id!r} has class {ref.label}, the model's are 0 to {classes - 1}: "
                "expected a model of the classes that the labels name, or the names of its classes, in their "
                "order, in model.classes"
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

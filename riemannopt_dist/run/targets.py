"""The class explained of each image: by the rule of the configuration, or one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from riemannopt_dist.choices import TARGET_RULES, Targets
from riemannopt_dist.run.classes import target_index

if TYPE_CHECKING:  # workers, which need no schemas, are spared them
    from riemannopt_dist.run.config.config import Config


def target_of(row: Mapping[str, Any], targets: Targets) -> int:
    """The class explained of an image, by its label and what the model sees in it."""
    if isinstance(targets, int):
        return targets
    column = column_of(targets)
    target: int = row["prediction"] if row[column] is None else row[column]
    return target


def column_of(targets: Targets) -> str:
    """The column of images.parquet that has the targets, where they are not one class for all images."""
    if isinstance(targets, str | int):
        return "prediction" if targets == "predicted" else str(targets)
    return "likeliest"


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

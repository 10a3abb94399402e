"""The classes of a run's model: their names, and the one that a name or an index stands for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from riemannopt_dist.data.classes import CLASSES, class_name, named_class

if TYPE_CHECKING:
    from riemannopt_dist.models.classifier import Classifier


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

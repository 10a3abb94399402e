"""ILSVRC's 1,000 classes: the index that a synset, a name or another label of a data set means.

A class index is its synset's rank among all 1,000 of ILSVRC, as torchvision's and timm's models have it.
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

SYNSET = re.compile(r"n\d{8}")
_NAMED_SYNSET = re.compile(rf"({SYNSET.pattern})[\W_].*", re.DOTALL)  # n02085620-Chihuahua
CLASSES = 1000


def class_index(label: Any) -> tuple[int | None, str | None]:
    """The class index that a label of a data set means, or why it means none.

    A label is an integer from 0, also as a floating-point number or as text, a synset or the name of a class.
    None and NaN are no label.
    """
    if label is None or (isinstance(label, float) and math.isnan(label)):
        return None, "no label"
    text = label.decode("utf-8", "replace") if isinstance(label, bytes) else str(_whole(label))
    text = text.strip()
    if SYNSET.fullmatch(text):
        rank = synset_ranks().get(text)
        return rank, None if rank is not None else f"label {text} is not one of the 1,000 ILSVRC synsets"
    if not isinstance(label, bool) and re.fullmatch(r"\d{1,9}", text):
        return int(text), None
    if isinstance(label, str | bytes) and (named := named_class(text)) is not None:
        return named, None
    return None, f"label {text[:40]!r} is neither a class index nor a synset, nor a class of ILSVRC"


def named_class(name: str) -> int | None:
    """The class of a name; None for one that is no class's, or that of several.

    A name is a synset, alone or before a name (n02085620-Chihuahua), or one or all of the names that WordNet
    has for it, with spaces or underscores: n01440764, "tench" and "tench, Tinca tinca" are class 0.
    """
    if named := _NAMED_SYNSET.fullmatch(name):
        return synset_ranks().get(named[1])
    if SYNSET.fullmatch(name):
        return synset_ranks().get(name)
    spaced = " ".join(name.replace("_", " ").split())
    as_written, in_lower_case = _names()
    found = (
        (named.get(spaced) for named in as_written),
        (named.get(spaced.lower()) for named in in_lower_case),
    )
    return next((index for index in itertools.chain(*found) if index is not None), None)


def classes_of(names: Sequence[str]) -> list[int | None]:
    """The class that each of a data set's names means, None for a name that means none.

    Of 1,000 names that stand nearly all at the place of the class they mean, each means the class of its
    place: those of ILSVRC in order, some of them in other words.
    """
    indices = [int(name) if re.fullmatch(r"\d{1,9}", name) else named_class(name) for name in names]
    at_their_place = sum(index == place for place, index in enumerate(indices))
    if len(names) == CLASSES and at_their_place >= 0.9 * CLASSES:
        return list(range(CLASSES))
    return indices


def class_name(index: int) -> str:
    """The first of WordNet's names of an ILSVRC class, and its number for any other."""
    names = _descriptions()
    return names[index].split(", ")[0] if index < len(names) else f"class {index}"


@functools.cache
def synset_ranks() -> dict[str, int]:
    """Class index of each ILSVRC synset, which is its rank among all 1,000."""
    return {synset: rank for rank, synset in enumerate(_imagenet().label_names())}


@functools.cache
def _names() -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """Classes by name, as written and in lower case, the surest kind of name first.

    The kinds are all of a class's names, the first of them, and any. A name of several classes is left out.
    """
    all_names = _descriptions()
    kinds: list[list[tuple[str, int]]] = [
        [(name, index) for index, names in enumerate(all_names) for name in (names, names.replace(",", ""))],
        [(names.split(", ")[0], index) for index, names in enumerate(all_names)],
        [(name, index) for index, names in enumerate(all_names) for name in names.split(", ")],
    ]
    lower = [[(name.lower(), index) for name, index in kind] for kind in kinds]
    return [_unique(kind) for kind in kinds], [_unique(kind) for kind in lower]


def _unique(names: Iterable[tuple[str, int]]) -> dict[str, int]:
    pairs = set(names)
    count = Counter(name for name, _ in pairs)
    return {name: index for name, index in pairs if count[name] == 1}


def _whole(label: Any) -> Any:
    """A number without a fraction as an integer; anything else as it is."""
    if isinstance(label, bool | str) or not hasattr(label, "__trunc__"):
        return label
    return int(label) if math.isfinite(label) and label == int(label) else label


@functools.cache
def _descriptions() -> list[str]:
    """All of WordNet's names of each class, by their indices."""
    descriptions: list[str] = _imagenet().label_descriptions()
    return descriptions


def _imagenet() -> Any:
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ModuleNotFoundError as error:
        raise ValueError("source: synsets and names as labels need timm: pip install timm") from error
    return ImageNetInfo()

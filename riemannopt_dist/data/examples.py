"""Examples of a WebDataset, told from the names of a tar's members.

The members of an example share its key, the beginning of their name before a dot; what follows is the
extension, which may hold dots: key.seg.png belongs to the example key. A key may hold dots too.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from riemannopt_dist.data.image_ref import SUFFIXES

EXTENSIONS = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
"""Extensions of an example's image, in lower case."""
CLASS = "cls"
"""The extension of its label."""

_PLAIN = re.compile(r"(.*/)?[^.]*(\.\d+(?![^.]))*")  # a key without a dot but those before numbers


@dataclass(frozen=True)
class Member:
    """A member of a tar: the key of its example, and its extension in lower case."""

    name: str
    key: str
    extension: str

    @property
    def may_be_image(self) -> bool:
        """Whether its name ends as that of an image does."""
        return self.name.lower().endswith(SUFFIXES)


def examples_of(names: Collection[str], extensions: Collection[str] | None) -> dict[str, list[Member]]:
    """The members of each example, by its key.

    A member's key is the shortest that leaves it an image's extension, or is all of another's name but a last
    suffix.
    """
    stems = {name.rpartition(".")[0] for name in names if "." in name.rpartition("/")[2]}
    ends = EXTENSIONS if extensions is None else extensions
    examples: dict[str, list[Member]] = defaultdict(list)
    for name in sorted(names):
        dots = [dot for dot in range(name.rfind("/") + 1, len(name)) if name[dot] == "."]
        splits = ((name[:dot], name[dot + 1 :].lower()) for dot in dots)
        key, extension = next((s for s in splits if s[0] in stems or s[1] in ends), (name, ""))
        examples[key].append(Member(name, key, extension))
    return examples


def images_of(
    examples: Mapping[str, list[Member]], extensions: Collection[str] | None
) -> dict[Member, str | None]:
    """The images of examples, each with the reason not to take it, None for one to take.

    An example has one image, whose extension is one of `extensions`. If these are not given, they are those
    of all formats; and what may be an image and is perhaps none has a reason, too.
    """
    ends = EXTENSIONS if extensions is None else extensions
    images: dict[Member, str | None] = {}
    for example in examples.values():
        parts = [part for part in example if part.extension in ends]
        for part in parts:
            other = next((other.name for other in parts if other != part), None)
            images[part] = other and f"one image an example: {other} has the same key"
        if extensions is None:
            images |= _left_over(example, parts)
    if extensions is None:
        images |= _in_doubt(examples)
    return images


def _left_over(example: Sequence[Member], images: Sequence[Member]) -> dict[Member, str]:
    """Members of an example without an image, or with labels of their own, that end as images do."""
    reasons = {}
    names = {part.name for part in example}
    for part in example:
        stem = part.name.rpartition(".")[0]
        if not part.may_be_image or part in images:
            continue
        if f"{stem}.{CLASS}" in names:
            reasons[part] = _doubt(part, part.key, stem)
        elif not images:
            reasons[part] = f"extension {part.extension} is no image's (see image_extensions)"
    return reasons


def _in_doubt(examples: Mapping[str, list[Member]]) -> dict[Member, str]:
    """Images alone with a key that holds a dot, if others begin alike: k.left.jpg and k.right.jpg."""
    alone: dict[str, list[Member]] = defaultdict(list)
    for key, (part, *others) in examples.items():
        plain = _PLAIN.match(key)
        if not others and part.may_be_image and plain is not None and plain[0] != key:
            alone[plain[0]].append(part)
    pairs = [(key, part) for key, parts in alone.items() if len(parts) > 1 for part in parts]
    return {part: _doubt(part, key, part.key) for key, part in pairs}


def _doubt(part: Member, short: str, long: str) -> str:
    """Why the key of an image is not known, and what tells it."""
    extension = part.name.removeprefix(f"{short}.")
    return f"its key is {short} (with image_extensions: [{extension}]) or {long} (with a {long}.{CLASS})"

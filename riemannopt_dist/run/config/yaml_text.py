"""The text of a YAML file as plain values: YAML 1.2's core schema, without what other readers take otherwise.

A plain 016 is 14 to some and 16 to others, 1_000 a number or a text: here such scalars are texts, which no
number is made of. Tags are refused, and so are aliases that stand for more values than a person writes.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from riemannopt_dist.storage.redaction import one_line, scrubbed

LONGEST = 1 << 20
"""Characters in a file."""
LARGEST = 10_000
"""Values in a file, those that aliases stand for included."""
DEEPEST = 50
"""Lists and mappings within each other."""

_MERGE = "<<"
# Section 10.3.2 of YAML 1.2.2, without leading zeros. Of more digits a number is not whole.
_SCALARS = tuple(
    (re.compile(pattern), value)
    for pattern, value in (
        ("|~|null|Null|NULL", lambda text: None),
        ("true|True|TRUE", lambda text: True),
        ("false|False|FALSE", lambda text: False),
        ("[-+]?(0|[1-9][0-9]{0,18})", int),
        ("0o[0-7]{1,20}", lambda text: int(text, 8)),
        ("0x[0-9a-fA-F]{1,15}", lambda text: int(text, 16)),
        (r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
        (r"[-+]?\.(inf|Inf|INF)", lambda text: float(text.replace(".", ""))),
        (r"\.(nan|NaN|NAN)", lambda text: math.nan),
    )
)


def parse_yaml(text: str) -> Any:
    """The one document in `text`, None where there is none.

    Raises ValueError, in one line that names the place and quotes no value, for what is not YAML, a second
    document, a key that is not text or given twice, a tag, an alias of nothing, and for more than `LONGEST`
    characters, `LARGEST` values or `DEEPEST` levels.
    """
    if len(text) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} characters, got {len(text)}")
    try:
        return _Document(YAML(typ="safe", pure=True).parse(text)).value()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ValueError(f"not YAML: {scrubbed(error.problem or error.context)}{_place(mark)}") from None
    except YAMLError as error:
        raise ValueError(f"not YAML: {one_line(error)}") from None


class _Document:
    """Makes a value of the parser's events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._values = 0
        self._anchors: dict[str, tuple[Any, int]] = {}

    def value(self) -> Any:
        """That of the only document."""
        next(self._events)  # the stream's start
        start = next(self._events)
        if not isinstance(start, DocumentStartEvent):
            return None
        if start.version not in (None, (1, 2)):
            raise _error(f"expected YAML 1.2, got a directive for {'.'.join(map(str, start.version))}", start)
        value = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        if isinstance(second := next(self._events), DocumentStartEvent):
            raise _error("expected one document, got another", second)
        return value

    def _node(self, event: Any, depth: int) -> Any:
        before = self._values
        self._values += 1
        if isinstance(event, AliasEvent):
            value, size = self._aliased(event)
            self._values += size
        elif event.tag is not None:
            raise _error(f"expected a value without a tag, got {event.tag}", event)
        else:
            value = self._content(event, depth)
        if self._values > LARGEST:
            raise _error(f"expected at most {LARGEST} values, those that aliases stand for included", event)
        if event.anchor is not None and not isinstance(event, AliasEvent):
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _aliased(self, event: AliasEvent) -> tuple[Any, int]:
        if event.anchor not in self._anchors:
            raise _error(f"alias {event.anchor} stands for nothing before it", event)
        return self._anchors[event.anchor]

    def _content(self, event: Any, depth: int) -> Any:
        if isinstance(event, ScalarEvent):
            return _scalar(event.value) if event.implicit[0] else event.value
        if depth == DEEPEST:
            raise _error(f"expected at most {DEEPEST} lists and mappings within each other", event)
        if isinstance(event, SequenceStartEvent):
            return [self._node(item, depth + 1) for item in self._until(SequenceEndEvent)]
        return self._mapping(depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self._until(MappingEndEvent):
            key = self._node(event, depth)
            if not isinstance(key, str):
                raise _error("expected text as a key", event)
            if key in own:
                raise _error(f"key {scrubbed(key)} is given twice", event)
            own[key] = self._node(following := next(self._events), depth)
            if key == _MERGE:
                merged = _merged(own[key], following)
        own.pop(_MERGE, None)
        return merged | own

    def _until(self, end: type[Event]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event


def _merged(value: Any, event: Event) -> dict[str, Any]:
    """What a merge key adds: the keys of a mapping, or of several, of which the first has precedence."""
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(mapping, dict) for mapping in several):
        raise _error(f"expected keys and values after {_MERGE}", event)
    return {key: value for mapping in reversed(several) for key, value in mapping.items()}


def _scalar(text: str) -> Any:
    """What a scalar without quotes is."""
    return next((value(text) for pattern, value in _SCALARS if pattern.fullmatch(text)), text)


def _error(problem: str, event: Event) -> ValueError:
    return ValueError(f"{problem}{_place(event.start_mark)}")


def _place(mark: Any) -> str:
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"

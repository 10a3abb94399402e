"""What is wrong with a value of a configuration, in words that say nothing of Python."""

from typing import Any

from pydantic_core import ErrorDetails

LONGEST = 400
"""Characters of a sentence that are shown."""

_SAID = {"extra_forbidden": "unknown key", "missing": "missing"}
_EXPECTED = {
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text in Unicode",
    "string_too_short": "text",
    "int_type": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of:g}",
    "literal_error": "one of {expected}",
    "tuple_type": "a list",
    "too_short": "at least one",
    "model_type": "keys and values",
}
"""What pydantic expected, by its types of error, in words that say nothing of Python."""


def located(problem: ErrorDetails) -> str:
    """The key, where it is that of a value and not of all, and what is wrong there."""
    key = ".".join(map(str, problem["loc"]))
    return f"{key}: {sentence(problem)}" if key else sentence(problem)


def sentence(problem: ErrorDetails) -> str:
    """What was expected of a value, and what it is, from pydantic's account of it."""
    kind, message = problem["type"], problem["msg"]
    if kind in _SAID:
        return _SAID[kind]
    if kind == "value_error":  # one of ours, which says what it got
        return message.removeprefix("Value error, ")
    if kind in _EXPECTED:
        expected = _EXPECTED[kind].format_map(problem.get("ctx", {}))
    else:
        expected = message.removeprefix("Input should be ")
    return f"expected {expected}, got {shown(problem['input'])}"


def shown(value: Any) -> str:
    """A value as a YAML file has it, rather than as Python does."""
    if isinstance(value, dict):
        return "keys and values"
    if value is None:
        return "nothing"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return repr(value) if isinstance(value, str) else str(value).lower()


def shortened(text: str) -> str:
    """The text, or its beginning; it must be scrubbed before, as a part of an address hides its password."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"

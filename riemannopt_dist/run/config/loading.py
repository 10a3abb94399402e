"""A configuration from YAML or plain values, and one line that tells all that is wrong with these."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.wording import located, shortened, shown
from riemannopt_dist.run.config.yaml_text import parse_yaml
from riemannopt_dist.storage.redaction import scrubbed

TOLD = 10
"""Problems that a message names."""


def load_config(path: str, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration in a YAML file, with `overrides` (None means: not overridden).

    Raises ValueError, in one line, for a file that is missing, not YAML, or holds an unknown or bad key.
    """
    try:
        fields = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"config {path}: not YAML: {error}") from None
    except ValueError as error:
        raise ValueError(f"config {path}: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"config {path}: expected keys and values, got {shortened(scrubbed(shown(fields)))}")
    return make_config(_overridden(fields, overrides or {}), f"config {path}")


def _overridden(fields: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`fields` with `overrides` in their place; a mapping among these replaces keys of the one there."""
    merged = dict(fields)
    for key, value in overrides.items():
        if not isinstance(value, dict):
            merged |= {} if value is None else {key: value}
        elif isinstance(below := fields.get(key) or {}, dict):  # else it is bad, and stays so
            changes = {name: change for name, change in value.items() if change is not None}
            merged |= {key: {**below, **changes}} if changes else {}
    return merged


def make_config(fields: dict[str, Any], source: str) -> Config:
    """A Config from plain fields. Raises ValueError naming `source`, the key, its value and what is wrong."""
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        problems = [
            shortened(scrubbed(located(problem)))
            for problem in error.errors()
            # A list with bad items is called too short besides.
            if problem["type"] != "too_short" or not problem["input"]
        ]
        told = [*problems[:TOLD], *([f"and {len(problems) - TOLD} more"] if problems[TOLD:] else [])]
        raise ValueError(f"{source}: {'; '.join(told)}") from None

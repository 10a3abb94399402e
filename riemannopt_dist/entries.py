"""What tables ask of an entry that a package adds, or that an address stands for."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

Fault = Callable[[Any], str]
"""Tells what was expected, and what a value is instead; "" of one that will do."""


def instance_of(address: str) -> Fault:
    """Of a class at an address, which is imported when there is something to check."""

    def fault(value: Any) -> str:
        module, _, name = address.partition(":")
        expected = getattr(import_module(module), name)
        return "" if isinstance(value, expected) else f"expected {_called(expected)}, got {_shown(value)}"

    return fault


def like(expected: type) -> Fault:
    """An object with all that a protocol has."""

    def fault(value: Any) -> str:
        if isinstance(value, type):
            return f"expected {_called(expected)}, got {_shown(value)}: give an instance"
        lacking = [part for part in vars(expected) if part[0] != "_" and not hasattr(value, part)]
        without = f", without {', '.join(lacking)}"
        return f"expected {_called(expected)}, got {_shown(value)}{without}" if lacking else ""

    return fault


def function_of(*parameters: str, makes: str) -> Fault:
    """A function of so many parameters, given by their places; of any if none is named."""

    def fault(value: Any) -> str:
        of = f" of ({', '.join(parameters)})" if parameters else ""
        takes = callable(value) and (not parameters or _takes(value, len(parameters)))
        return "" if takes else f"expected a function{of} that makes {makes}, got {_shown(value)}"

    return fault


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function takes so many arguments by their places; one of whatever is called is believed."""
    try:
        signature = inspect.signature(function)
        signature.bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # some that are written in C tell none
        return True
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL not in kinds or inspect.Parameter.VAR_KEYWORD in kinds


def _called(kind: type) -> str:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return f"{article} {kind.__name__} as of {kind.__module__}"


def _shown(value: Any) -> str:
    name = getattr(value, "__name__", "")
    kind = "class" if isinstance(value, type) else type(value).__name__
    return f"the {kind} {name}" if name else f"a value of the type {kind}"

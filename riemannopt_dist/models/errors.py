"""What is wrong with a model that is asked for, in one line: unknown names, missing packages, downloads."""

import contextlib
import difflib
import importlib
from collections.abc import Iterator
from types import ModuleType


def required(package: str, wanted_by: str) -> ModuleType:
    """A package that a model needs. Raises ValueError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        install = package.replace("_", "-")
        raise ValueError(f"{wanted_by} needs {error.name}: pip install {install}") from error


@contextlib.contextmanager
def downloading(what: str) -> Iterator[None]:
    """An error inside, of any kind, is a ValueError: `what` could not be fetched."""
    try:
        yield
    except Exception as error:  # the hubs' clients share no base class of errors
        raise ValueError(
            f"weights: could not fetch {what} ({type(error).__name__}: {first_line(error)}); "
            "give a local file instead"
        ) from error


def closest(name: str, known: list[str]) -> str:
    """What to say of an unknown name: which of the known ones are like it; "" if none is."""
    matches = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def told(error: BaseException) -> str:
    """An error's kind and text, in one line."""
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """An error's text, in one line."""
    return str(error).strip().split("\n", 1)[0]


def first_of(names: list[str]) -> str:
    """The first name of many, and how many there are."""
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")

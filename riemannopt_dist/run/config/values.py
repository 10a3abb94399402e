"""The types of values that keys have in common."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from riemannopt_dist.registry import Registry
from riemannopt_dist.run.config.wording import shown
from riemannopt_dist.storage.redaction import URI, without_secrets

T = TypeVar("T")


def entry_of(registry: Registry[Any], *besides: str) -> Callable[[str], str]:
    """What checks that a registry has an entry of a name, or that it is one of `besides`."""

    def checked(name: str) -> str:
        registry.check(name, besides)
        return name

    return checked


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """The values. Raises ValueError for one that is there twice."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"expected each at most once, got {value!r} twice")
    return values


def either(expected: str) -> WrapValidator:
    """What tells in one line what a value of several types was expected to be."""

    def checked(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validated(value)
        except ValidationError:
            raise ValueError(f"expected {expected}, got {shown(value)}") from None

    return WrapValidator(checked)


def local(text: str) -> str:
    """The text. Raises ValueError for an address with a scheme."""
    if URI.match(text):
        raise ValueError(f"expected a local path, got {without_secrets(text)}")
    return text


Text = Annotated[str, Field(min_length=1)]
LocalPath = Annotated[Text, AfterValidator(local)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
CountOrAuto = Annotated[PositiveInt | Literal["auto"], either("a count or auto")]
# Lists, in a file: strict validation would take tuples alone.
Items = Annotated[tuple[T, ...], Field(strict=False)]
DistinctItems = Annotated[Items[T], AfterValidator(distinct)]

"""What every part of a configuration is: checked to the letter, and never changed."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """Frozen; an unknown key is an error, a number that is infinite or NaN, and a value of another type.

    So true is not 1, 16.0 not 16, "16" no number, and 16 no text.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    former_keys: ClassVar[Mapping[str, str]] = {}
    """Keys that are no more, and what is told of each."""

    @model_validator(mode="before")
    @classmethod
    def _current_keys(cls, fields: Any) -> Any:
        for key, words in cls.former_keys.items():
            if isinstance(fields, dict) and key in fields:
                raise ValueError(f"{key!r} {words}")
        return fields

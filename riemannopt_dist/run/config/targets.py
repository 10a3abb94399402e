"""The class explained: by a rule, its index or its name, or the likeliest of several."""

from typing import Annotated, Any

from pydantic import BeforeValidator

from riemannopt_dist.choices import TARGET_RULES, Targets
from riemannopt_dist.run.config.values import distinct
from riemannopt_dist.run.config.wording import shown


def _checked(value: Any) -> Any:
    """Targets as they are told, several as a tuple."""
    several = isinstance(value, list | tuple)
    told = tuple(value) if several else (value,)
    if not told or not all(map(_is_class, told)) or (several and any(one in TARGET_RULES for one in told)):
        rules = ", ".join(TARGET_RULES)
        raise ValueError(f"expected {rules}, or a class by its index or name, or several, got {shown(value)}")
    return distinct(told) if several else value


def _is_class(value: Any) -> bool:
    """Whether a value may be the index or the name of a class."""
    is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return is_index or (isinstance(value, str) and value != "")


TargetChoice = Annotated[Targets, BeforeValidator(_checked)]

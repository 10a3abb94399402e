"""What is chosen by name, and checks of plain values: with these a configuration is checked without torch."""

from typing import Literal, get_args

Output = Literal["probability", "logit"]
"""What of the model's output is explained."""
OUTPUTS: tuple[str, ...] = get_args(Output)

Refine = Literal["auto", "always", "never"]
"""Whether a profile is estimated a second time."""
REFINE: tuple[str, ...] = get_args(Refine)

Select = Literal["correct", "wrong", "all"]
"""Which images are used, by what the model sees in them."""

Targets = Literal["label", "predicted"]
"""The class whose output is explained."""

Average = Literal["mean", "normalised_mean", "normalised_median"]
"""How images make a profile."""
AVERAGES: tuple[str, ...] = get_args(Average)
DEFAULT_AVERAGE: Average = "normalised_mean"


def check_positive(value: int, name: str) -> None:
    """Raise ValueError unless `value` is a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")


def check_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")

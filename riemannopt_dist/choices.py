"""What is chosen by name, and checks of plain values: with these a configuration is checked without torch."""

from typing import Literal, get_args

HF = "hf:"
"""What the name of a model begins with that lies in a folder, as Hugging Face's transformers writes it."""

Output = Literal["probability", "logit"]
"""What of the model's output is explained."""
OUTPUTS: tuple[str, ...] = get_args(Output)

MapPrecision = Literal["fp32", "tf32"]
"""What a model's products are computed in for maps: float32, or TF32 where a device has it."""
Precision = Literal["fp32", "tf32", "fp16", "bf16"]
"""The same for scores, which take forward passes alone."""
PRECISIONS: tuple[str, ...] = get_args(Precision)

Refine = Literal["auto", "always", "never"]
"""Whether a profile is estimated a second time."""
REFINE: tuple[str, ...] = get_args(Refine)

Select = Literal["correct", "wrong", "all"]
"""Which images are used, by what the model sees in them."""

TargetRule = Literal["label", "predicted", "runner_up"]
"""The class whose output is explained, told for each image by its label or by what the model sees in it."""
TARGET_RULES: tuple[str, ...] = get_args(TargetRule)
Targets = int | str | tuple[int | str, ...]
"""Such a rule, or one class for all images: its index, or the name that a configuration has for it.

Of several classes each image's likeliest is explained.
"""

CELL = ("path", "estimator", "placement", "samples", "tolerance")
"""What a cell of the grid is told by, and the columns of tables that tell it."""

Pixels = tuple[int, int]
"""Height and width."""
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
"""How the pixels of a scaled image come from those of the image, as Pillow calls it."""
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
Framing = tuple[Pixels, Pixels, int, Interpolation]
"""How an image becomes a model's input: what is cut, what the image covers before, its channels, and how it
is scaled."""

Average = Literal["mean", "normalised_mean", "normalised_median"]
"""How images make a profile."""
AVERAGES: tuple[str, ...] = get_args(Average)
DEFAULT_AVERAGE: Average = "normalised_mean"


def check_positive(value: int, name: str) -> None:
    """Raise ValueError unless `value` is a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")


def height_and_width(size: object) -> Pixels:
    """A size in pixels, the side of a square or (height, width), as the latter. Raises ValueError."""
    sides = [size, size] if isinstance(size, int) else size
    if isinstance(sides, list | tuple) and len(sides) == 2:
        height, width = sides
        if all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
            return height, width
    raise ValueError(f"expected pixels, a side or [height, width], whole numbers from 1 on, got {size!r}")


def check_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")

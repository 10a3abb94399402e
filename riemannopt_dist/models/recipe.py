"""What a model's name and settings ask for, before anything is built: sizes, channels, classes, weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from torch import nn

from riemannopt_dist.choices import INTERPOLATIONS, Interpolation, Pixels, check_choice, height_and_width
from riemannopt_dist.models.checkpoint import State


class ModelSettings(TypedDict, total=False):
    """What a network has otherwise than the published one; None stands for what that has."""

    num_classes: int | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    input_size: int | Sequence[int] | None
    resize_size: int | Sequence[int] | None
    interpolation: Interpolation | None
    channels: int | None
    output_key: str | int | None


@dataclass(frozen=True)
class Form:
    """What a network is built for: the height and width of its images, their channels, and its classes.

    None are as many classes as its name tells.
    """

    input_size: Pixels
    channels: int
    classes: int | None


@dataclass(frozen=True)
class Recipe:
    """What a name asks for; nothing is built or read before it is called.

    `build` makes the architecture, `fetch` the pretrained weights, and `adapt` the network's names of those
    in a weights file. `mean` and `std` have a value for each of the `channels`; None are 0 and 1. Its sizes
    are those that its images are prepared with, unless they `are_sizes_assumed`. Where not
    `is_middle`, images are squeezed or padded instead of cut.
    """

    build: Callable[[Form], nn.Module]
    fetch: Callable[[], State]
    adapt: Callable[[nn.Module, State], State]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    input_size: Pixels
    resize_size: Pixels
    classes: int | None
    channels: int = 3
    output_key: str | int | None = None
    interpolation: Interpolation = "bilinear"
    are_sizes_assumed: bool = False
    is_middle: bool = True

    def resize_for(self, input_size: Pixels) -> Pixels:
        """What images cover before `input_size` is cut of them, where only that is told.

        The share of a picture that is cut is the recipe's. Nothing is cut for another shape than a square,
        since such a network is trained on pictures of its shape, nor where the recipe's sizes are assumed.
        """
        height, width = input_size
        if height != width or self.are_sizes_assumed:
            return input_size
        (rows, columns), (own_height, own_width) = self.resize_size, self.input_size
        return round(height * rows / own_height), round(width * columns / own_width)

    def form(self, classes: int | None) -> Form:
        """What the network is built for, with so many classes."""
        return Form(self.input_size, self.channels, classes)


def adjusted(recipe: Recipe, name: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with what is told otherwise, but for the classes. Raises ValueError for what cannot be."""
    told = {key: value for key, value in settings.items() if value is not None and key != "num_classes"}
    if not recipe.is_middle and "resize_size" not in told:
        raise ValueError(
            f"model: {name!r}: its images were squeezed or padded to a square, which is not done here: give "
            "resize_size, which an image then covers in its own shape, before the middle of it is cut"
        )
    if "input_size" in told:
        size = pixels_of(name, "input_size", told["input_size"])
        told = {"resize_size": recipe.resize_for(size)} | told
    changed = replace(recipe, **told)
    check_choice(changed.interpolation, INTERPOLATIONS, f"model: {name!r}: interpolation")
    input_size = pixels_of(name, "input_size", changed.input_size)
    resize_size = pixels_of(name, "resize_size", changed.resize_size, input_size)
    channels = _checked_channels(changed.channels)
    mean = (0.0,) * channels if changed.mean is None else tuple(changed.mean)
    std = (1.0,) * channels if changed.std is None else tuple(changed.std)
    _check_normalisation(channels, mean, std)
    return replace(changed, mean=mean, std=std, input_size=input_size, resize_size=resize_size)


def pixels_of(name: str, key: str, size: object, least: Pixels = (1, 1)) -> Pixels:
    """A size as height and width. Raises ValueError for what is none, or has a side shorter than `least`."""
    try:
        height, width = height_and_width(size)
    except ValueError as error:
        raise ValueError(f"model: {name!r}: its {key}: {error}") from None
    if height < least[0] or width < least[1]:
        shown = least[0] if least[0] == least[1] else list(least)
        raise ValueError(f"model: {name!r}: its {key}: expected at least {shown}, got {size!r}")
    return height, width


def _checked_channels(channels: object) -> int:
    """The number of channels. Raises ValueError for another than 1 or 3."""
    if isinstance(channels, bool) or not isinstance(channels, int) or channels not in (1, 3):
        raise ValueError(f"model: channels: expected 1 (grey) or 3 (RGB), got {channels!r}")
    return channels


def _check_normalisation(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raise ValueError for a mean and a deviation that cannot be those of so many channels in [0, 1]."""
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        mend = "" if channels == 3 else ": for grey images give mean: [m] and std: [s] as in training"
        raise ValueError(
            f"model: expected mean and std of {'three channels' if channels == 3 else 'one channel'}, std "
            f"above 0, got {mean} and {std}{mend}"
        )
    if max(*mean, *std) > 1:
        raise ValueError(
            f"model: expected mean and std of pixels in [0, 1], got {mean} and {std}: divide those of pixels "
            "in [0, 255] by 255"
        )

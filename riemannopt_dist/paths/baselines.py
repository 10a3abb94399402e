"""Where straight lines and guided walks begin: a colour, the image made dull, noise, or pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from riemannopt_dist.entries import like
from riemannopt_dist.paths.base import SIGMA_MAX
from riemannopt_dist.registry import Registry, is_address

if TYPE_CHECKING:
    from torch import Tensor

BLACK_VALUES, WHITE_VALUES = (0.0,), (1.0,)


class Baseline(Protocol):
    """One picture for each image, or as many as there are draws: an entry of BASELINES.

    A class that derives from it has a single picture for each image, which is read from nowhere, unless it
    says otherwise.
    """

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The baseline number `draw` of each image (B, C, H, W), of its shape, type and device."""
        ...

    def count(self, draws: int | None) -> int:
        """How many there are, of which `draws` are asked for. Raises ValueError for more than there are."""
        if draws not in (None, 1):
            raise ValueError(
                f"draws: {self.name} is the same in every draw: expected the baseline noise or a folder of "
                f"images, got {draws} draws"
            )
        return 1

    def several(self, draws: int | None) -> bool:
        """Whether there is, or may be, more than one, without reading anything. Errors are `count`'s."""
        return self.count(draws) > 1

    def digest(self) -> str | None:
        """That of the files that it is read from, by which others are noticed; None of one without files."""
        return None


@dataclass(frozen=True)
class Colour(Baseline):
    """A plain colour in [0, 1]: one value, or one for each channel."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(0 <= value <= 1 for value in self.values):
            raise ValueError(f"baseline: expected numbers in [0, 1], got {self.values!r}")

    @property
    def name(self) -> str:
        """Its name where it has one, else its values."""
        named: dict[tuple[float, ...], str] = {BLACK_VALUES: "black", WHITE_VALUES: "white"}
        return named.get(self.values) or " ".join(f"{value:g}" for value in self.values)

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The colour. Raises ValueError for another number of channels than the images have."""
        if len(self.values) not in (1, images.shape[1]):
            raise ValueError(f"baseline: expected one value or {images.shape[1]}, got {self.values}")
        return images.new_tensor(self.values)[:, None, None].expand_as(images)


@dataclass(frozen=True)
class MeanColour(Baseline):
    """Each image's own mean colour."""

    name = "mean"

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The mean of every channel."""
        return images.mean((2, 3), keepdim=True).expand_as(images)


@dataclass(frozen=True)
class Blurred(Baseline):
    """Each image blurred as at the start of Blur IG's path, with σ = `SIGMA_MAX` pixels."""

    name = "blurred"

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The blurred images."""
        import torch

        from riemannopt_dist.paths.blur import BlurPath

        rows = torch.arange(len(images), device=images.device)
        start = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        return BlurPath(images, SIGMA_MAX).at(rows, start)[0]


@dataclass(frozen=True)
class Noise(Baseline):
    """Uniform noise in [0, 1], another picture in each draw and the same for every image."""

    name = "noise"

    def count(self, draws: int | None) -> int:
        """As many as asked for."""
        return draws or 1

    def of(self, images: Tensor, draw: int) -> Tensor:
        """The noise that belongs to the draw's number, drawn on the CPU: the same on every device."""
        import torch

        generator = torch.Generator().manual_seed(draw)
        noise = torch.rand(images.shape[1:], generator=generator, dtype=torch.float64)
        return noise.to(images).expand_as(images)


BLACK = Colour(BLACK_VALUES)

BASELINES: Registry[Baseline] = Registry(
    "baseline",
    "riemannopt_dist.baselines",
    {
        "black": BLACK,
        "white": Colour(WHITE_VALUES),
        "mean": MeanColour(),
        "blurred": Blurred(),
        "noise": Noise(),
    },
    like(Baseline),
)
"""What is chosen by name. A new one is a class here, and an entry."""


def baseline_of(value: Baseline | str | float | Sequence[float]) -> Baseline:
    """What a name, a grey, a value for each channel or the address of pictures stands for.

    Raises ValueError for anything else.
    """
    if isinstance(value, str):
        return BASELINES[value] if value in BASELINES or is_address(value) else _pictures(value)
    if isinstance(value, int | float):
        return Colour((float(value),))
    if isinstance(value, Sequence):
        try:
            return Colour(tuple(map(float, value)))
        except (TypeError, ValueError):
            raise ValueError(f"baseline: expected numbers in [0, 1], got {value!r}") from None
    if fault := like(Baseline)(value):
        raise ValueError(f"baseline: {fault}" if hasattr(value, "of") else _no_baseline(value))
    return value


def _pictures(source: str) -> Baseline:
    """Raises ValueError for what can be neither the name of a baseline nor where pictures are."""
    from riemannopt_dist.paths.pictures import Pictures  # which is a baseline itself

    if not any(mark in source for mark in "/.:"):
        raise ValueError(_no_baseline(source))
    return Pictures(source)


def _no_baseline(value: object) -> str:
    return (
        f"baseline: expected {', '.join(BASELINES)}, numbers in [0, 1], an image file or a folder of images, "
        f"or package.module:name, got {value!r}"
    )

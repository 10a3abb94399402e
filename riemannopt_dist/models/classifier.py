"""A frozen classifier behind its own normalisation: [0, 1] RGB or grey to logits."""

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from riemannopt_dist.choices import Framing, Interpolation, height_and_width
from riemannopt_dist.models.logits import part_of


class Classifier(nn.Module):
    """A frozen network in eval mode behind its normalisation: [0, 1] (B, C, H, W) → logits (B, classes).

    Images are RGB, or grey with a `mean` and `std` of one value: `channels` C is 3 or 1. An image is prepared
    by scaling it, in its own shape, so that it just covers `resize_size`, and cutting the central
    `input_size` of it; both are (height, width) in pixels, and told by one number for a square.
    `interpolation` is how it is scaled. `classes` is the number of logits, None where only the network knows
    it. `output_key` says which part of an output that is a mapping or tuple the logits are. Runs in any
    floating-point type:
    `classifier.to(torch.bfloat16)` converts the normalisation too.
    """

    mean: Tensor
    std: Tensor
    sizes: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        input_size: int | Sequence[int],
        resize_size: int | Sequence[int],
        classes: int | None,
        output_key: str | int | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.channels = len(mean)
        self.input_size = height_and_width(input_size)
        self.resize_size = height_and_width(resize_size)
        self.classes = classes
        self.output_key = output_key
        self.interpolation = interpolation
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        # What depends on the settings travels with the weights (`assemble_model` is not told it). Squares are
        # told by their side: digests of weights are over this, too.
        sizes = (self.input_size, self.resize_size)
        square = all(height == width for height, width in sizes)
        self.register_buffer("sizes", torch.tensor([side for side, _ in sizes] if square else sizes))
        if output_key is not None:
            self.register_buffer("output_part", _letters(json.dumps(output_key)))
        if interpolation != "bilinear":
            self.register_buffer("interpolated", _letters(interpolation))
        self.eval().requires_grad_(False)

    @property
    def framing(self) -> Framing:
        """How images are prepared for it."""
        return self.input_size, self.resize_size, self.channels, self.interpolation

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """That of an image that it takes, (C, H, W)."""
        return (self.channels, *self.input_size)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        output = self.network((images - self.mean) / self.std)
        logits: Tensor = output if self.output_key is None else part_of(output, self.output_key)
        return logits


def _letters(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)

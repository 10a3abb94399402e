"""A frozen classifier behind its own normalisation: [0, 1] RGB to logits."""

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A frozen network in eval mode behind its normalisation: [0, 1] RGB (B, 3, H, W) → logits (B, classes).

    An image is prepared for it by bringing its short side to `resize_size` pixels and cutting the central
    square of `input_size`. `classes` is the number of logits, None where only the network knows it. Runs in
    any floating-point type: `classifier.to(torch.bfloat16)` converts the normalisation too.
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
        input_size: int,
        resize_size: int,
        classes: int | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.input_size = input_size
        self.resize_size = resize_size
        self.classes = classes
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        # The sizes depend on the weights, so they travel with them (`assemble_model` is not told which).
        self.register_buffer("sizes", torch.tensor([input_size, resize_size]))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W) in [0, 1]."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

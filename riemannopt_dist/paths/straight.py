"""The straight line from a baseline to the image, the path of Integrated Gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.precision import sum_type


@dataclass(frozen=True)
class StraightPath:
    """The straight line γ(α) = x′ + α (x − x′) of Integrated Gradients (Sundararajan et al., 2017).

    Raises ValueError unless images and baselines are finite floating-point batches (B, C, H, W) of the same
    shape, type and device.
    """

    images: Tensor
    baselines: Tensor

    def __post_init__(self) -> None:
        check_images(self.images)
        check_images(self.baselines, "baselines")
        if self.baselines.shape != self.images.shape:
            raise ValueError(
                f"baselines: expected the images' shape {tuple(self.images.shape)}, "
                f"got {tuple(self.baselines.shape)}"
            )
        if (self.baselines.dtype, self.baselines.device) != (self.images.dtype, self.images.device):
            raise ValueError(
                f"baselines: expected {self.images.dtype} on {self.images.device}, as the images, "
                f"got {self.baselines.dtype} on {self.baselines.device}"
            )
        # Maps are no part of the graph that the images may belong to.
        object.__setattr__(self, "images", self.images.detach())
        object.__setattr__(self, "baselines", self.baselines.detach())

    @classmethod
    def from_black(cls, images: Tensor) -> "StraightPath":
        """The path from black, which is zero in the pixel space [0, 1]."""
        check_images(images)
        return cls(images, torch.zeros_like(images))

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """γ(α) and the constant velocity x − x′ of each requested image."""
        return between(self.baselines[rows], self.images[rows], alphas)


def between(baselines: Tensor, images: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """γ(α) and the velocity of N lines from baselines to images, all (N, C, H, W), at positions (N,)."""
    wide = sum_type(images.dtype)
    velocity = images.to(wide) - baselines.to(wide)
    places = baselines.to(wide) + alphas.to(velocity)[:, None, None, None] * velocity
    return places.to(images.dtype), velocity

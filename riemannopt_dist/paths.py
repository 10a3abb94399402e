"""Paths γ(α) from a baseline (α = 0) to the image (α = 1), and their velocity dγ/dα.

A path is asked for any mixture of images and positions at once: `rows` says which image each
position belongs to, so that one micro-batch can hold one image at many α or many images at one α.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.precision import sum_type


class Path(Protocol):
    """A fixed path for each of B images."""

    @property
    def images(self) -> Tensor:
        """The path's ends γ(1), (B, C, H, W)."""
        ...

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """γ(α) and dγ/dα, each (N, C, H, W), of images `rows` (N,) at positions `alphas` (N,) in float64.

        γ is in the images' type, as a model takes it, and dγ/dα in float32 or wider.
        """
        ...


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
        wide = sum_type(self.images.dtype)
        baselines = self.baselines[rows].to(wide)
        velocity = self.images[rows].to(wide) - baselines
        places = baselines + alphas.to(velocity)[:, None, None, None] * velocity
        return places.to(self.images.dtype), velocity

"""Maps that know nothing of the model: what an attribution has to beat on a score to mean something."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from riemannopt_dist.metrics.seeds import content_seeds
from riemannopt_dist.precision import ieee_float32, sum_type

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601's weights of red, green and blue in brightness."""


def random_map(images: Tensor) -> Tensor:
    """Gaussian noise (B, C, H, W), seeded by each image's content: the same in any batch.

    Float32 or wider.
    """
    maps = [
        torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed))
        for seed in content_seeds(images)
    ]
    return torch.stack(maps).to(images.device, sum_type(images.dtype))


@ieee_float32()
def edge_map(images: Tensor) -> Tensor:
    """The Sobel gradient's magnitude of the brightness, an equal share of it in each channel: (B, C, H, W).

    Float32 or wider.
    """
    images = images.to(sum_type(images.dtype))
    luma = torch.tensor(LUMA).to(images)[:, None, None]
    brightness = (images * luma).sum(1, keepdim=True)  # of grey images itself: the weights' sum is 1
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(images)
    kernels = torch.stack([across, across.T])[:, None]
    slopes = nn.functional.conv2d(nn.functional.pad(brightness, (1, 1, 1, 1), mode="replicate"), kernels)
    return (slopes.square().sum(1, keepdim=True).sqrt() / images.shape[1]).expand_as(images).contiguous()


CONTROLS: Mapping[str, Callable[[Tensor], Tensor]] = {"random": random_map, "edges": edge_map}

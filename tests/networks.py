"""Networks, and what they and paths are asked for, noted."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from riemannopt_dist.paths.base import Path


class Quadratic(nn.Module):
    """Logits (Σ_i a_i x_i² / 2, 0): gradients that are straight lines along any straight path."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        factors = torch.linspace(-1, 2, flat.shape[1], dtype=images.dtype)
        score = (factors * flat**2 / 2).sum(1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """The number of images of each call of the model."""
    calls: list[int] = []
    handle = model.register_forward_hook(lambda _, arguments, __: calls.append(len(arguments[0])))
    try:
        yield calls
    finally:
        handle.remove()


def l1_distance(maps: Tensor, reference: Tensor) -> float:
    """The greatest ‖a − b‖₁ / ‖b‖₁ over images."""
    return float(((maps - reference).flatten(1).abs().sum(1) / reference.flatten(1).abs().sum(1)).max())


class OneByOne(nn.Module):
    """A network called with one image at a time, so that no image's result depends on its batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        # Copied: a product may be rounded by where in memory it begins.
        return torch.cat([self.network(image[None].clone()) for image in images])


class Recorded:
    """A path that notes where each image is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.images = path.images
        self.alphas: dict[int, list[float]] = {}

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        for row, alpha in zip(rows.tolist(), alphas.tolist(), strict=True):
            self.alphas.setdefault(row, []).append(alpha)
        return self._path.at(rows, alphas)


def network(*hidden: nn.Module) -> nn.Module:
    """Layers between (B, 3, 6, 6) and three logits, float64 and seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), *hidden, nn.Flatten(), nn.Linear(64, 3)).double()
        for parameter in layers.parameters():
            nn.init.normal_(parameter, std=0.3)
    return layers.eval().requires_grad_(False)


ONE_LAYER = network(nn.ReLU())
TWO_LAYERS = network(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

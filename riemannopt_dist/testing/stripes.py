"""Pictures of stripes, and a small network that is trained to tell them apart."""

from functools import cache

import torch
from torch import Tensor, nn


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures (count, 1, 8, 8) of stripes, and their classes: 0 horizontal, 1 vertical."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phases = 6.28 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    wave = (1 + torch.sin(1.5 * torch.arange(8, dtype=torch.float64) + phases)) / 2
    horizontal = wave[:, :, None].expand(-1, -1, 8)
    pictures = torch.where(labels[:, None, None] == 0, horizontal, horizontal.mT)
    noise = torch.rand(count, 8, 8, generator=generator, dtype=torch.float64)
    return (pictures + noise)[:, None] / 2, labels


@cache
def trained_relu_net() -> nn.Module:
    """A network of ReLU and max-pooling layers that tells the stripes apart, float64."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 16), nn.ReLU())
        network = nn.Sequential(*layers, nn.Linear(16, 2)).double()
    pictures, labels = stripes(256, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pictures), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval().requires_grad_(False)

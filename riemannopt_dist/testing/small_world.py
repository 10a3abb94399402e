"""A small world for tests of whole runs: a tiny classifier, a folder of small pictures, a configuration."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

if TYPE_CHECKING:
    from riemannopt_dist.run.config.config import Config

SIDE = 12
PICTURES = 14
FIT = 3


def tiny_classifier() -> nn.Module:
    """A smooth network with seeded weights for pictures of SIDE × SIDE pixels, 6 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(600, 6))
    network.input_size = network.resize_size = SIDE  # type: ignore[assignment]
    return network


def make_pictures(folder: Path, count: int = PICTURES) -> Path:
    """`count` PNGs of random pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for n in range(count):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"p{n:02}.png")
    return folder


def small_fields(images: Path, output: Path, /, **changes: Any) -> dict[str, Any]:
    """The fields of a configuration: two schedules at two counts, shards of three images, one worker."""
    return {
        "images": str(images),
        "output": str(output),
        "model": {"name": "riemannopt_dist.testing.small_world:tiny_classifier"},
        "grid": [{"placements": ["linear", "exact"], "estimators": ["left", "trapezoid"], "samples": [4, 8]}],
        "fit": {"images": FIT, "samples": 16},
        "shard_size": 3,
        "batch_size": 2,
        "internal_batch_size": 8,
        "scaling": {"max_workers": 1},
        **changes,
    }


def small_config(images: Path, output: Path, /, **changes: Any) -> "Config":
    """`small_fields` as a Config."""
    from riemannopt_dist.run.config.loading import make_config  # late: workers do without it

    return make_config(small_fields(images, output, **changes), "test")


class _Slow(nn.Module):
    """The tiny classifier with a pause in every call, so that a test can interfere half way."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_classifier()
        self.input_size = self.resize_size = SIDE

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        logits: torch.Tensor = self.network(images)
        return logits


def slow_classifier() -> nn.Module:
    """`tiny_classifier`, slowly."""
    return _Slow()


class _Cramped(nn.Module):
    """The tiny classifier on a device that has room for ROOM images at once."""

    ROOM = 3

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_classifier()
        self.input_size = self.resize_size = SIDE

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.ROOM:
            raise torch.OutOfMemoryError(f"no room for {len(images)} images")
        logits: torch.Tensor = self.network(images)
        return logits


def cramped_classifier() -> nn.Module:
    """`tiny_classifier`, out of memory with more than 3 images."""
    return _Cramped()


class _Counted(_Slow):
    """The slow classifier, which notes every image it is shown in the file that COUNTED_IMAGES names."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = super().forward(images)
        with Path(os.environ["COUNTED_IMAGES"]).open("ab", buffering=0) as notes:
            notes.write(b"." * len(images))
        return logits


def counted_classifier() -> nn.Module:
    """`slow_classifier`, with a record of the work done."""
    return _Counted()

"""A classifier whose faults come and go while its weights stay: those that the file named by FAULT lists."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.unsound import Net

FAULT, DRIVER = "FAULT", "FAULT_DRIVER"


class Faulty(Net):
    """Works in the driver, as a network does that fails on the workers' devices alone.

    pictures   raises where an image has values of 8 bits, as pictures have and noise has not
    colours    gives NaN where gradients are taken of an image of one colour that is not black
    """

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        faults = Path(os.environ[FAULT]).read_text().split() if os.getpid() != int(os.environ[DRIVER]) else []
        if "pictures" in faults and torch.allclose(images * 255, (images * 255).round(), atol=1e-4):
            raise RuntimeError("the device is not what it was")
        if "colours" in faults and torch.is_grad_enabled():
            spread = images.detach().flatten(1).amax(1) - images.detach().flatten(1).amin(1)
            plain = (spread < 1e-6) & (images.detach().flatten(1).amax(1) > 0)
            logits = logits + torch.where(plain, torch.nan, 0.0)[:, None]
        return logits


def classifier() -> nn.Module:
    """The classifier, with the same weights whatever its faults."""
    return Faulty()

"""What the host knows, on the device that computes with it."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of the array's numbers on a device, without waiting for what that has yet to do.

    From memory that is not pinned a copy to a GPU would wait.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

"""What the host knows, on the device that computes with it, and what the device knows, on the host."""

from collections.abc import Callable
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


def on_host(tensor: Tensor) -> Callable[[], NDArray[Any]]:
    """What gives a tensor's numbers on the host.

    Their copy is begun here, and waited for where they are taken: in a thread that has nothing else to do, so
    that the one that feeds the device does not wait.
    """
    if not tensor.is_cuda:
        return tensor.numpy
    copy = tensor.to("cpu", non_blocking=True)  # which pins its memory
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def numbers() -> NDArray[Any]:
        copied.synchronize()
        return copy.numpy()

    return numbers

"""How many gradients a device takes at once."""

import math

import torch

from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import Objective

CPU_BATCH = 16
"""On a CPU: more do not make a gradient cheaper."""
LARGEST = 256
"""On a GPU: there more do not either."""
SHARE = 0.4
"""Of the free memory, what gradients may take: the Rescale rule's keep twice as much, and maps need some."""
PROBES = (1, 5)


def measured_batch_size(model: Classifier, device: torch.device, size: int | str, gpus: float = 1.0) -> int:
    """`size`, or for "auto" the power of two, at most LARGEST, that fits in a SHARE of a GPU's free memory.

    Of a GPU that others share it is a SHARE of the part `gpus`: each of them finds the same memory free.
    Measured: the peak memory of a few gradients, which grows by the same amount with each image.
    """
    if isinstance(size, int):
        return size
    if device.type != "cuda":
        return CPU_BATCH
    few, more = (_peak(model, device, count) for count in PROBES)
    each = max(1, (more - few) // (PROBES[1] - PROBES[0]))
    free, _ = torch.cuda.mem_get_info(device)
    room = SHARE * min(1.0, gpus) * free / each
    torch.cuda.empty_cache()
    return int(min(LARGEST, 2 ** math.floor(math.log2(max(1.0, room)))))


def _peak(model: Classifier, device: torch.device, count: int) -> int:
    """Bytes that `count` gradients at once take, beyond what is there before."""
    shape = (count, *model.input_shape)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    targets = torch.zeros(count, dtype=torch.int64, device=device)
    Objective(model, targets, internal_batch_size=count).gradients(torch.zeros(shape, device=device))
    return int(torch.cuda.max_memory_allocated(device) - before)

"""What a worker's host must have: the device that the worker was promised, and the run's own output."""

import platform

import torch

from riemannopt_dist.run.directory import RUN
from riemannopt_dist.run.origin import Origin
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import StorageError
from riemannopt_dist.storage.redaction import one_line


def promised_device(gpus: float) -> torch.device:
    """The device of a worker that takes so many GPUs, or a share of one; the CPU for 0.

    Raises RuntimeError where there is to be a GPU and torch cannot compute on it.
    """
    if not gpus:
        return torch.device("cpu")
    device = torch.device("cuda")
    try:
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        versions = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
        raise RuntimeError(
            f"{platform.node()}: torch cannot use the GPU that this worker was promised ({versions}): mend "
            "the driver or install the torch that fits it, or take the node out of the cluster; "
            f"--gpus-per-worker 0 computes on CPUs. It says: {one_line(error)}"
        ) from None
    return device


def check_output(storage: Storage, origin: Origin) -> None:
    """Raise ValueError unless the output, seen from here, is that of the driver, which began the run.

    A storage that does not answer is none of it: the calls that meet it are made again.
    """
    try:
        run = storage.read_json(RUN)
    except FileNotFoundError:
        run = None
    except StorageError:
        return
    if not isinstance(run, dict) or run.get("id") != origin.run:
        raise ValueError(
            f"output: {storage.root} on {platform.node()} is not the driver's: expected a folder that all "
            "nodes mount at the same path, or a bucket"
        )

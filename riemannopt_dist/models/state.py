"""A network's parameters and persistent buffers by name: out of it, into another, and told from others."""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from riemannopt_dist.models.checkpoint import State
from riemannopt_dist.models.errors import first_of

_OWN_NETWORK = "; for a network with other layers, in its head say, give a function package.module:factory"


def model_state(model: nn.Module) -> dict[str, np.ndarray]:
    """The model's parameters and persistent buffers as NumPy arrays: views where the model is on the CPU.

    Take it before a conversion to bfloat16, a type that NumPy lacks (TypeError).
    """
    return {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}


def weights_digest(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hexadecimal, of the names, types, shapes and bytes in `state`, in whatever order it is."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.asarray(state[name])
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def tensors_over(state: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Tensors over the arrays' own memory."""
    with warnings.catch_warnings():
        # A frozen model in eval mode writes to none of its tensors.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {key: torch.from_numpy(np.asarray(array)) for key, array in state.items()}


def fill(network: nn.Module, state: State, origin: str, owner: str, *, assign: bool) -> None:
    """Load `state`, every tensor of it, or raise ValueError saying where it is not the network's."""
    own = network.state_dict()
    for key in [name for name in own if name in state]:  # in the network's order, the same every time
        if own[key].shape != state[key].shape:
            shapes = f"{tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            mend = _mend(key, state[key], own[key])
            raise ValueError(f"{origin} are not {owner}: {key!r} has shape {shapes}{mend}")
    # Some layers ask for their version (MNASNet). All are this network's if the arrays are. Of a file the
    # network's own alone is sure: batch norm of an old one has another.
    versions = getattr(own, "_metadata", {})
    state = OrderedDict(state)
    vars(state)["_metadata"] = versions if assign else {"": versions.get("", {})}
    # Not strict: old files lack the batch counters of batch norm, which PyTorch then supplies.
    missing, unexpected = network.load_state_dict(state, strict=False, assign=assign)
    if missing or unexpected:
        differing = (("missing", missing), ("unexpected", unexpected))
        differences = ", ".join(f"{kind} {first_of(keys)}" for kind, keys in differing if keys)
        mend = _OWN_NETWORK if missing and unexpected else ""
        raise ValueError(f"{origin} are not {owner}: {differences}{mend}")


def _mend(key: str, tensor: Tensor, own: Tensor) -> str:
    """What to do about a tensor of another shape: images of other channels or another size, other classes."""
    if tensor.ndim == 4 and {tensor.shape[1], own.shape[1]} == {1, 3} and tensor.shape[0] == own.shape[0]:
        channels = tensor.shape[1]
        return f"; for a network of images of this kind give channels: {channels}, and their mean and std"
    if "pos" in key and tensor.ndim == own.ndim:
        return "; for a network of images of another size give input_size"
    if tensor.ndim in (1, 2) and tensor.shape[1:] == own.shape[1:]:
        return f"; for a network of {len(tensor)} classes give num_classes: {len(tensor)}"
    return ""


def meta_tensors(model: nn.Module) -> list[str]:
    """Names of the tensors without values: parameters, buffers of any kind, and plain attributes."""
    held = [*model.named_parameters(), *model.named_buffers()]
    for prefix, module in model.named_modules():
        held += [
            (f"{prefix}.{key}", value) for key, value in vars(module).items() if isinstance(value, Tensor)
        ]
    return [key for key, tensor in held if tensor.is_meta]

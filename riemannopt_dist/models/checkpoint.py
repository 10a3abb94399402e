"""The weights in a local file: a plain state dict, or what a training framework wraps around one.

No pickle is ever run: files are read as plain tensors.
"""

import logging
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from riemannopt_dist.storage.redaction import one_line

logger = logging.getLogger(__name__)

State = Mapping[str, Tensor]

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "ema_model")
"""Where averaged weights lie, which are those that training frameworks evaluate."""
PLAIN = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Where the others do: Lightning, timm and many a training script."""
WRAPPERS = ("module", "_orig_mod", "model", "network", "net")
"""What frameworks call the network that they hold, in the names of its tensors."""


def read_checkpoint(path: Path, names: Collection[str]) -> State:
    """The tensors of a local file, on the CPU, under the names of a network.

    A dictionary of such tensors may lie under a key of the file's (`AVERAGED` before `PLAIN`), and its names
    may have more before them: DistributedDataParallel's `module.`, Lightning's `model.`. Of two copies of the
    network the averaged one is taken, else the one under such a name (`WRAPPERS`). What else a training
    framework keeps beside the network is left out, and logged. Raises ValueError for a file that cannot be
    read, holds no tensors by name, or two copies that differ and of which neither comes first.
    """
    content = _content(path)
    key, state = _tensors(content, path)
    prefix = _prefix(state, names, path)
    chosen = _behind(prefix, state)
    others = len(state) - len(chosen)
    if key or prefix or others:
        where = f" under {key!r}" if key else ""
        without = f", without {prefix!r} before their names" if prefix else ""
        beside = f"; {others} others are left out" if others else ""
        logger.info("weights: %s: %d tensors%s%s%s", path, len(chosen), where, without, beside)
    return chosen


def _content(path: Path) -> Mapping[object, object]:
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights: {path}: not a plain state dict (code in a file is never run): save the tensors alone, "
            "torch.save(model.state_dict(), path)"
        ) from error
    # A damaged archive can raise nearly anything: OSError, RuntimeError, EOFError, KeyError, …
    except Exception as error:
        raise ValueError(
            f"weights: {path}: cannot be read ({type(error).__name__}: {one_line(error)})"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"weights: {path}: expected a state dict, found {type(content).__name__}")
    return content


def _tensors(content: Mapping[object, object], path: Path) -> tuple[str, State]:
    """The tensors by name, and the key of the file under which they lie, "" if under none."""
    inside = {key: value for key in (*AVERAGED, *PLAIN) if isinstance(value := content.get(key), Mapping)}
    faults: list[str] = []
    for key, value in ({key: value for key, value in inside.items() if value} or {"": content}).items():
        if (fault := _fault(value)) is None:
            for other in faults:
                logger.warning("weights: %s; what is under %r is taken", other, key)
            return key, value
        where = f"{path}: {key}" if key else f"{path}"
        faults.append(f"{where}: expected names of tensors, found {fault}")
    raise ValueError(f"weights: {faults[0]}")


def _fault(content: Mapping[object, object]) -> str | None:
    """What there is beside tensors by name, None if nothing."""
    for key, value in content.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            return f"{key!r} of type {type(value).__name__}"
    return None


def _prefix(state: State, names: Collection[str], path: Path) -> str:
    """What stands before the network's own names in the file: the text that most of them follow.

    Raises ValueError where it could be one of several that lead to different weights.
    """
    count = {
        prefix: sum(f"{prefix}{name}" in state for name in names)
        for prefix in (
            key.removesuffix(name)
            for name in list(names)[:1]
            for key in state
            if key == name or key.endswith(f".{name}")
        )
    }
    whole = sorted(prefix for prefix in count if count[prefix] == max(count.values()))
    first = min(map(_rank, whole), default=0)
    prefixes = [prefix for prefix in whole if _rank(prefix) == first]
    if any(_differ(state, names, prefixes[0], other) for other in prefixes[1:]):
        shown = " and ".join(map(repr, prefixes))
        raise ValueError(
            f"weights: {path}: holds {len(prefixes)} copies of the network, with {shown} before their names: "
            "save the tensors of one alone, without it"
        )
    return prefixes[0] if prefixes else ""


def _rank(prefix: str) -> int:
    """Which of several copies of a network comes first: averaged weights, then those of a framework."""
    parts = prefix.split(".")[:-1]
    if any(part in AVERAGED for part in parts):
        return 0
    return 1 if all(part in WRAPPERS for part in parts) else 2


def _differ(state: State, names: Collection[str], one: str, other: str) -> bool:
    """Whether the weights after two prefixes are not the same."""
    there = [name for name in names if f"{one}{name}" in state or f"{other}{name}" in state]
    pairs = ((state.get(f"{one}{name}"), state.get(f"{other}{name}")) for name in there)
    return any(a is None or b is None or not torch.equal(a, b) for a, b in pairs)


def _behind(prefix: str, state: State) -> State:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

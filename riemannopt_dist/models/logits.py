"""What a classifier must give, a row of logits for each image, and how to mend what is none."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

EXPECTED = "model: expected logits, a floating-point tensor (B, classes)"
NEAR_ONE = 1e-4
"""How far from 1 rounding may bring the sum of an image's probabilities, in float32 and wider."""
NARROW = (torch.bfloat16, torch.float16)
SOFTMAX_ROUNDINGS = 4
"""And how many ε in a narrower type: each probability is rounded by half of one, relative to itself."""
REPEATED = 1e-5
"""How far the logits of a pass that is repeated may move, relative to the largest: further than rounding."""
TWO_CLASSES = "for two classes, return torch.stack([torch.zeros_like(z), z], 1) of the one logit z, (B,)"


def check_logits(output: object, images: int) -> None:
    """Raise ValueError unless `output` is a floating-point tensor (B, classes) with a row for each image.

    The message names what it is instead, and what the model should return of it.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"{EXPECTED}, got {_kind(output)}: {_mend(output)}")
    if output.ndim != 2 or len(output) != images:
        shape = f"shape {tuple(output.shape)} for {images} image(s)"
        raise ValueError(f"{EXPECTED}, got {shape}: {_reshaping(output, images)}")
    if not output.is_floating_point():
        raise ValueError(f"{EXPECTED}, got {output.dtype}: return the logits, not what follows from them")


def check_two_classes(logits: Tensor) -> None:
    """Raise ValueError for logits (B, 1), whose softmax is 1 whatever the image."""
    if logits.shape[1] == 1:
        raise ValueError(
            f"model: expected two classes or more, got 1, whose softmax is always 1: {TWO_CLASSES}"
        )


def check_no_probabilities(logits: Tensor) -> None:
    """Raise ValueError for rows (B, classes) that are probabilities, which a softmax would flatten.

    Numbers that are all in [0, 1] and of another sum, as sigmoids are, may be logits: they are told in a
    warning.
    """
    sums = logits.sum(1, dtype=torch.float64)
    inside = ((logits > 0) & (logits < 1)).any()
    held = [(logits.to(kind).to(logits.dtype) == logits).all() for kind in NARROW]
    facts = [logits.min(), logits.max(), (sums - 1).abs().max(), inside, *held]
    # One wait for the device.
    least, most, off, some_inside, *narrow = torch.stack([one.double() for one in facts]).tolist()
    # What a narrower type holds may have been computed in it, and cast.
    types = [logits.dtype, *(kind for kind, fits in zip(NARROW, narrow, strict=True) if fits)]
    if least >= 0 and off < max(NEAR_ONE, *(SOFTMAX_ROUNDINGS * torch.finfo(kind).eps for kind in types)):
        raise ValueError(
            "model: expected logits, got probabilities (none below 0, of sum 1): leave out its softmax"
        )
    if least >= 0 and most <= 1 and some_inside:
        logger.warning(
            "model: expected logits, got values in [0, 1] alone, of which a softmax is taken: if it ends in "
            "a sigmoid, leave that out, or explain its output as it is (output logit)"
        )


def moved(logits: Tensor, expected: Tensor) -> float:
    """The largest difference of logits from those expected, relative to the largest of these."""
    return float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _kind(output: object) -> str:
    name = f"{type(output).__module__}.{type(output).__qualname__}".removeprefix("builtins.")
    if isinstance(output, Mapping):
        return f"{name} with {', '.join(map(repr, output)) or 'nothing in it'}"
    return f"{name} of {len(output)}" if isinstance(output, tuple | list) else name


def part_of(output: Any, key: str | int) -> Any:
    """The part of a model's output under a key of a mapping, a place in a tuple, or the name of an attribute.

    Raises ValueError where there is none.
    """
    try:
        if isinstance(output, Mapping):
            return output[key]
        if isinstance(output, tuple | list) and isinstance(key, int):
            return output[key]
        return getattr(output, str(key))
    except (LookupError, AttributeError):
        raise ValueError(
            f"model: output_key: no {key!r} in its output, {_kind(output)}{_key(output)}"
        ) from None


def _mend(output: Any) -> str:
    """What to return of an output that is not a tensor."""
    key = _logits_key(output)
    if key is None:
        return "return one tensor of it" if isinstance(output, Mapping) else "return the tensor alone"
    is_attribute = not isinstance(output, Mapping) and isinstance(key, str)
    return f"return out{f'.{key}' if is_attribute else f'[{key!r}]'}{_key(output)}"


def _key(output: Any) -> str:
    """The setting that takes the logits of an output, where there are some."""
    key = _logits_key(output)
    return "" if key is None else f", or give output_key: {key}"


def _logits_key(output: Any) -> str | int | None:
    """The key, the name or the place of what could be logits in an output, None where there is none."""
    if isinstance(output, Mapping):
        keys: list[str | int] = ["logits"] if "logits" in output else _matrices(output.items())
    elif hasattr(output, "logits"):
        keys = ["logits"]
    else:
        keys = _matrices(enumerate(output)) if isinstance(output, tuple | list) else []
    return keys[0] if keys else None


def _matrices(items: Iterable[tuple[Any, object]]) -> list[Any]:
    """The keys of the tensors (B, …) that could be logits."""
    return [key for key, value in items if isinstance(value, Tensor) and value.ndim == 2]


def _reshaping(output: Tensor, images: int) -> str:
    """What to do with a tensor of another shape."""
    rows, *rest = output.shape or (0,)
    if rows != images and images == 1:
        return "keep the batch's axis of a single image, too, as .squeeze() does not"
    if rows != images:
        return "keep a row for each image"
    if not rest:
        return TWO_CLASSES
    if all(size == 1 for size in rest[1:]):
        return "return out.flatten(1)"
    return "return one value for each class, such as out.mean((2, 3))"

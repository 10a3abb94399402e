"""What a classifier must give, a row of logits for each image, and how to mend what is none."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

EXPECTED = "model: expected logits, a floating-point tensor (B, classes)"
TWO_CLASSES = "for two classes, return torch.stack([torch.zeros_like(z), z], 1) of the one logit z, (B,)"


def check_logits(output: object, images: int) -> None:
    """Raise ValueError unless `output` is a floating-point tensor (B, classes) with a row for each image.

    The message names what it is instead, and what the model should return of it.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"{EXPECTED}, got {_kind(output)}: {_part(output)}")
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


def _kind(output: object) -> str:
    name = f"{type(output).__module__}.{type(output).__qualname__}".removeprefix("builtins.")
    if isinstance(output, Mapping):
        return f"{name} with {', '.join(map(repr, output)) or 'nothing in it'}"
    return f"{name} of {len(output)}" if isinstance(output, tuple | list) else name


def _part(output: Any) -> str:
    """What to return of an output that is not a tensor."""
    if isinstance(output, Mapping):
        keys = ["logits"] if "logits" in output else _matrices(output.items())
        return f"return out[{keys[0]!r}]" if keys else "return one tensor of it"
    if hasattr(output, "logits"):
        return "return out.logits"
    if isinstance(output, tuple | list) and (places := _matrices(enumerate(output))):
        return f"return out[{places[0]}]"
    return "return the tensor alone"


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

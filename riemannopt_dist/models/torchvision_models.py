"""Classification models of torchvision, with its own weights, such as `inception_v3`."""

import contextlib
import importlib
import logging
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from riemannopt_dist.choices import Pixels, height_and_width
from riemannopt_dist.models.checkpoint import State
from riemannopt_dist.models.errors import downloading
from riemannopt_dist.models.recipe import Form, Recipe
from riemannopt_dist.models.source import Source

logger = logging.getLogger(__name__)


def _zoo() -> ModuleType:
    """torchvision's models, loaded when asked for: that takes seconds, which other models do without."""
    return importlib.import_module("torchvision.models")


def torchvision_names() -> list[str]:
    """The names of torchvision's classification models."""
    names: list[str] = _zoo().list_models(module=_zoo())
    return names


# Heads that help training and give nothing in eval mode. Weights files hold them; we leave them out.
_AUXILIARY_HEADS = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}

_NORMALISED = (
    "weights: %s: taken as fine-tuned from %s's published weights, whose network normalises its input once "
    "more (transform_input=True): for one trained without that, give a function package.module:factory"
)
"""No file of weights tells it."""

_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
"""What published files have of a dense layer: norm.1.weight for norm1.weight."""


def torchvision_recipe(name: str, weights: str | None) -> Recipe | None:
    """What a classification model of torchvision is; None where it has none of this name.

    The sizes are those of its `weights`, told by their name or file name, else those of the default ones.
    """
    if name not in torchvision_names():
        return None
    members = _zoo().get_model_weights(name)
    by_file = {member.url.rsplit("/", 1)[-1]: member for member in members}
    if weights in members.__members__:
        chosen = members[weights]
    else:
        chosen = by_file.get(Path(weights).name if weights else "", members.DEFAULT)
    preprocessing = chosen.transforms()
    heads = _AUXILIARY_HEADS.get(name, ())
    is_told = weights is None or Path(weights).name in by_file or not Path(weights).expanduser().is_file()

    def build(form: Form) -> nn.Module:
        options: dict[str, Any] = {}
        if heads:  # `transform_input` is what torchvision sets for its pretrained weights.
            options = {"transform_input": form.channels == 3, "aux_logits": False, "init_weights": False}
            if form.channels == 3 and not is_told:
                logger.warning(_NORMALISED, weights, name)
        elif name.startswith("vit_"):
            options = {"image_size": _side(name, form.input_size)}
        if form.classes is not None:
            options["num_classes"] = form.classes
        return _taking(form.channels, _zoo().get_model(name, weights=None, **options))

    def fetch() -> State:
        with downloading(f"{name}'s {chosen.name}"):
            # torch.hub announces downloads on standard output, which belongs to the caller's results.
            with contextlib.redirect_stdout(sys.stderr):
                state: State = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
            return state

    return Recipe(
        build=build,
        fetch=fetch,
        adapt=lambda _, state: _renamed(state, heads),
        mean=tuple(preprocessing.mean),
        std=tuple(preprocessing.std),
        input_size=height_and_width(preprocessing.crop_size[0]),
        resize_size=height_and_width(preprocessing.resize_size[0]),
        classes=len(chosen.meta["categories"]),
        interpolation=preprocessing.interpolation.value,
    )


def _renamed(state: State, heads: tuple[str, ...]) -> State:
    """The state without `heads`, and DenseNet's of old files under its names of now, as torchvision does."""
    kept = {key: value for key, value in state.items() if not key.startswith(heads)}
    return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in kept.items()}


def _side(name: str, size: Pixels) -> int:
    """The side of a square. Raises ValueError for another size."""
    if size[0] != size[1]:
        raise ValueError(f"model: input_size: {name} takes square images, got {size[0]} × {size[1]}")
    return size[0]


def _taking(channels: int, network: nn.Module) -> nn.Module:
    """The network with a first convolution of so many channels, which training scripts put in its place."""
    name, first = next((n, layer) for n, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels != channels:
        other = nn.Conv2d(
            channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )
        owner, _, place = name.rpartition(".")
        setattr(network.get_submodule(owner), place, other)
    return network


def torchvision_weights(name: str) -> list[str]:
    """What a model's own weights are called, such as "IMAGENET1K_V1"; nothing for an unknown model."""
    return list(_zoo().get_model_weights(name).__members__) if name in torchvision_names() else []


TORCHVISION = Source(
    takes=lambda name: ":" not in name,
    recipe=torchvision_recipe,
    published=True,
    names=torchvision_names,
    weights=torchvision_weights,
)

"""Classifiers of timm, with the weights that it has for them: `timm:NAME`."""

import importlib
import importlib.util
import math
from typing import Any

from torch import nn

from riemannopt_dist.choices import height_and_width
from riemannopt_dist.models.checkpoint import State
from riemannopt_dist.models.errors import closest, downloading, first_line, required
from riemannopt_dist.models.recipe import Form, Recipe
from riemannopt_dist.models.source import Source

PREFIX = "timm:"


def timm_recipe(name: str) -> Recipe:
    """What timm:NAME asks for. Raises ValueError for what is no classifier of RGB images."""
    return architecture_recipe(name, name.removeprefix(PREFIX))


def architecture_recipe(name: str, architecture: str) -> Recipe:
    """What a model called `name` is that is one of timm's architectures. Raises the same."""
    timm = required("timm", f"model {name}")
    try:
        cfg = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    except RuntimeError as error:  # an unknown tag behind the dot
        raise ValueError(f"model: {name!r}: {first_line(error)}") from error
    if cfg is None:
        raise ValueError(f"model: unknown name {name!r}{closest(name, timm_names())}")
    if cfg.num_classes < 1 or cfg.input_size[0] != 3:
        kind = f"{cfg.num_classes} classes from {cfg.input_size[0]} channels"
        raise ValueError(f"model: expected a classifier of RGB images, {name!r} gives {kind}")

    def fetch() -> State:
        with downloading(name):
            state: State = timm.create_model(architecture, pretrained=True).state_dict()
            return state

    def build(form: Form) -> nn.Module:
        options: dict[str, Any] = {"in_chans": form.channels, "num_classes": form.classes}
        if cfg.fixed_input_size and form.input_size != size:
            options["img_size"] = form.input_size
        network: nn.Module = timm.create_model(architecture, **options)
        return network

    size = height_and_width(list(cfg.input_size[1:]))
    return Recipe(
        build=build,
        fetch=fetch,
        adapt=lambda _, state: state,
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        input_size=size,
        resize_size=(math.floor(size[0] / cfg.crop_pct), math.floor(size[1] / cfg.crop_pct)),
        classes=cfg.num_classes,
        interpolation=cfg.interpolation,
        is_middle=cfg.crop_mode == "center",
    )


def timm_names() -> list[str]:
    """The names of timm's models; none where it is not installed."""
    if not importlib.util.find_spec("timm"):
        return []
    return [f"{PREFIX}{model}" for model in importlib.import_module("timm").list_models()]


TIMM = Source(
    takes=lambda name: name.startswith(PREFIX),
    recipe=lambda name, _: timm_recipe(name),
    published=True,
    names=timm_names,
)

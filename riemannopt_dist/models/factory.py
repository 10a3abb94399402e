"""Networks that a function of the user's own returns: `package.module:factory`.

It takes no arguments. The network takes [0, 1] RGB and gives logits; its attributes `input_size`,
`resize_size` and `channels` are used where it has them. Of an `input_size` alone nothing is cut: that is what
images cover. Where neither is told the middle 224 pixels of 256 are taken.
"""

import importlib
import importlib.util
from pathlib import Path

from torch import nn
from torch.nn.parameter import is_lazy

from riemannopt_dist.models.errors import closest, told
from riemannopt_dist.models.recipe import Form, Recipe, pixels_of
from riemannopt_dist.models.source import Source

ASSUMED = (224, 256)
"""What is cut and what images cover, in pixels, for a network that tells neither."""


def factory_recipe(name: str) -> Recipe:
    """What package.module:factory asks for. Raises ValueError where there is no network, or it fails."""
    network = _made_by_factory(name)
    is_told = hasattr(network, "input_size")
    input_size = pixels_of(name, "input_size", getattr(network, "input_size", ASSUMED[0]))
    default = input_size if is_told else ASSUMED[1]

    def build(form: Form) -> nn.Module:
        if form.classes is not None:
            raise ValueError(f"num_classes: the function {name} makes the whole network: expected none")
        return network

    return Recipe(
        build=build,
        fetch=network.state_dict,
        adapt=lambda _, state: state,
        mean=None,
        std=None,
        input_size=input_size,
        resize_size=pixels_of(name, "resize_size", getattr(network, "resize_size", default), input_size),
        classes=None,
        channels=getattr(network, "channels", 3),
        are_sizes_assumed=not hasattr(network, "resize_size"),
    )


def _made_by_factory(name: str) -> nn.Module:
    """The network of the user's function, whose code may raise anything."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(f"model: {name!r}: cannot import {module_name!r}: {told(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ValueError(f"model: {name!r}: no function {attribute!r}{closest(attribute, dir(module))}")
    try:
        network = factory()
    except Exception as error:
        raise ValueError(f"model: {name!r}: the function fails without arguments: {told(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"model: {name!r}: expected a torch.nn.Module, got {type(network).__name__}")
    if lazy := [key for key, value in network.state_dict().items() if is_lazy(value)]:
        raise ValueError(
            f"model: {name!r}: {lazy[0]!r} has no shape yet: run the network once before it is returned"
        )
    return network


def _code_file(name: str) -> Path | None:
    """The file of the function's module, which is not imported. Raises ImportError, ValueError."""
    module = importlib.util.find_spec(name.partition(":")[0])
    return Path(module.origin) if module and module.origin else None


FACTORY = Source(
    takes=lambda name: ":" in name,
    recipe=lambda name, _: factory_recipe(name),
    published=False,
    code_file=_code_file,
)

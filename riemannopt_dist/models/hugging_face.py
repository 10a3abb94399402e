"""Image classifiers of Hugging Face's transformers, from a local folder as `save_pretrained` writes it.

The folder holds config.json, model.safetensors and preprocessor_config.json. Nothing is fetched, and code in
the folder is never run. Workers read the two .json, too: the folder is on a disk that all machines see.

An image keeps its shape: where the model's own processor would squeeze it to a size, the middle is cut.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from riemannopt_dist.choices import HF, Interpolation, Pixels, height_and_width
from riemannopt_dist.models.checkpoint import State
from riemannopt_dist.models.errors import required, told
from riemannopt_dist.models.recipe import Form, Recipe
from riemannopt_dist.models.source import Source

CONFIG = "config.json"
PREPROCESSING = "preprocessor_config.json"
CROP_SHARE = 224 / 256
"""Of a picture's short side that is cut, where its processor brings that to one side and cuts none."""
RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the ways to scale an image."""
LARGE = 384
"""Pixels from which on such a processor cuts nothing."""


def hugging_face_recipe(name: str) -> Recipe:
    """What hf:FOLDER asks for. Raises ValueError for a folder without an image classifier's files."""
    folder, library = folder_of(name), required("transformers", f"model {name}")
    library.utils.logging.disable_progress_bar()
    architecture = _architecture(name, folder, library)
    channels = getattr(architecture, "num_channels", 3)
    interpolation = _interpolation(_content(folder / PREPROCESSING))
    resize_size, input_size = _sizes(_content(folder / PREPROCESSING), architecture)
    mean, std = _normalisation(_content(folder / PREPROCESSING))

    def build(form: Form) -> nn.Module:
        if form.channels != channels:
            raise ValueError(f"model: channels: {name} takes {channels}, told by its {CONFIG}")
        own = copy.deepcopy(architecture)
        if form.classes is not None:
            own.num_labels = form.classes
        network: nn.Module = library.AutoModelForImageClassification.from_config(own, dtype=torch.float32)
        if (names := _class_names(own)) is not None:
            network.class_names = names  # type: ignore[assignment]
        return network

    def fetch() -> State:
        return _weights(name, folder, library)

    return Recipe(
        build=build,
        fetch=fetch,
        adapt=lambda _, state: state,
        mean=mean[:channels] if len(set(mean)) == 1 else mean,
        std=std[:channels] if len(set(std)) == 1 else std,
        input_size=input_size,
        resize_size=resize_size,
        classes=architecture.num_labels,
        channels=channels,
        output_key="logits",
        interpolation=interpolation,
    )


def folder_of(name: str) -> Path:
    """The folder that hf:FOLDER names. Raises ValueError where there is none with a config.json."""
    folder = Path(name.removeprefix(HF)).expanduser()
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"model: {name!r}: no {CONFIG} in {folder}: expected a local folder as save_pretrained writes it"
        )
    return folder


def _weights(name: str, folder: Path, library: Any) -> State:
    """The weights in the folder, under the names that this version of transformers has for them.

    Raises ValueError for a folder that lacks some: the library would draw those at random.
    """
    try:
        network, about = library.AutoModelForImageClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # of any kind: the folder is the user's
        raise ValueError(f"weights: {name}: {told(error)}") from error
    if missing := sorted(about["missing_keys"]):
        raise ValueError(f"weights: {folder} lacks {missing[0]!r} and {len(missing) - 1} more of {name}")
    state: State = network.state_dict()
    return state


def _architecture(name: str, folder: Path, library: Any) -> Any:
    """The configuration of an image classifier, which builds the network."""
    try:
        architecture = library.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of any kind: the folder is the user's
        raise ValueError(f"model: {name!r}: {CONFIG}: {told(error)}") from error
    if type(architecture) not in library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        kind = architecture.model_type
        raise ValueError(f"model: {name!r}: expected an image classifier, its {CONFIG} is that of {kind}")
    return architecture


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"model: no {path.name} in {path.parent}, which tells how images are prepared: write it there "
            "with the model's image processor, processor.save_pretrained(…)"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"model: {path}: {told(error)}") from None
    return content


def _normalisation(content: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of pixels in [0, 1], which a processor scales from [0, 255] before it normalises."""
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    offset = 1.0 if content.get("rescale_offset") else 0.0
    is_normalised = content.get("do_normalize", True)
    mean = content.get("image_mean") if is_normalised else [0.0] * 3
    std = content.get("image_std") if is_normalised else [1.0] * 3
    if mean is None or std is None:
        raise ValueError(f"model: {PREPROCESSING}: expected image_mean and image_std, or do_normalize: false")
    scale = 255 * factor
    return tuple((value + offset) / scale for value in mean), tuple(value / scale for value in std)


def _sizes(content: Mapping[str, Any], architecture: Any) -> tuple[Pixels, Pixels]:
    """What an image just covers, and what is cut of it."""
    size = content.get("size", getattr(architecture, "image_size", 224))
    if content.get("do_center_crop") and content.get("crop_size") is not None:
        crop = _pixels(content["crop_size"])
        outer = _pixels(size)
        return (max(outer[0], crop[0]), max(outer[1], crop[1])), crop
    crop = _pixels(size)
    if isinstance(size, Mapping) and "shortest_edge" in size and crop[0] < LARGE:
        side = int(crop[0] / content.get("crop_pct", CROP_SHARE))
        return (side, side), crop
    return crop, crop


def _pixels(size: Any) -> Pixels:
    """Height and width of a processor's size: a number, a pair, or one of its mappings."""
    if isinstance(size, Mapping):
        sides = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
        size = sides if sides[0] != sides[1] else sides[0]
    try:
        return height_and_width(size)
    except ValueError as error:
        raise ValueError(f"model: {PREPROCESSING}: size: {error}") from None


def _interpolation(content: Mapping[str, Any]) -> Interpolation:
    """How the processor scales images; bilinear where it does not tell. Raises ValueError for a rare way."""
    resample = content.get("resample", 2)
    if not isinstance(resample, int) or resample not in RESAMPLE:
        known = ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
        raise ValueError(f"model: {PREPROCESSING}: resample: expected {known}, got {resample!r}")
    return RESAMPLE[resample]


def _class_names(architecture: Any) -> list[str] | None:
    """The names of its classes, None where they are numbered only."""
    names = [str(architecture.id2label[place]) for place in range(architecture.num_labels)]
    return None if names == [f"LABEL_{place}" for place in range(len(names))] else names


HUGGING_FACE = Source(
    takes=lambda name: name.startswith(HF),
    recipe=lambda name, _: hugging_face_recipe(name),
    published=False,
    takes_classes=True,
    code_file=lambda name: folder_of(name) / CONFIG,
)

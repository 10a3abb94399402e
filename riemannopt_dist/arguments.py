"""Checks of the arguments that every public function shares: one clear sentence, or nothing."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from riemannopt_dist.choices import check_choice as check_choice
from riemannopt_dist.choices import check_positive as check_positive

ROUNDING = 0.01
"""How far outside [0, 1] an image may be, after a resize that overshoots, say."""
RANDOM_LAYERS = ("StochasticDepth", "DropPath")
"""Torchvision's and timm's, by name: to import either takes seconds."""

WITHOUT_FLOAT64 = ("mps",)
"""Types of devices."""


def check_images(images: Tensor, name: str = "images") -> None:
    """Raise ValueError unless `images` is a finite floating-point batch (B, C, H, W) with B ≥ 1."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        kind = (
            f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images)
        )
        raise ValueError(f"{name}: expected a floating-point tensor (B, C, H, W), got {kind}")
    check_device(images.device, name)
    if images.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one image, got shape {tuple(images.shape)}")
    finite = torch.isfinite(images).flatten(1).all(1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"{name}: expected finite values, found NaN or infinity in image(s) {bad}")


def check_device(device: torch.device, name: str = "images") -> None:
    """Raise ValueError for a device without float64, in which positions on a path are."""
    if device.type in WITHOUT_FLOAT64:
        raise ValueError(
            f"{name}: the device {device} has no float64, which positions on a path need: move model and "
            "images to the CPU or to a CUDA GPU"
        )


def check_range(images: Tensor) -> None:
    """Raise ValueError unless images, which a model normalises itself, are in [0, 1], but for rounding."""
    low, high = torch.stack(images.aminmax()).tolist()
    if low < -ROUNDING or high > 1 + ROUNDING:
        mend = "divide by 255" if low >= 0 and high > 2 else "the model normalises them itself"
        raise ValueError(f"images: expected values in [0, 1], got {low:.4g} to {high:.4g}: {mend}")


def check_model(model: nn.Module) -> None:
    """Raise ValueError if a layer's output depends on chance, or on the other images of a batch."""
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            raise ValueError(
                f"model: expected running statistics, layer {name!r} takes those of the batch in any mode"
            )
        if layer.training and _differs_in_training(layer):
            raise ValueError(
                f"model: expected evaluation mode (model.eval()), layer {name!r} is in training mode"
            )


def _differs_in_training(layer: nn.Module) -> bool:
    return (
        isinstance(layer, (_BatchNorm, _DropoutNd, nn.RReLU))
        or (isinstance(layer, nn.MultiheadAttention) and layer.dropout > 0)
        or type(layer).__name__ in RANDOM_LAYERS
    )


def check_targets(targets: Tensor, images: Tensor, model: nn.Module | None = None) -> None:
    """Raise ValueError unless `targets` holds one class index (int64) for each image, on its device.

    The classes are counted where `model` says how many it has, as `Classifier.classes` does.
    """
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.shape != images.shape[:1]:
        kind = f"{targets.dtype} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else targets
        raise ValueError(f"targets: expected int64 class indices of shape ({images.shape[0]},), got {kind}")
    if targets.device != images.device:
        raise ValueError(f"targets: expected on the images' device {images.device}, got {targets.device}")
    classes = getattr(model, "classes", None)
    if bool((targets < 0).any()) or (isinstance(classes, int) and bool((targets >= classes).any())):
        expected = "of at least 0" if classes is None else f"from 0 to {classes - 1}"
        raise ValueError(f"targets: expected class indices {expected}, got {targets.tolist()}")


def check_classes(targets: Tensor, logits: Tensor) -> None:
    """Raise ValueError unless every target (B,) has one of the logits (B, classes).

    On the CPU alone: elsewhere a look at the targets would wait for all that the device has yet to do.
    """
    classes = logits.shape[1]
    if targets.device.type == "cpu" and bool((targets >= classes).any()):
        raise ValueError(f"targets: expected class indices below {classes}, got {int(targets.max())}")

"""Whether a classifier can be explained: tried on noise, before anything is spent on images.

Layers that depend on chance or on the batch are found by their type (arguments.py); what a forward pass does
by itself is found by what comes of it, in three passes and a gradient.
"""

import pickle
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.arguments import check_model
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.logits import (
    REPEATED,
    check_logits,
    check_no_probabilities,
    check_two_classes,
    moved,
)
from riemannopt_dist.objective import Output
from riemannopt_dist.storage.redaction import one_line

REARRANGED = 1e-4
"""How far the logits of an image alone, or of a model built anew, may move: other kernels round otherwise."""


def check_classifier(model: Classifier, output: Output = "probability") -> int:
    """The number of classes of a classifier that can be explained.

    Raises ValueError, in one line that says what was found, what is expected and how to mend it: where its
    forward or backward pass fails on images (2, C, H, W) of its own size; for an output that is not finite
    logits (B, classes), or probabilities where a probability is to be explained; for one that depends on
    chance or on the other images of a batch; and for one without a gradient with respect to the images. The
    random numbers of the caller are left where they were.
    """
    check_model(model)
    _check_precision(model)
    images = noise(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        logits = run_model(model, images).clone()
        _check_values(logits, output)
        _check_repeated(model, images, logits)
    _check_alone(model, images[:1], logits[:1])
    return logits.shape[1]


def noise(model: Classifier) -> Tensor:
    """Two images of noise for `model`, (2, C, H, W), one of them dark: neither has the batch's statistics."""
    images = torch.rand(2, *model.input_shape, generator=torch.Generator().manual_seed(0))
    images[1] *= 0.25
    return images.to(model.mean)


def run_model(model: Classifier, images: Tensor) -> Tensor:
    """Logits (B, classes) of images (B, C, H, W). Raises ValueError where there are none."""
    try:
        logits: Any = model(images.clone())  # which it may write to
    except Exception as error:
        shape = f"images of shape {tuple(images.shape)} ({images.dtype})"
        raise ValueError(
            f"model: its forward pass fails on {shape}: {_told(error)}{_cause(model)}"
        ) from error
    check_logits(logits, len(images))
    tensor: Tensor = logits
    return tensor


def _check_alone(model: Classifier, image: Tensor, expected: Tensor) -> None:
    """Raise ValueError unless the logits of one image (1, C, H, W) are those `expected`, with a gradient."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        inputs = image.clone().requires_grad_()
        logits = run_model(model, inputs)
        if not moved(logits.detach(), expected) <= REARRANGED:
            raise ValueError(
                "model: the logits of an image differ in a batch and alone: no operation may mix images, as "
                "a mean over the batch or a normalisation by its statistics does"
            )
        gradient = _gradient(logits, inputs)
    if gradient is None or not bool(gradient.any()):
        fault = "have no gradient" if gradient is None else "have a gradient of zero everywhere"
        raise ValueError(
            f"model: its logits {fault} with respect to the image: compute them without torch.no_grad(), "
            "inference_mode(), .detach(), rounding and the like"
        )
    if not bool(gradient.isfinite().all()):
        raise ValueError("model: the gradient of its logits is not finite (NaN or infinity) on noise")


def _gradient(logits: Tensor, inputs: Tensor) -> Tensor | None:
    """The gradient of a sum in which every logit has another weight; None where there is none."""
    if not logits.requires_grad:
        return None
    weights = torch.linspace(1.0, 2.0, logits.shape[1]).to(logits)
    try:
        return torch.autograd.grad((logits * weights).sum(), inputs, allow_unused=True)[0]
    except Exception as error:
        raise ValueError(f"model: its backward pass fails: {_told(error)}") from error


def _check_precision(model: Classifier) -> None:
    """Raise ValueError for a weight of half precision, in which a run neither computes nor sends weights."""
    for name, tensor in model.network.state_dict().items():
        if tensor.is_floating_point() and tensor.element_size() < 4:
            raise ValueError(
                f"model: expected torch.float32, its {name!r} is {tensor.dtype}: return model.float()"
            )


def _cause(model: Classifier) -> str:
    """What a failing forward pass may come of: weights of another type than the images."""
    for name, weight in model.network.named_parameters():
        if weight.is_floating_point() and weight.dtype != model.mean.dtype:
            return f"; its {name!r} is {weight.dtype}: return model.float()"
    return ""


def _check_values(logits: Tensor, output: Output) -> None:
    if logits.element_size() < 4:
        raise ValueError(
            f"model: expected logits of torch.float32, got {logits.dtype}: return logits.float()"
        )
    if not bool(logits.isfinite().all()):
        raise ValueError("model: its logits are not finite (NaN or infinity) on images of noise")
    if output == "logit":
        return
    check_two_classes(logits)
    check_no_probabilities(logits)


def _check_repeated(model: Classifier, images: Tensor, expected: Tensor) -> None:
    """Raise ValueError where the same images come to other logits, or random numbers are drawn for them.

    The numbers tell where two passes do not: of a dropout that rarely drops anything.
    """
    before = _random_state()
    again = run_model(model, images)
    if _random_state() != before or not moved(again, expected) <= REPEATED:
        raise ValueError(
            "model: its forward pass depends on chance, two passes of the same images differ: no dropout in "
            "evaluation (F.dropout(x, p, training=self.training)), no noise"
        )


def _random_state() -> bytes:
    """Where the generators of torch, NumPy and Python are."""
    numbers = np.random.get_state()  # noqa: NPY002  (what models draw from)
    return pickle.dumps((torch.get_rng_state().numpy(), numbers, random.getstate()))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"

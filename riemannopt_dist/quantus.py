"""What Quantus calls to explain images: `quantus.Metric()(..., explain_func=explain_func)`."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from riemannopt_dist.methods import attribute


def explain_func(
    model: nn.Module, inputs: NDArray[Any], targets: NDArray[Any], **choices: Any
) -> NDArray[np.float32]:
    """Attribution maps (B, C, H, W) of images (B, C, H, W) for class indices (B,).

    `choices` are those of `attribute` (path, estimator, placement, samples, profile, …), which Quantus passes
    on as explain_func_kwargs, and what else it passes on: `device` is where the work is done, its other
    settings change nothing here. Images are as the model takes them: the baseline is 0 there.
    """
    device = torch.device(choices.pop("device", None) or _device_of(model))
    images = torch.as_tensor(np.asarray(inputs), dtype=torch.float32, device=device)
    classes = torch.as_tensor(np.asarray(targets), dtype=torch.int64, device=device)
    return np.asarray(attribute(model.eval().to(device), images, classes, **choices).maps.cpu().numpy())


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

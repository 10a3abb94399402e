"""The models that are measured, and what is put into them."""

import argparse

import torch
from torch import Tensor

from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.folding import channels_last, folded
from riemannopt_dist.models.loading import load_model

MODELS = {"efficientnet_lite0": (8, 16), "inception_v3": (2, 16)}
"""How many images and samples each is measured with, so that its turn takes seconds."""


def loaded(name: str, options: argparse.Namespace) -> Classifier:
    """A classifier as anybody has it; with random weights where it has none here, which speed ignores."""
    return load_model(name, None if name.startswith("efficientnet_lite") else "random").to(options.device)


def fast(model: Classifier) -> Classifier:
    """The same as a worker runs it."""
    return channels_last(folded(model))


def noise(model: Classifier, count: int, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Images of noise, and classes for them."""
    height, width = (size, size) if size else model.input_size
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    return images.to(model.mean), torch.arange(count, device=model.mean.device)

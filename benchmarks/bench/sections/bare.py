"""Our pieces of work over the bare model."""

import argparse
import resource
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench.networks import MODELS, fast, loaded, noise
from benchmarks.bench.others import gradient
from benchmarks.bench.ours import Piece, pieces
from benchmarks.bench.ratio import progress, ratio, seconds
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import micro_batches


def section(options: argparse.Namespace) -> dict[str, Any]:
    """Each piece of work over the bare model's forward pass and gradient, for as many of both."""
    return {name: bare(name, options) for name in options.models}


def bare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Those of one model, with the milliseconds of its bare gradient and forward pass."""
    plain = loaded(name, options)
    model, (count, samples) = fast(plain), MODELS[name]
    images, targets = noise(model, options.batch)
    device = images.device
    one_gradient, as_loaded, one_pass = (
        1000 * min(seconds(work, device) for _ in range(options.turns + 1)) / options.batch
        for work in (
            partial(gradient, model, images, targets),
            partial(gradient, plain, images, targets),
            partial(forward, model, images),
        )
    )
    table: dict[str, Any] = {
        "gradient_ms": one_gradient,
        "gradient_as_loaded_ms": as_loaded,
        "forward_ms": one_pass,
    }
    for piece_name, piece in pieces(model, images[:count], targets[:count], samples, options.batch).items():
        limit = partial(needed, model, images, targets, piece)
        measured = ratio(piece.work, limit, device, options.turns)
        table[piece_name] = asdict(measured) | {"peak_gib": _peak(device)}
        progress(f"{name}, {piece_name}: {measured}")
    return table


def needed(model: Classifier, images: Tensor, targets: Tensor, piece: Piece) -> None:
    """The gradients and passes of a piece of work, and nothing else, in batches as large as it can use."""
    for part in micro_batches(piece.gradients, min(len(images), piece.at_once)):
        gradient(model, images[: part.stop - part.start], targets[: part.stop - part.start])
    for part in micro_batches(piece.passes, min(len(images), piece.at_once)):
        forward(model, images[: part.stop - part.start])


@torch.no_grad()
def forward(model: Classifier, images: Tensor) -> Tensor:
    """The model's logits."""
    logits: Tensor = model(images)
    return logits


def _peak(device: torch.device) -> float:
    """The most memory so far, in GiB: of the device, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

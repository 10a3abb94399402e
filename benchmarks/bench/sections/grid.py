"""The paper's grid over the bare model."""

import argparse
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.bench.networks import fast, loaded, noise
from benchmarks.bench.ours import Piece, grid
from benchmarks.bench.ratio import ratio
from benchmarks.bench.sections.bare import needed


def section(options: argparse.Namespace) -> dict[str, Any]:
    """The paper's grid and metrics over the bare model's time for the evaluations that it needs."""
    model = fast(loaded("efficientnet_lite0", options))
    counts = [16, 32, 64, 128]
    work = grid(model, options.photos, counts, options.batch)
    gradients, passes = work()
    images, targets = noise(model, options.batch)
    limit = partial(needed, model, images, targets, Piece(work, gradients, passes))
    measured = ratio(work, limit, images.device, 1)
    return asdict(measured) | {
        "gradients_an_image": gradients / options.photos,
        "passes_an_image": passes / options.photos,
        "gradients_of_a_loop": 3 * 2 * sum(counts),
    }

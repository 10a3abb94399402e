"""The paper's grid over the bare model."""

import argparse
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.bench.networks import fast, loaded, noise
from benchmarks.bench.ours import Piece, grid
from benchmarks.bench.ratio import progress, ratio, seconds
from benchmarks.bench.sections.bare import needed

SIZES: dict[str, tuple[int, list[int]]] = {
    "efficientnet_lite0": (8, [16, 32, 64, 128]),
    "inception_v3": (2, [16, 32]),
}
"""Photos, and numbers of samples: of a slow model the first half of the grid."""

SHARE = 32
"""The part of the gradients that the model as it is loaded is timed with, for what folding is worth."""


def section(options: argparse.Namespace) -> dict[str, Any]:
    """The paper's grid and metrics over the bare model's time for the evaluations that it needs."""
    return {name: of_model(name, options) for name in options.models}


def of_model(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """That of one model."""
    plain, (photos, counts) = loaded(name, options), SIZES[name]
    model = fast(plain)
    work = grid(model, photos, counts, options.batch)
    gradients, passes = work()
    images, targets = noise(model, options.batch)
    limit = partial(needed, model, images, targets, Piece(work, gradients, passes))
    measured = ratio(work, limit, images.device, 1, warm=True)
    progress(f"{name}, grid: {measured}")
    some = Piece(work, gradients // SHARE, passes // SHARE)
    of_plain, of_fast = (
        min(seconds(partial(needed, one, images, targets, some), images.device) for _ in range(options.turns))
        for one in (plain, model)
    )
    return asdict(measured) | {
        "over_as_loaded": measured.median * of_fast / of_plain,
        "photos": photos,
        "samples": counts,
        "gradients_an_image": gradients / photos,
        "passes_an_image": passes / photos,
        "gradients_of_a_loop": 3 * 2 * sum(counts),
    }

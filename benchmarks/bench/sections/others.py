"""Others' seconds over ours for the same maps."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor

import riemannopt_dist as ro
from benchmarks.bench.networks import MODELS, fast, loaded, noise
from benchmarks.bench.others import Pair, captum, loop
from benchmarks.bench.ratio import progress, ratio


def section(options: argparse.Namespace) -> dict[str, Any]:
    """The seconds of others over ours for the same maps, and how far the two sets of maps are apart."""
    name, batch = options.models[0], options.batch
    plain, (count, n) = loaded(name, options), MODELS[name]
    model, pair = fast(plain), Pair(plain, batch)
    images, targets = noise(model, count)
    left, settings = ro.linear_schedule(n), {"internal_batch_size": batch}
    middle, right = (ro.linear_schedule(n, rule) for rule in ("midpoint", "right"))
    blur = ro.BlurPath(images, convention="original")
    works: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "ig_over_loop": (
            lambda: loop(plain, images, targets, n),
            lambda: ro.integrated_gradients(model, images, targets, left, **settings).maps,
        ),
        "ig_over_captum": (
            lambda: captum(plain, images, targets, n, batch, "riemann_middle"),
            lambda: ro.integrated_gradients(model, images, targets, middle, **settings).maps,
        ),
        "blur_ig_over_pair": (
            lambda: pair.blur_ig(images, targets, n),
            lambda: ro.blur_ig(model, images, targets, right, path=blur, **settings).maps,
        ),
        "guided_ig_over_pair": (
            lambda: pair.guided_ig(images, targets, n),
            lambda: ro.guided_ig(model, images, targets, left, **settings).maps,
        ),
    }
    table = {}
    for name, (theirs, ours) in works.items():
        measured = ratio(theirs, ours, images.device, options.turns)
        table[name] = asdict(measured) | {"maps_apart": apart(theirs(), ours())}
        progress(f"{name}: {measured}")
    return table


def apart(maps: Tensor, reference: Tensor) -> float:
    """‖a − b‖₁ / ‖b‖₁ over all images."""
    return float((maps - reference).abs().sum() / reference.abs().sum())

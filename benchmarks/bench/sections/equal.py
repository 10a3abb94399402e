"""Seconds at equal error: ours, and the defaults of captum and PAIR."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

import riemannopt_dist as ro
from benchmarks.bench.networks import fast, loaded
from benchmarks.bench.others import Pair, captum
from benchmarks.bench.ratio import progress, ratio
from benchmarks.photos import readable
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.run.profiles import read_profiles

CAPTUM_STEPS, PAIR_STEPS = 50, 100
"""Of their defaults: Gauss-Legendre points, and steps of the blur."""
TIMED = 4
"""How many photos are timed, of those whose errors are compared."""
Attribution = Callable[[Tensor, Tensor], Tensor]
"""Maps of images and targets."""


def section(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a map where the mean true error is no larger than that of captum's and PAIR's defaults."""
    plain = loaded("efficientnet_lite0", options)
    model = fast(plain)
    images = torch.stack(some_photos(model, options)).to(options.device)
    targets = model(images).argmax(1)
    pair, batch = Pair(plain, options.batch), options.batch
    theirs: dict[str, Attribution] = {
        "ig": lambda images, targets: captum(plain, images, targets, CAPTUM_STEPS, batch, "gausslegendre"),
        "blur_ig": lambda images, targets: pair.blur_ig(images, targets, PAIR_STEPS),
    }
    return {
        path: at_equal_error(model, images, targets, path, options, work) for path, work in theirs.items()
    }


def some_photos(model: Classifier, options: argparse.Namespace) -> list[Tensor]:
    """As many as asked for, of those that can be read, evenly out of all: a folder has them by class."""
    refs = list_images(options.images)
    step = max(1, len(refs) // options.photos)
    return [*readable(chain(refs[::step], refs[1::step]), model, options.photos)]


def at_equal_error(
    model: Classifier,
    images: Tensor,
    targets: Tensor,
    path: str,
    options: argparse.Namespace,
    theirs: Attribution,
) -> dict[str, Any]:
    """Our estimators with the fewest samples that are as near to the converged maps, and their seconds.

    Errors are those of all images, seconds those of the first TIMED.
    """
    profile = read_profiles("demo:", [path])[path]
    line = ro.BlurPath(images) if path == "blur_ig" else ro.StraightPath.from_black(images)
    objective = ro.Objective(model, targets, internal_batch_size=options.batch)
    density = partial(_edges, profile)
    converged = ro.converge(objective, line, options.intervals, partition=density).maps
    limit = mean_error(theirs(images, targets), converged)
    best: dict[str, Any] = {"photos": len(images), "their_error": limit}
    few = images[:TIMED], targets[:TIMED]
    for estimator in ("rescale", "softmax_trapezoid"):
        for samples in (2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32):
            ours = partial(
                ro.attribute, model, path=path, estimator=estimator, placement="adaptive",
                samples=samples, profile=profile, internal_batch_size=options.batch,
            )  # fmt: skip
            error = mean_error(ours(images, targets).maps, converged)
            if error <= limit:
                measured = ratio(partial(ours, *few), partial(theirs, *few), images.device, options.turns)
                best[estimator] = asdict(measured) | {"samples": samples, "error": error}
                progress(f"{path}, {estimator}, {samples} samples: {measured}")
                break
    return best


def _edges(profile: ro.Profile, intervals: int) -> Any:
    from riemannopt_dist.quadrature.placement.equidistribution import density_partitions

    return density_partitions(profile, "trapezoid", [intervals])[0]


def mean_error(maps: Tensor, converged: Tensor) -> float:
    """The mean over images of ‖a − b‖₁ / ‖b‖₁."""
    return float(ro.compare(maps, converged).error.mean())

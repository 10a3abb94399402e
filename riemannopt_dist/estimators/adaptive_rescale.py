"""The Rescale rule over intervals of each image's own, placed by forward passes that the sum needs anyway.

Its sums (rescale.py) take all samples of a path through the model before the first backward pass. So the
first samples can tell where the others are needed, without any evaluation being spent twice: the tape of
rescale/tape.py holds both passes, and knows which samples are neighbours.

What they tell: the gradient of a probability changes between two samples like p (1 − p) ‖Δz‖, with z the
logits. Over 1,280 steps of 1/128 on the straight paths of ten ImageNet photos (EfficientNet-Lite0) the ratio
of the two was within 1.8 and 2.8 thousand for half of the steps and within 0.7 and 4.1 thousand for nine in
ten, while the changes went through four orders of magnitude. So an interval's error is taken to be like the
mean of p (1 − p) times ‖Δz‖₂ ‖Δγ‖₁. Errors of different places count as independent, and to fall like n^-1.5
where an interval is divided into n; to reckon with n^-1 or n^-2.5 placed them worse for the same photos.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.differentiation import recording
from riemannopt_dist.estimators.rescale import (
    complete_attribution,
    forward_pass,
    mean_output_slopes,
    products,
    tried_on_whole_path,
)
from riemannopt_dist.objective import (
    Index,
    Objective,
    Output,
    explained_output,
    micro_batches,
)
from riemannopt_dist.paths.base import Path
from riemannopt_dist.precision import products_in, sum_type
from riemannopt_dist.quadrature.placement.equidistribution import rough_coordinate
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.rescale.tape import Tape
from riemannopt_dist.transfer import on_device

FIRST = 3 / 8
"""The part of the intervals that is the same for all images: tuned on images of a fit subset."""

FLOOR = 1e-3
"""The least mean slope of f that is reckoned with: what is flat at two samples may not be between them."""


def adaptive_rescale_attribution(
    objective: Objective, path: Path, profile: Profile, samples: int
) -> Attribution:
    """The attribution of each image from `samples` secants, over intervals where its map needs them.

    The first `FIRST` of the intervals share the profile's ∫roughness^⅓ evenly, and are then divided, evenly
    again, into `samples` in all. `gradient_evaluations` are the intervals; samples + 1 places of an image go
    through the model once. Memory: all of them at once, of as many images as fit a micro-batch or of one.

    Raises ValueError unless samples is at least 2, for a profile without roughness, and as
    `rescale_attribution` does.
    """
    objective.check(path.images)
    if samples < 2:
        raise ValueError(f"samples: expected at least 2, for intervals that can be placed, got {samples}")
    targets, size = objective.targets, objective.internal_batch_size
    alphas, shares, _ = rough_coordinate(profile)
    objective = tried_on_whole_path(objective, path)
    maps = torch.empty_like(path.images, dtype=sum_type(path.images.dtype))
    values = maps.new_empty((len(targets), samples + 1))
    for part in micro_batches(len(targets), max(size // (samples + 1), 1)):
        rows = np.arange(part.start, part.stop)
        parts = _secants(objective, path, rows, samples, (shares, alphas))
        maps[part], values[part] = parts.maps, parts.values.to(values)
    evaluations = torch.full_like(targets, samples)
    dtype = objective.rounding_type(path.images.dtype)
    return complete_attribution(maps, values, evaluations, objective.output, dtype)


@dataclass(frozen=True, eq=False)
class _Secants:
    """Of G images: maps (G, C, H, W) and f at all edges (G, n + 1)."""

    maps: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class _Pass:
    """Samples at `shares` (G, N) of G paths: places (G · N, C, H, W) and logits (G · N, classes)."""

    shares: Array
    places: Tensor
    logits: Tensor


def _secants(
    objective: Objective, path: Path, rows: Index, samples: int, coordinate: tuple[Array, Array]
) -> _Secants:
    """The secants of the images `rows` (G,); the coordinate's shares and positions say what a share means."""
    device, output = path.images.device, objective.output
    tape = Tape()

    def passed(shares: Array) -> _Pass:
        index = on_device(np.repeat(rows, shares.shape[1]), device)
        places, _ = path.at(index, on_device(np.interp(shares.ravel(), *coordinate), device))
        return _Pass(shares, *forward_pass(objective, places, tape))

    targets = objective.targets[on_device(rows, device)]
    common = np.linspace(0.0, 1.0, max(1, round(FIRST * samples)) + 1)
    first = passed(np.tile(common, (len(rows), 1)))
    second = passed(divided(first.shares, _expected_errors(first, targets, output), samples))
    ordered = _in_order(first.shares, second.shares)
    following = np.arange(ordered.size)
    following[ordered[:, :-1]] = ordered[:, 1:]
    cut = first.shares.size
    tape.join(following.tolist())

    chain, neighbours = (on_device(places, device) for places in (ordered, following))
    logits = torch.cat([first.logits, second.logits]).detach()
    places = torch.cat([first.places, second.places]).detach()
    classes = torch.empty_like(neighbours)
    classes[chain] = targets[:, None].expand(chain.shape)
    slopes = mean_output_slopes(logits, logits[neighbours], classes, output)
    slopes[chain[:, -1]] = 0
    with recording(), products_in(objective.precision, device):
        gradients = torch.autograd.grad(
            (first.logits, second.logits), (first.places, second.places), (slopes[:cut], slopes[cut:])
        )
    parts = products(torch.cat(gradients), places, places[neighbours])
    values = explained_output(logits, classes, output)
    return _Secants(parts[chain].sum(1), values[chain])


def _expected_errors(samples: _Pass, targets: Tensor, output: Output) -> Array:
    """For each interval between the samples (G, N): (G, N − 1), up to a factor."""
    images, count = samples.shares.shape
    logits, places = (
        each.detach().view(images, count, *each.shape[1:]) for each in (samples.logits, samples.places)
    )
    classes = targets[:, None].expand(images, count - 1).flatten()
    slopes = mean_output_slopes(logits[:, :-1].flatten(0, 1), logits[:, 1:].flatten(0, 1), classes, output)
    slope = slopes.gather(1, classes[:, None]).view(images, count - 1).clamp(min=FLOOR)
    moved = logits[:, 1:] - logits[:, :-1]  # a softmax sees differences of logits only
    distance = (moved - moved.mean(-1, keepdim=True)).norm(dim=-1)
    step = (places[:, 1:] - places[:, :-1]).abs().flatten(2).sum(-1)
    return np.asarray((slope * distance * step).double().cpu().numpy())


def divided(edges: Array, errors: Array, intervals: int) -> Array:
    """Edges inside of intervals, for `intervals` in all: each where Σ error² / pieces³ falls most.

    `edges` (G, N + 1) are those of the intervals and `errors` (G, N) theirs while they are whole; pieces of
    an interval are equal. The result is (G, intervals − N), in ascending order.
    """
    images, count = errors.shape
    pieces = np.ones(errors.shape, dtype=np.int64)
    for _ in range(intervals - count):
        gains = errors**2 * (1 / pieces**3 - 1 / (pieces + 1) ** 3)
        pieces[np.arange(images), gains.argmax(axis=1)] += 1
    inside = [
        [np.linspace(*ends, parts + 1)[1:-1] for ends, parts in zip(pairwise(row), of_row, strict=True)]
        for row, of_row in zip(edges, pieces, strict=True)
    ]
    return np.array([np.concatenate(row) for row in inside])


def _in_order(first: Array, second: Array) -> Index:
    """Samples of images (G, N) and (G, M) in order: their places, counted through one pass and the other."""
    counted = np.arange(first.size + second.size)
    places = np.hstack(
        [counted[: first.size].reshape(first.shape), counted[first.size :].reshape(second.shape)]
    )
    order = np.argsort(np.hstack([first, second]), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(places, order, axis=1))

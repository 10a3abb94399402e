"""Sums of secants: over each interval of a path, one backward pass through the model's mean slopes.

Over an interval [a, b] of the path the integral of the gradient is approximated by the backward pass in which
every operation has its mean slope between a and b (rescale/), and the softmax its mean Jacobian. A
network's kinks are averaged over the interval instead of sampled at its ends, and the sum over features is
f(γ(b)) − f(γ(a)) up to rounding: maps are complete under every schedule. One interval from the baseline to
the input is the Rescale rule of DeepLIFT (Shrikumar et al., ICML 2017); as intervals shrink the sum becomes
the integral. n intervals take n + 1 samples through the model and back.

An operation whose mean slope is not known is refused by name where torch shows it, and by sums that are not
complete where it does not. Whether a model is refused does not depend on the intervals: the first image's
path is tried as one, of the logit, besides. Samples of a batch are neighbours along the first axis of what
the model computes. Where that is not so, as in a transformer whose tokens come first, they go through it one
at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_classes
from riemannopt_dist.attribution import Attribution
from riemannopt_dist.differentiation import leaf_of, recording
from riemannopt_dist.estimators.base import Placed
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import (
    Index,
    Objective,
    Output,
    by_image,
    explained_output,
    logits_of,
    micro_batches,
)
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.precision import products_in, sum_type
from riemannopt_dist.quadrature.nodes import gauss_legendre_on
from riemannopt_dist.quadrature.rules import partition_of
from riemannopt_dist.quadrature.schedule import Array, Schedule
from riemannopt_dist.rescale.mode import RescaleMode
from riemannopt_dist.rescale.tape import Tape
from riemannopt_dist.transfer import on_device

SOFTMAX_POINTS = 128
"""Gauss-Legendre points of the mean of the output's softmax: enough for steps of over 60 log-odds."""

INCOMPLETE = 1e-2
"""How far a map's sum may be off, as a share of f(x) − f(x′): wrong slopes are off by more."""

ROUNDING = 1e-5
"""And besides, as a share of the map's L1 norm and of |f|; 32 ε of the data type if that is more. In float32
EfficientNet-Lite0's sums of photos are off by up to 1.5e-8 of that."""

_NEIGHBOURS: WeakKeyDictionary[nn.Module, dict[tuple[torch.Size, torch.dtype], bool]] = WeakKeyDictionary()
"""Of models that were tried, by the shape and type of images: if the samples of a batch are neighbours."""


def rescale_attribution(objective: Objective, path: Path, schedule: Schedule) -> Attribution:
    """Maps from one secant over each interval of a schedule of the left, right or trapezoid rule.

    Only the schedule's partition matters. Its `gradient_evaluations` are the intervals. Of a path at most the
    objective's `internal_batch_size` intervals, which have a sample more, go through the model at once; that
    changes nothing beyond rounding.

    Sums are of float32, or of the images' type where that is wider, and so are the maps.

    Raises ValueError for a schedule of another rule, targets that do not fit, a model with an operation whose
    mean slopes are not known, and one whose sums are not the change of f: torch's functions do not show all
    of it.
    """
    objective.check(path.images)
    edges, _ = partition_of(schedule)
    objective = tried_on_whole_path(objective, path)
    maps, values = sums_over_intervals(objective, path, edges)
    evaluations = torch.full_like(objective.targets, len(edges) - 1)
    dtype = objective.rounding_type(path.images.dtype)
    return complete_attribution(maps, values, evaluations, objective.output, dtype)


def rescaled_where_placed(objective: Objective, path: Path | GuidedPath, placed: Placed) -> Attribution:
    """The attribution on a schedule, or over intervals of each image's own. Raises ValueError for a walk."""
    from riemannopt_dist.estimators.adaptive_rescale import (
        adaptive_rescale_attribution,  # which builds on this module
    )

    if isinstance(path, GuidedPath):
        raise ValueError("path: the Rescale rule needs a path that is known beforehand")
    if placed.schedule is None:
        return adaptive_rescale_attribution(objective, path, placed.known_profile, placed.samples)
    return rescale_attribution(objective, path, placed.schedule)


def sums_over_intervals(objective: Objective, path: Path, edges: Array) -> tuple[Tensor, Tensor]:
    """Maps (B, C, H, W) of the secants between `edges` (n + 1,), and f at the edges (B, n + 1)."""
    maps = torch.zeros_like(path.images, dtype=sum_type(path.images.dtype))
    values = maps.new_empty((len(maps), len(edges)))
    for part in secants(objective, path, edges):
        # Image by image: the order of summation is fixed.
        for row, samples in by_image(part.rows):
            maps[row] += part.parts[samples.start : samples.stop - 1].sum(0)
        values[part.index] = part.values.to(values)
    return maps, values


def tried_on_whole_path(objective: Objective, path: Path) -> Objective:
    """The objective; with one sample at a time if those of a batch are not neighbours along the first axis.

    A model is tried once for each shape and type of images, on the first of them: that takes two samples.
    Raises ValueError where the first image's path, as one interval, has no complete secant of its logit.
    Wrong slopes show there as nowhere else: errors of many short intervals may be too small to tell, and so
    may all of a small probability's change.
    """
    kind = (path.images.shape[1:], path.images.dtype)
    tried = _NEIGHBOURS.setdefault(objective.model, {})
    if kind not in tried:
        neighbours = _holds(replace(objective, internal_batch_size=2), path)
        if not neighbours:
            _check_whole_path(replace(objective, internal_batch_size=1), path)
        tried[kind] = neighbours
    return objective if tried[kind] else replace(objective, internal_batch_size=1)


def _holds(objective: Objective, path: Path) -> bool:
    """Whether the rule does with several samples at a time."""
    try:
        _check_whole_path(objective, path)
    except ValueError:
        return False
    return True


def _check_whole_path(objective: Objective, path: Path) -> None:
    first = replace(objective, targets=objective.targets[:1], output="logit")
    maps, values = sums_over_intervals(first, FirstOf(path), np.array([0.0, 1.0]))
    dtype = objective.rounding_type(path.images.dtype)
    complete_attribution(maps, values, torch.ones_like(first.targets), "logit", dtype)


@dataclass(frozen=True)
class FirstOf:
    """The path of the first image alone."""

    path: Path

    @property
    def images(self) -> Tensor:
        """The first image, (1, C, H, W)."""
        return self.path.images[:1]

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """As the whole path's: its first row is the same image."""
        return self.path.at(rows, alphas)


def check_rescale(model: Classifier) -> None:
    """Raise ValueError where `rescale_attribution` would for the model: tried on an image of noise."""
    noise = torch.rand(1, *model.input_shape, generator=torch.Generator().manual_seed(0)).to(model.mean)
    target = torch.zeros(1, dtype=torch.int64, device=noise.device)
    tried_on_whole_path(Objective(model, target), StraightPath.from_black(noise))


@dataclass(frozen=True)
class Secants:
    """A micro-batch of N samples along the paths of some images, and the intervals between them.

    rows and columns (N,), on the host, say which image and which edge each sample is at, and so does the
    `index` on the device; values (N,) is f there. parts (N − 1, C, H, W) are the attributions over the
    interval from each sample to the next, where both are of one image, else 0.
    """

    rows: Index
    columns: Index
    index: tuple[Tensor, Tensor]
    values: Tensor
    parts: Tensor


def secants(objective: Objective, path: Path, edges: Array) -> Iterator[Secants]:
    """The secants between `edges` (n + 1,) of every image's path, a micro-batch at a time, in order."""
    device = path.images.device
    batches = [*_micro_batches(len(path.images), len(edges), objective.internal_batch_size + 1)]
    all_rows, all_columns = (np.concatenate(part) for part in zip(*batches, strict=True))
    # All at once: a copy for every micro-batch would keep the device waiting.
    there = [on_device(part, device) for part in (all_rows, all_columns, edges[all_columns])]
    counts = [len(rows) for rows, _ in batches]
    parts = (torch.split(part, counts) for part in there)
    for (rows, columns), row, column, positions in zip(batches, *parts, strict=True):
        places, _ = path.at(row, positions)
        values, gradients = mean_gradients(objective.of(row), places, row[1:] == row[:-1])
        sums = products(gradients, places[:-1], places[1:])
        yield Secants(rows, columns, (row, column), values, sums)


def products(gradients: Tensor, places: Tensor, neighbours: Tensor) -> Tensor:
    """Gradients × steps from places to their neighbours, in float32 or their own type where that is wider."""
    wide = sum_type(gradients.dtype)
    return gradients.to(wide) * (neighbours.to(wide) - places.to(wide))


def samples_taken(intervals: int, at_once: int) -> int:
    """Samples of an image that go through the model for so many intervals, at most `at_once` at a time."""
    return intervals + math.ceil(intervals / at_once)


def _micro_batches(images: int, samples: int, size: int) -> Iterator[tuple[Index, Index]]:
    """The rows and columns of at most `size` ≥ 2 samples at a time: of whole images, or of parts of one.

    Parts of one share a sample, so that the interval between them is not lost.
    """
    if samples <= size:
        for part in micro_batches(images, size // samples):
            count = part.stop - part.start
            yield np.repeat(np.arange(part.start, part.stop), samples), np.tile(np.arange(samples), count)
        return
    for row in range(images):
        for start in range(0, samples - 1, size - 1):
            columns = np.arange(start, min(start + size, samples))
            yield np.full_like(columns, row), columns


def mean_gradients(objective: Objective, places: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """f at N places (N, C, H, W), (N,), and its mean gradients from each to the next, (N − 1, C, H, W).

    They are zero where `inside` (N − 1,) is false: between places that do not belong together.
    """
    targets, output = objective.targets, objective.output
    inputs, logits = forward_pass(objective, places, Tape())
    values = logits.detach()
    slopes = torch.zeros_like(values)
    slopes[:-1] = mean_output_slopes(values[:-1], values[1:], targets[:-1], output) * inside[:, None]
    with recording(), products_in(objective.precision, places.device):
        (gradients,) = torch.autograd.grad(logits, inputs, slopes)
    return explained_output(values, targets, output), gradients[:-1]


def forward_pass(objective: Objective, places: Tensor, tape: Tape) -> tuple[Tensor, Tensor]:
    """Places (N, C, H, W) as gradients can be asked of, and their logits (N, classes), noted on the tape."""
    model = objective.model
    constant = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    logits = []
    with recording():
        inputs = leaf_of(places)
        for part in torch.split(inputs, 1 if objective.internal_batch_size == 1 else len(inputs)):
            with RescaleMode(len(part), tape):
                logits.append(
                    logits_of(partial(torch.func.functional_call, model, constant), part, objective.precision)
                )
        together = torch.cat(logits)
    objective.check_soundness(inputs, together)
    return inputs, together


def mean_output_slopes(before: Tensor, after: Tensor, targets: Tensor, output: Output) -> Tensor:
    """The mean of ∂f/∂logits on the lines between logits, all (N, classes). `targets` (N,) are the classes.

    For a probability ∂p_c/∂z_j = p_c ([j = c] − p_j), by quadrature.
    """
    check_classes(targets, before)
    target = nn.functional.one_hot(targets, before.shape[1]).to(before)
    if output == "logit":
        return target
    quadrature = gauss_legendre_on(SOFTMAX_POINTS, before.device, before.dtype)
    nodes, weights = (values[:, None, None] for values in quadrature)
    p = torch.lerp(before, after, nodes).softmax(-1)
    chosen = weights * (p * target).sum(-1, keepdim=True)
    return (chosen * (target - p)).sum(0)


def complete_attribution(
    maps: Tensor, values: Tensor, gradient_evaluations: Tensor, output: Output, dtype: torch.dtype
) -> Attribution:
    """The attribution of maps (B, C, H, W) that are sums of secants, with f at their edges (B, n + 1).

    `output` is what f is, `dtype` the type that the model computes in.
    Raises ValueError where a map's sum is off from f(x) − f(x′) by more than `INCOMPLETE` and `ROUNDING`
    allow, whatever the number of intervals.
    """
    f_baseline, f_input = values[:, 0], values[:, -1]
    change = f_input.double() - f_baseline.double()
    off = (maps.flatten(1).sum(1, dtype=torch.float64) - change).abs()
    rounding = max(ROUNDING, 32 * torch.finfo(dtype).eps)
    size = maps.abs().flatten(1).sum(1, dtype=torch.float64) + values.double().abs().amax(1)
    tolerance = INCOMPLETE * change.abs() + rounding * size
    if bool((off <= tolerance).all()):
        return Attribution(maps, f_input, f_baseline, gradient_evaluations, output, dtype)
    worst = int(torch.where(off <= tolerance, -torch.inf, off / tolerance).argmax())  # NaN is the worst
    raise ValueError(
        f"model: the Rescale rule's sums of image {worst} are off by {float(off[worst]):.2g} from the "
        f"output's change {float(change[worst]):.2g}, expected at most {float(tolerance[worst]):.2g}: "
        "the Rescale rule does not hold for one of its operations"
    )

"""Integrated Gradients without a Riemann sum, for piecewise-linear networks: the oracle of all others.

Along a straight line the logits of such a network are affine between breakpoints, where a unit passes
from one linear region to the next, and their gradient is constant there. The integral is then a finite
sum (Sotoudeh & Thakur, "Computing Linear Restrictions of Neural Networks", NeurIPS 2019).

The breakpoints are found by splitting: on a segment on which no unit of the earlier layers changes its
region, a layer's input is affine, so that its values at the two ends tell all its crossings exactly.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images, check_model, check_positive, check_targets
from riemannopt_dist.attribution import Attribution
from riemannopt_dist.differentiation import copy_of
from riemannopt_dist.estimators.passes import sums_along
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.objective import DEFAULT_INTERNAL_BATCH_SIZE, Index, Objective, logits_of, micro_batches
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import schedule_from_partition
from riemannopt_dist.quadrature.schedule import Array

AFFINE_LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.Sequential,  # an empty one, which gives what it gets
)
KINKED_LAYERS: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Hardtanh,  # and ReLU6, which is one
    nn.MaxPool2d,
)

MERGE = 1e-13
"""Breakpoints nearer to each other than this are one."""

TOUCH = 1e-13
"""A unit nearer to its kink than this share of its layer's largest value lies on the kink: rounding."""

AFFINE_TOLERANCE = 1e-9
"""By how much, relative to the largest logit, a segment's middle may differ from the mean of its ends."""


def exact_integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    baselines: Tensor | None = None,
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Integrated Gradients of the target's logit for images (B, C, H, W), exact up to float64's rounding.

    Σ over segments of (α_{i+1} − α_i) ∂f/∂γ · (x − x′), from `baselines` (black unless given), for class
    indices `targets` (B,). All is computed, and given, in float64 on a copy of the model, whatever its type.
    gradient_evaluations (B,) are the segments of each image, which grow with the units of the network:
    hundreds in a small one, millions in one for photographs. Where a unit lies on its kink all along a
    segment, its slope is what PyTorch takes it for.

    Raises ValueError for a network that is not piecewise linear, naming the layer if it is one, and for
    images and targets that do not fit.
    """
    check_images(images)
    path = StraightPath(images, torch.zeros_like(images) if baselines is None else baselines)
    check_targets(targets, images, model)
    network, line = _in_float64(model, path)
    objective = Objective(network, targets, "logit", internal_batch_size)
    results = []
    for row, inner in enumerate(_breakpoints(network, line, internal_batch_size)):
        schedule = schedule_from_partition(np.concatenate([[0.0], inner, [1.0]]), "midpoint")
        alone = StraightPath(line.images[[row]], line.baselines[[row]])
        results += sums_along(alone, objective.of([row]), [(RiemannSums, schedule)])
    return Attribution(
        torch.cat([result.maps for result in results]),
        torch.cat([result.f_input for result in results]),
        torch.cat([result.f_baseline for result in results]),
        torch.cat([result.gradient_evaluations for result in results]),
        output="logit",
    )


def breakpoints(
    model: nn.Module,
    path: StraightPath,
    *,
    internal_batch_size: int = DEFAULT_INTERNAL_BATCH_SIZE,
) -> list[Array]:
    """The positions in (0, 1), in order, where a unit changes its linear region: an array an image.

    Between them every logit is affine. Not every one bends a logit: later layers may be blind to the unit,
    and a max-pooling window whose maximum moves over three pixels adds the crossing of its first and last.
    No more than `internal_batch_size` inputs (two at least) are in the network at once.

    Raises ValueError for a network that is not piecewise linear, naming the layer if it is one.
    """
    return _breakpoints(*_in_float64(model, path), internal_batch_size)


def check_piecewise_linear(model: nn.Module) -> None:
    """Raise ValueError, naming it, if a layer of `model` is not known to be piecewise linear.

    Operations that are no layers of their own are not seen; `breakpoints` notices them by their effect.
    """
    for name, layer in model.named_modules():
        if not any(layer.children()) and not isinstance(layer, AFFINE_LAYERS + KINKED_LAYERS):
            raise ValueError(
                f"model: layer {name!r} ({type(layer).__name__}) is not known to be piecewise linear"
            )


def _in_float64(model: nn.Module, path: StraightPath) -> tuple[nn.Module, StraightPath]:
    check_model(model)
    check_piecewise_linear(model)
    return copy_of(model).double(), StraightPath(path.images.double(), path.baselines.double())


@dataclass(frozen=True)
class _Segments:
    """N pieces of the lines of some images: [starts, ends] (N,) of image `rows` (N,)."""

    rows: Index
    starts: Array
    ends: Array

    def __getitem__(self, part: slice | Index) -> "_Segments":
        return _Segments(self.rows[part], self.starts[part], self.ends[part])

    @classmethod
    def joined(cls, parts: list["_Segments"]) -> "_Segments":
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
        )

    def cut(self, owners: Index, alphas: Array) -> "_Segments":
        """The pieces of those segments that have cuts: segment owners[k] at alphas[k], which lies inside."""
        edge_owners = np.concatenate([np.unique(owners), owners])
        edges = np.concatenate([self.starts[np.unique(owners)], alphas])
        order = np.lexsort((edges, edge_owners))
        edge_owners, edges = edge_owners[order], edges[order]
        first = np.diff(edge_owners, prepend=-1) > 0
        apart = first | (np.diff(edges, prepend=0) > MERGE)
        edge_owners, edges, first = edge_owners[apart], edges[apart], first[apart]
        last = np.append(first, True)[1:]
        ends = np.where(last, self.ends[edge_owners], np.append(edges, 1.0)[1:])
        return _Segments(self.rows[edge_owners], edges, ends)


def _breakpoints(network: nn.Module, line: StraightPath, internal_batch_size: int) -> list[Array]:
    """`breakpoints` of a network and a line that are in float64."""
    check_positive(internal_batch_size, "internal_batch_size")
    images = len(line.images)
    device = line.images.device
    pending = _Segments(np.arange(images), np.zeros(images), np.ones(images))
    largest = torch.zeros(images, dtype=torch.float64, device=device)  # |logit| of each image so far
    affine: list[_Segments] = []
    while len(pending.rows):
        pieces = [pending[:0]]
        for part in micro_batches(len(pending.rows), max(internal_batch_size // 2, 1)):
            segments = pending[part]
            ends, owners, alphas = _crossings(network, line, segments)
            rows = torch.from_numpy(segments.rows).to(device)
            largest.scatter_reduce_(0, rows, ends.abs().amax((0, 2)), "amax")
            pieces.append(segments.cut(owners, alphas))
            whole = np.setdiff1d(np.arange(len(segments.rows)), owners)
            if len(whole):
                chosen = torch.from_numpy(whole).to(device)
                _check_affine(network, line, segments[whole], ends[:, chosen], largest[rows[chosen]])
                affine.append(segments[whole])
        pending = _Segments.joined(pieces)
    found = _Segments.joined(affine)
    return [np.sort(found.starts[found.rows == row])[1:] for row in range(images)]


def _crossings(network: nn.Module, line: StraightPath, segments: _Segments) -> tuple[Tensor, Index, Array]:
    """Logits at both ends of N segments (2, N, classes), and where to cut them: segment and α, (K,) each.

    A segment is cut at the crossings of the first layer that has any inside it.
    """
    watch = _Watch(*(torch.from_numpy(ends).to(line.images) for ends in (segments.starts, segments.ends)))
    with _watching(network, watch):
        logits = _logits(network, line, np.tile(segments.rows, 2), np.append(segments.starts, segments.ends))
    owners = [np.empty(0, dtype=np.int64), *(owner.cpu().numpy() for owner, _ in watch.cuts)]
    alphas = [np.empty(0), *(alpha.cpu().numpy() for _, alpha in watch.cuts)]
    return logits.reshape(2, len(segments.rows), -1), np.concatenate(owners), np.concatenate(alphas)


def _logits(network: nn.Module, line: StraightPath, rows: Index, alphas: Array) -> Tensor:
    device = line.images.device
    with torch.no_grad():
        inputs, _ = line.at(torch.from_numpy(rows).to(device), torch.from_numpy(alphas).to(device))
        return logits_of(network, inputs)


class _Watch:
    """Looks at the input of each kinked layer in the order of their calls, and notes where to cut.

    The batch holds the starts of N segments and then their ends, whose positions are `starts` and `ends`
    (N,). `cuts` are segments and positions, from the first layer with crossings in a segment alone: beyond
    it, the segment's values are not affine.
    """

    def __init__(self, starts: Tensor, ends: Tensor) -> None:
        self.starts = starts
        self.ends = ends
        self.whole = torch.ones_like(starts, dtype=torch.bool)
        self.cuts: list[tuple[Tensor, Tensor]] = []

    def __call__(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A forward pre-hook: before the layer, because it may work in place."""
        values: Tensor = arguments[0].reshape(2, len(self.starts), *arguments[0].shape[1:])
        touch = TOUCH * values.abs().flatten(2).amax((0, 2))[:, None]
        whole = self.whole.clone()
        for before, after in _differences(layer, *values):
            before, after = before.flatten(1), after.flatten(1)
            crossed = (before < -touch) & (after > touch) | (before > touch) & (after < -touch)
            owners, units = (crossed & self.whole[:, None]).nonzero(as_tuple=True)
            before, after = before[owners, units], after[owners, units]
            starts, ends = self.starts[owners], self.ends[owners]
            alphas = starts + (ends - starts) * (before / (before - after))
            inside = torch.minimum(alphas - starts, ends - alphas) > MERGE
            self.cuts.append((owners[inside], alphas[inside]))
            whole[owners[inside]] = False
        self.whole = whole


def _differences(layer: nn.Module, start: Tensor, end: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers (N, …), affine along a segment, that change their sign where a unit changes its region.

    `start` and `end` (N, …) are the layer's inputs at the ends of N segments, and so are the numbers given.
    """
    if isinstance(layer, nn.MaxPool2d):
        # A pixel that is the window's maximum at both ends is so between them; otherwise the segment is cut
        # where those of the two ends are equal, and its halves are looked at again.
        winners = [_max_pool_winners(layer, inputs).flatten(2) for inputs in (start, end)]
        first, last = ([inputs.flatten(2).gather(2, w) for w in winners] for inputs in (start, end))
        yield first[0] - first[1], last[0] - last[1]
    elif isinstance(layer, nn.Hardtanh):
        for kink in (layer.min_val, layer.max_val):
            yield start - kink, end - kink
    else:
        yield start, end


def _max_pool_winners(layer: nn.MaxPool2d, inputs: Tensor) -> Tensor:
    """The index, in its flattened channel, of the maximum of each window."""
    _, winners = nn.functional.max_pool2d(
        inputs,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        ceil_mode=layer.ceil_mode,
        return_indices=True,
    )
    return winners


@contextmanager
def _watching(network: nn.Module, watch: Callable[[nn.Module, tuple[Any, ...]], None]) -> Iterator[None]:
    """Let `watch` see each kinked layer and what it is called with."""
    layers = [layer for layer in network.modules() if isinstance(layer, KINKED_LAYERS)]
    handles = [layer.register_forward_pre_hook(watch) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_affine(
    network: nn.Module, line: StraightPath, segments: _Segments, ends: Tensor, largest: Tensor
) -> None:
    """Raise ValueError unless the logits in the middle of N segments are the means of `ends` (2, N, classes).

    `largest` (N,) is the size of the image's logits, which rounding is relative to.
    """
    positions = (segments.starts + segments.ends) / 2
    middles = _logits(network, line, segments.rows, positions)
    bend = (middles - ends.mean(0)).abs().amax(1)
    bent = ~(bend <= AFFINE_TOLERANCE * largest)
    if bool(bent.any()):
        worst = int(torch.where(bent, bend, -1.0).argmax())
        raise ValueError(
            f"model: its logits bend by {float(bend[worst]):.2g} near α = {positions[worst]:.3g} of image "
            f"{segments.rows[worst]}, where none of its layers does: it is not piecewise linear, or it calls "
            "a function such as torch.nn.functional.relu where a layer was expected"
        )

"""The pictures along a curve, in which a map's highest pixels are back: made and measured in threads."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.metrics.information.blurred_images import BlurredImages
from riemannopt_dist.metrics.information.content import Measured, measured
from riemannopt_dist.metrics.information.conventions import THRESHOLDS, Convention
from riemannopt_dist.metrics.information.interpolation import fill_by_pyramid, fill_by_triangles
from riemannopt_dist.metrics.information.pictures import Mask, Picture
from riemannopt_dist.metrics.insertion import pixel_ranks
from riemannopt_dist.objective import micro_batches
from riemannopt_dist.transfer import on_host

# Micro-batches of pictures in the making while the model looks at one.
LOOKAHEAD = 2

Chunk = tuple[Tensor, list[Future[Measured]]]
"""A micro-batch of pictures: the numbers of their images (N), and the N pictures."""


def end_chunks(
    pool: ThreadPoolExecutor, pictures: Picture, how: Convention, device: torch.device, size: int
) -> Iterator[Chunk]:
    """The B pictures as they are."""
    for part in micro_batches(len(pictures), size):
        rows = torch.arange(part.start, part.stop, device=device)
        yield rows, [pool.submit(measured, picture, how) for picture in pictures[part]]


def step_chunks(
    pool: ThreadPoolExecutor,
    blurred: BlurredImages,
    rows: list[int],
    saliency: Tensor,
    how: Convention,
    size: int,
) -> Iterator[Chunk]:
    """Every step of N maps, given by their images `rows` (N) and saliency (N, H, W), map by map."""
    levels, bounds = _reveal_order(saliency, how)
    device = saliency.device
    image_rows = torch.tensor(rows, device=device, dtype=torch.int64)
    shown, blurred_pictures, masks = (
        torch.from_numpy(array).to(device) for array in (blurred.shown, blurred.blurred, blurred.kept)
    )
    for part in micro_batches(bounds.numel(), size):
        job = torch.arange(part.start, part.stop, device=device)
        chosen, step = job // how.steps, job % how.steps
        image = image_rows[chosen]
        known = masks[image] | (levels[chosen] <= bounds[chosen, step, None, None])
        if how.filling == "triangles":
            places = np.array(rows)[np.arange(part.start, part.stop) // how.steps]
            masks_there, pairs = on_host(known), enumerate(blurred.shown[places])
            yield image, [pool.submit(_filled_and_measured, one, masks_there, n, how) for n, one in pairs]
            continue
        if how.filling == "pyramid":
            pictures = fill_by_pyramid(shown[image], known)
        else:
            pictures = torch.where(known[..., None], shown[image], blurred_pictures[image])
        there = on_host(pictures)
        yield image, [pool.submit(_measured_there, there, n, how) for n in range(len(pictures))]


def _reveal_order(saliency: Tensor, how: Convention) -> tuple[Tensor, Tensor]:
    """Levels (N, H, W) and bounds (N, T): step k reveals the pixels whose level is at most bound k."""
    pixels = saliency[0].numel() if len(saliency) else 1
    if how.filling != "blur":
        # The quantile lies between two saliencies; those of at least it are those of at least the upper one.
        # Rounding before the ceiling keeps a quantile that is itself a saliency from passing to the next.
        upper = [math.ceil(round((1 - threshold) * (pixels - 1), 6)) for threshold in THRESHOLDS]
        ascending = saliency.flatten(1).sort(dim=1).values
        return -saliency, -ascending[:, upper]
    counts = [pixels * step // (how.steps - 1) for step in range(how.steps)]
    bounds = torch.tensor(counts, device=saliency.device, dtype=torch.int32) - 1
    return pixel_ranks(saliency), bounds.expand(len(saliency), -1)


def _filled_and_measured(image: Picture, known: Callable[[], Mask], n: int, how: Convention) -> Measured:
    return measured(fill_by_triangles(image, known()[n]), how)


def _measured_there(pictures: Callable[[], Picture], n: int, how: Convention) -> Measured:
    return measured(pictures()[n], how)


def ahead(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same chunks, each handed out only when LOOKAHEAD more are in the making."""
    waiting: deque[Chunk] = deque()
    for chunk in chunks:
        waiting.append(chunk)
        if len(waiting) > LOOKAHEAD:
            yield waiting.popleft()
    yield from waiting

"""Images of a run as batches of tensors, read and decoded while the device computes the batch before."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from riemannopt_dist.images import (
    ImageReader,
    ImageRef,
    UnreadableImage,
    files_of,
    image_tensor,
)
from riemannopt_dist.models import Classifier
from riemannopt_dist.run.engine import Engine
from riemannopt_dist.run.shards import Location, location_of

THREADS = 4
"""Images of a worker that are read and decoded at a time."""


@dataclass(frozen=True)
class Subject:
    """An image to be explained: where it is, its label where it has one, and the class explained."""

    image: ImageRef
    target: int


def image_of(item: ImageRef | Subject) -> ImageRef:
    """The image of an item of a stage."""
    return item if isinstance(item, ImageRef) else item.image


def located(item: ImageRef | Subject) -> Location | None:
    """Where an item of a stage lies in a Parquet file, None if in none."""
    return location_of(vars(image_of(item)))


def read_tensor(ref: ImageRef, model: Classifier) -> Tensor:
    """One image as the model wants it: RGB in [0, 1], (3, H, W). Raises UnreadableImage."""
    with ImageReader(files_of(ref.uri), [ref]) as reader:
        return _prepared(reader, ref, model)


def image_batches(
    refs: Sequence[ImageRef], engine: Engine, batch_size: int, digests: dict[str, str | None] | None = None
) -> Iterator[tuple[Sequence[ImageRef], list[Tensor | UnreadableImage]]]:
    """Images in batches, in order: each as the model wants it, (3, H, W), or what is wrong with it.

    One batch is read ahead, on threads. Any other error is raised with the batch of the image that met it.
    `digests` is filled with those of the images, by id; None where one could not be read.
    """
    batches = [refs[start : start + batch_size] for start in range(0, len(refs), batch_size)]
    threads = ThreadPoolExecutor(min(THREADS, batch_size), "images")
    with nullcontext(engine.reader) if engine.reader else ImageReader(engine.files, refs) as reader:
        try:
            begun = (
                (batch, [threads.submit(_outcome, reader, ref, engine.model) for ref in batch])
                for batch in batches
            )
            ahead = next(begun, None)
            while ahead is not None:
                (batch, futures), ahead = ahead, next(begun, None)
                outcomes = [future.result() for future in futures]
                if digests is not None:
                    digests |= {ref.image_id: reader.digests.get(ref.image_id) for ref in batch}
                yield batch, outcomes
        finally:
            threads.shutdown(cancel_futures=True)


def subject_batches(
    subjects: Sequence[Subject], engine: Engine, batch_size: int
) -> Iterator[tuple[Sequence[Subject], Tensor, Tensor]]:
    """Subjects in batches with their images (B, 3, H, W) and targets (B,) on the device.

    Raises UnreadableImage with the batch of an image that cannot be read.
    """
    start = 0
    for refs, outcomes in image_batches([s.image for s in subjects], engine, batch_size):
        batch = subjects[start : start + len(refs)]
        start += len(refs)
        images = torch.stack([_tensor(outcome) for outcome in outcomes])
        targets = torch.tensor([subject.target for subject in batch])
        yield batch, images.to(engine.device), targets.to(engine.device)


def _outcome(reader: ImageReader, ref: ImageRef, model: Classifier) -> Tensor | UnreadableImage:
    try:
        return _prepared(reader, ref, model)
    except UnreadableImage as error:
        return UnreadableImage(str(error))  # anew: the other one's traceback holds on to the image


def _prepared(reader: ImageReader, ref: ImageRef, model: Classifier) -> Tensor:
    return image_tensor(reader.read(ref), model.input_size, model.resize_size)


def _tensor(outcome: Tensor | UnreadableImage) -> Tensor:
    if isinstance(outcome, UnreadableImage):
        raise outcome
    return outcome

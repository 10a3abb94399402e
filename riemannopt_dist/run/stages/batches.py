"""Images of a run as batches of tensors, read and decoded while the device computes the batch before."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import torch
from torch import Tensor

from riemannopt_dist.data.decoding import image_tensor
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.stages.engine import Engine

THREADS = 4
"""Images of a worker that are read and decoded at a time."""


def read_tensor(ref: ImageRef, model: Classifier) -> Tensor:
    """One image as the model wants it: in [0, 1], (C, H, W). Raises UnreadableImage."""
    with ImageReader(files_of(ref.uri), [ref]) as reader:
        return _prepared(reader, ref, model)


def image_batches(
    refs: Sequence[ImageRef], engine: Engine, batch_size: int, digests: dict[str, str | None] | None = None
) -> Iterator[tuple[Sequence[ImageRef], list[Tensor | UnreadableImage]]]:
    """Images in batches, in order: each as the model wants it, (C, H, W), or what is wrong with it.

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


def example_batches(
    examples: Sequence[Example], engine: Engine, batch_size: int
) -> Iterator[tuple[Sequence[Example], Tensor, Tensor]]:
    """Examples in batches with their images (B, C, H, W) and targets (B,) on the device.

    Raises UnreadableImage with the batch of an image that cannot be read.
    """
    start = 0
    for refs, outcomes in image_batches([s.image for s in examples], engine, batch_size):
        batch = examples[start : start + len(refs)]
        start += len(refs)
        images = torch.stack([_tensor(outcome) for outcome in outcomes])
        targets = torch.tensor([example.target for example in batch])
        yield batch, images.to(engine.device), targets.to(engine.device)


def _outcome(reader: ImageReader, ref: ImageRef, model: Classifier) -> Tensor | UnreadableImage:
    try:
        return _prepared(reader, ref, model)
    except UnreadableImage as error:
        return UnreadableImage(str(error))  # anew: the other one's traceback holds on to the image


def _prepared(reader: ImageReader, ref: ImageRef, model: Classifier) -> Tensor:
    return image_tensor(reader.read(ref), *model.framing)


def _tensor(outcome: Tensor | UnreadableImage) -> Tensor:
    if isinstance(outcome, UnreadableImage):
        raise outcome
    return outcome

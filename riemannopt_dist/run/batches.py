"""Images of a run as batches of tensors on the worker's device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from riemannopt_dist.images import ImageRef, UnreadableImage, decode_image, prepare_image, read_image
from riemannopt_dist.models import Classifier
from riemannopt_dist.run.tally import Tally


@dataclass(frozen=True)
class Subject:
    """An image to be explained: where it is, its label where it has one, and the class explained."""

    image: ImageRef
    target: int


def read_tensor(ref: ImageRef, model: Classifier) -> Tensor:
    """One image as the model wants it: RGB in [0, 1], (3, H, W). Raises UnreadableImage."""
    if ref.reason is not None:
        raise UnreadableImage(ref.reason)
    return prepare_image(decode_image(read_image(ref.uri)), model.input_size, model.resize_size)


def subject_batches(
    subjects: Sequence[Subject], model: Classifier, batch_size: int, device: torch.device, tally: Tally
) -> Iterator[tuple[Sequence[Subject], Tensor, Tensor]]:
    """Subjects in batches with their images (B, 3, H, W) and targets (B,) on the device."""
    for start in range(0, len(subjects), batch_size):
        batch = subjects[start : start + batch_size]
        with tally.decoding():
            images = torch.stack([read_tensor(subject.image, model) for subject in batch])
        targets = torch.tensor([subject.target for subject in batch])
        yield batch, images.to(device), targets.to(device)

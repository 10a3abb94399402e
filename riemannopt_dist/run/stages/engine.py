"""What a worker computes with, handed to every stage."""

from dataclasses import dataclass

import torch

from riemannopt_dist.data.files import Files
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.run.stages.tally import Tally


@dataclass(frozen=True)
class Engine:
    """The model on its device, the files that images are read from, and how many gradients are taken at once.

    `tally` is told of the time spent waiting for images. Where there is a `reader`, that reads them.
    """

    model: Classifier
    device: torch.device
    files: Files
    internal_batch_size: int
    tally: Tally
    reader: ImageReader | None = None

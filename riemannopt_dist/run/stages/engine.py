"""What a worker computes with, handed to every stage."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.data.files import Files
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import Objective
from riemannopt_dist.run.stages.tally import Tally


def _nothing(objective: Objective, images: Tensor) -> None:
    """Observe nothing."""


@dataclass(frozen=True)
class Engine:
    """The model on its device, the files that images are read from, and how many gradients are taken at once.

    `tally` is told of the time spent waiting for images. Where there is a `reader`, that reads them. `tables`
    takes what a stage makes beside its rows, by the name of its file: the tables of its batches. `observe` is
    shown what is explained, and the images of each batch of the evaluation, before their maps are made.
    """

    model: Classifier
    device: torch.device
    files: Files
    internal_batch_size: int
    tally: Tally
    reader: ImageReader | None = None
    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    observe: Callable[[Objective, Tensor], None] = _nothing

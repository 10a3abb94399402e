"""Photos that benchmarks look at."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from torch import Tensor

from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.run.stages.batches import read_tensor


def readable(refs: Iterable[ImageRef], model: Classifier, count: int) -> Iterator[Tensor]:
    """The first so many that can be read, (C, H, W) each, as the model takes them."""
    return islice(_readable(refs, model), count)


def _readable(refs: Iterable[ImageRef], model: Classifier) -> Iterator[Tensor]:
    for ref in refs:
        with suppress(UnreadableImage):
            yield read_tensor(ref, model)

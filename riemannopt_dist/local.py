"""Small work in this process, without Ray: fit a profile, explain images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import image_or_images, list_images
from riemannopt_dist.data.uri_list import source_files
from riemannopt_dist.estimators.base import LINEAR, suited_placement
from riemannopt_dist.estimators.converged import references, relative_distance
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.methods import attribute
from riemannopt_dist.metrics.completeness import relative_error
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import Objective, logits_of
from riemannopt_dist.paths.table import path_family
from riemannopt_dist.quadrature.profile import Profile, Variations, equispaced
from riemannopt_dist.quadrature.rules import linear_partition, linear_schedule
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.quadrature.variation import path_variation
from riemannopt_dist.reports.explanation import Explanation
from riemannopt_dist.run.classes import class_names, target_index
from riemannopt_dist.run.memory import CPU_BATCH, measured_batch_size
from riemannopt_dist.run.progress import meter
from riemannopt_dist.run.stages.batches import image_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.select import likeliest
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.storage.redaction import without_secrets

TOP = 5
"""Classes that an explanation names."""


def fit_profile(model: Classifier, source: str, count: int, samples: int, path: str = "ig") -> Profile:
    """The profile of a path over the first `count` readable images of `source`.

    The class explained is the predicted one. Raises ValueError where there is no such path or no image.
    """
    device = _device()
    model, family = model.to(device), path_family(path)
    refs = list_images(source)
    engine = Engine(model, device, source_files(source), CPU_BATCH, Tally())
    alphas = equispaced(samples)
    variations: list[Array] = []
    with meter("fit", min(count, len(refs))) as progress:
        for (ref,), (image,) in image_batches(refs, engine, 1):
            if len(variations) == count:
                break
            if isinstance(image, UnreadableImage):
                continue
            images = image[None].to(device)
            targets = logits_of(model, images).argmax(dim=1)
            variation = path_variation(family.through(images), Objective(model, targets), alphas)
            if not np.isfinite(variation).all():
                raise ValueError(f"{ref.image_id}: the gradients along its path are not finite")
            variations.append(variation)
            progress.advance(1)
    if not variations:
        raise ValueError(f"{without_secrets(source)}: none of its {len(refs)} files is a readable image")
    return Variations(alphas, np.concatenate(variations)).profile()


@dataclass(frozen=True)
class Choice:
    """How maps are made; the arguments of `attribute`.

    Without a `placement`, samples are placed as suits the estimator best where there is a `profile`, and
    linearly where there is none. With `converged`, a number of intervals, the map that this
    one tends to is computed besides.
    """

    path: str = "ig"
    estimator: str = "trapezoid"
    placement: str | None = None
    samples: int = 64
    tolerance: float | None = None
    profile: Profile | None = None
    converged: int | None = None

    def __post_init__(self) -> None:
        if self.converged is not None and self.converged % 2:
            raise ValueError(f"converged: expected an even number of intervals, got {self.converged}")

    @property
    def placed(self) -> str:
        """The placement."""
        if self.placement is not None:
            return self.placement
        return LINEAR if self.profile is None else suited_placement(ESTIMATORS[self.estimator])

    @property
    def words(self) -> str:
        """What the maps are called."""
        within = "" if self.tolerance is None else f" to {self.tolerance:g}"
        return f"{self.path}, {self.samples} {self.placed} {self.estimator} samples{within}"


def explain(
    model: Classifier, sources: Sequence[str], targets: Sequence[str], choice: Choice
) -> Iterator[Explanation]:
    """An explanation of each image of `sources`, files and folders, in order.

    `targets` are indices or names of classes, of which each image's likeliest is explained; the predicted
    class without any. One image is in memory at a time. Raises ValueError where there is no such class, for
    an image that cannot be read, by its name, and for a map that is not finite.
    """
    device = _device()
    model = model.to(device)
    at_once = measured_batch_size(model, device, "auto")
    listed = [(source, image_or_images(source)) for source in sources]
    with meter("explain", sum(len(refs) for _, refs in listed)) as progress:
        for source, refs in listed:
            engine = Engine(model, device, source_files(source), at_once, Tally())
            for (ref,), (image,) in image_batches(refs, engine, 1):
                if isinstance(image, UnreadableImage):
                    raise ValueError(f"{without_secrets(ref.uri)}: {image}")
                yield _explained(ref, image[None].to(device), engine, targets, choice)
                progress.advance(1)


def _explained(
    ref: ImageRef, images: Tensor, engine: Engine, classes: Sequence[str], choice: Choice
) -> Explanation:
    logits = logits_of(engine.model, images)[0]
    names = class_names(engine.model, len(logits))
    indices = [target_index(one, names, len(logits)) for one in classes] or range(len(logits))
    targets = likeliest(logits[None], indices)
    explained = int(targets)
    result = attribute(
        engine.model,
        images,
        targets,
        path=choice.path,
        estimator=choice.estimator,
        placement=choice.placed,
        samples=choice.samples,
        tolerance=choice.tolerance,
        profile=choice.profile,
        internal_batch_size=engine.internal_batch_size,
    )
    if not all(bool(values.isfinite().all()) for values in (result.maps, result.f_input, result.f_baseline)):
        raise ValueError(
            f"{without_secrets(ref.uri)}: its map is not finite, or the output at an end of its path"
        )
    objective = Objective(engine.model, targets, internal_batch_size=engine.internal_batch_size)
    converged = _converged(objective, images, choice)
    error = None if converged is None else float(relative_distance(result.maps, converged))
    probabilities = logits.double().softmax(0)
    top = probabilities.topk(min(TOP, len(logits))).indices.tolist()
    return Explanation(
        ref.image_id,
        images[0].expand(3, -1, -1).permute(1, 2, 0).double().cpu().numpy(),
        result.maps[0].double().cpu().numpy(),
        _name(explained, names),
        float(probabilities[explained]),
        tuple((_name(index, names), float(probabilities[index])) for index in top),
        choice.words,
        float(relative_error(result)),
        None if converged is None else converged[0].double().cpu().numpy(),
        error,
    )


def _converged(objective: Objective, images: Tensor, choice: Choice) -> Tensor | None:
    """The map that the choice's tends to, (1, C, H, W); along a walk that of as many equal steps."""
    if choice.converged is None:
        return None
    schedule = linear_schedule(choice.samples, "left")
    edges = linear_partition(choice.converged)
    (reference,) = references(path_family(choice.path).through(images), objective, [schedule], edges)
    return reference.maps


def _name(index: int, names: Sequence[str] | None) -> str:
    return f"class {index}" if names is None else names[index]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

"""How fast a device is at what a run needs: gradients, forward passes, and each kind of map's gradients."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from riemannopt_dist.estimators.base import LINEAR, Placed, attribute_together, cost_together
from riemannopt_dist.estimators.converged import references
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.folding import channels_last, folded
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.weights import RANDOM
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import PathFamily, paths_an_image
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_partition, linear_schedule
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.grid import Cell, place_per_image
from riemannopt_dist.run.memory import measured_batch_size

PASSES_A_GRADIENT = 3.0
"""Forward passes in the time of one gradient, where a rate of gradients alone is given."""
MEASURED_BATCH = 8
MEASURED_SECONDS = 1.0
IMAGES = {"cpu": 2, "cuda": 64}
"""Images, at most, whose maps are measured at once."""
SAMPLES = {"cpu": 16, "cuda": 32}
SHARING = "left"
"""Stands in for all estimators that share samples."""
FLAT = Profile((0.0, 0.5, 1.0), (1.0,) * 3, (0.0,) * 3, images=1, roughness=(1.0,) * 3, medians=(1.0,) * 3)
"""Stands in for a profile."""


@dataclass(frozen=True)
class Kind:
    """Gradients along a path that take alike: an estimator's own, those that cells share, or converged ones.

    Those of a guided walk, for example, wait for each other and are their path's kind. `estimator` is None of
    all but its own.
    """

    path: str
    estimator: str | None = None
    placement: str = LINEAR
    converged: bool = False


def shared_samples(path: str) -> Kind:
    """The kind of the samples that a path's cells share."""
    return Kind(path)


def own_samples(cell: Cell) -> Kind:
    """The kind of what a cell takes for itself alone, however many samples, wherever a profile has them."""
    return Kind(cell.path, cell.estimator, cell.placement if cell.per_image else LINEAR)


def converged_samples(path: str) -> Kind:
    """The kind of what a path's converged maps take."""
    return Kind(path, converged=True)


@dataclass(frozen=True)
class Speed:
    """Gradients and forward passes of single images in a second on one device, and where that comes from.

    `seconds` are those of a gradient of the kinds that were measured, all that belongs to it included.
    """

    gradients: float
    passes: float
    source: str
    seconds: Mapping[Kind, float] = field(default_factory=dict)

    def seconds_of(self, kind: Kind | None, gradients: int, passes: int) -> float:
        """What so many gradients of one kind take, and forward passes beside them."""
        a_gradient = 1 / self.gradients if kind is None else self.seconds.get(kind, 1 / self.gradients)
        return gradients * a_gradient + passes / self.passes


def assumed_speed(gradients_per_second: float) -> Speed:
    """A given rate of gradients; forward passes are taken to be three times as fast."""
    if not 0 < gradients_per_second < math.inf:
        raise ValueError(f"rate: expected finite gradients/s above 0, got {gradients_per_second!r}")
    passes = PASSES_A_GRADIENT * gradients_per_second
    return Speed(gradients_per_second, passes, "as given; a gradient is taken for three forward passes")


def measure_speed(config: Config, kinds: Iterable[Kind] = ()) -> Speed:
    """The speed of this machine's device, with as many threads as a worker has.

    From a second of gradients, of forward passes and of each kind of map, or one call if that takes longer.
    Weights are random, which are as fast.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = channels_last(folded(load_model(config.model.name, RANDOM, **config.model.settings))).to(device)
    size = measured_batch_size(model, device, config.internal_batch_size)
    batch = min(size, MEASURED_BATCH) if device.type == "cpu" else size
    with _threads(config.scaling.cpus_per_worker):
        images, objective = _noise(model, batch, config)
        gradients = batch / _seconds(lambda: objective.gradients(images)[0])
        scores = replace(objective, precision=config.precision.scores)
        passes = batch / _seconds(lambda: scores.values(images))
        few = min(config.batch_size, config.shard_size, IMAGES[device.type])
        images, objective = _noise(model, few, config)
        objective = replace(objective, internal_batch_size=size)
        seconds = {kind: _seconds_a_gradient(kind, config, objective, images) for kind in set(kinds)}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    source = f"measured on this machine's {name} with random weights, {batch} images at once"
    return Speed(gradients, passes, source, seconds)


def _noise(model: Classifier, batch: int, config: Config) -> tuple[Tensor, Objective]:
    """Random images, and what is explained of them."""
    images = torch.rand(batch, *model.input_shape, device=model.mean.device)
    targets = torch.zeros(batch, dtype=torch.int64, device=images.device)
    return images, Objective(model, targets, config.explain, batch, config.precision.maps)


def _seconds_a_gradient(kind: Kind, config: Config, objective: Objective, images: Tensor) -> float:
    """What a gradient of one kind takes."""
    path, samples = config.paths()[kind.path], SAMPLES[images.device.type]
    if kind.converged:
        return _converged_seconds(path, samples, objective, images)
    estimator = ESTIMATORS[kind.estimator or SHARING]
    cell, rule = Cell(path.label, estimator.name, kind.placement, samples), estimator.rule(path)
    place = Placed(samples, linear_schedule(samples, rule))
    if cell.per_image:
        place = place_per_image(cell, rule, FLAT)
    cost = cost_together(path, [(estimator, place)], config.explain, objective.internal_batch_size)
    seconds = _seconds(
        lambda: attribute_together(objective, path.through(images), [(estimator, place)])[0].maps
    )
    return seconds / (len(images) * cost.gradients)


def _converged_seconds(path: PathFamily, samples: int, objective: Objective, images: Tensor) -> float:
    """What a gradient of converged maps takes."""
    schedules, edges = [linear_schedule(samples // 4)], linear_partition(samples)
    gradients = paths_an_image(path) * path.reference_gradients(schedules, samples)
    seconds = _seconds(lambda: references(path.through(images), objective, schedules, edges)[0].maps)
    return seconds / (len(images) * gradients)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads on a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(work: Callable[[], Tensor]) -> float:
    """What `work` takes: a first time that is longer than a second, or the mean of more over one."""
    start, times = time.perf_counter(), 0
    work().cpu()  # waits for the device
    if (first := time.perf_counter() - start) > MEASURED_SECONDS:
        return first
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < MEASURED_SECONDS:
        work().cpu()
        times += 1
    return spent / times

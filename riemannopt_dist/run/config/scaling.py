"""The workers that a run may use, and how long it waits for what."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import PositiveInt, Share
from riemannopt_dist.storage.errors import PATIENCE

STEP = 0.0001
"""The smallest share of a GPU that Ray tells from another."""


def _of_gpus(gpus: float) -> float:
    """GPUs that Ray can give a worker: whole ones, or a share of one."""
    parts = gpus if gpus >= 1 else gpus / STEP
    if abs(parts - round(parts)) > 1e-6:
        raise ValueError(f"expected a whole number, or a share of a GPU in steps of {STEP:g}, got {gpus:g}")
    return gpus


class ScalingConfig(Strict):
    """What a run may use. None of it changes a result, so a run may be resumed with another.

    There are as many workers as the cluster has room for, which is looked up again all along: at most
    `max_workers`, and at least `min_workers`, for which room is asked where there is none, so that an
    autoscaler adds nodes.

    A storage that does not answer is waited for, `patience` seconds at most. Images that it does not give
    then are given up on until the command is repeated, as those that fail are. With more than a share
    `max_given_up` of a stage's images given up on, a run is no success.
    """

    min_workers: PositiveInt = 1
    max_workers: PositiveInt | None = None
    cpus_per_worker: PositiveInt = 1
    gpus_per_worker: Annotated[float, Field(ge=0), AfterValidator(_of_gpus)] | None = None
    attempts: PositiveInt = 3
    time_limit: Annotated[float, Field(gt=0)] = 3600.0
    patience: Annotated[float, Field(gt=0)] = PATIENCE
    max_given_up: Share = 0.01

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise ValueError(f"max_workers: expected at least min_workers = {self.min_workers}")
        return self

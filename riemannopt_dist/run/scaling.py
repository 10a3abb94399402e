"""How many workers a run has, by what there is and what each one takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from riemannopt_dist.run.config.scaling import ScalingConfig


@dataclass(frozen=True)
class Scaling:
    """How many workers there may be, and what each one takes."""

    workers: int
    cpus: int
    gpus: float


def scaling_in(resources: Mapping[str, float], config: ScalingConfig) -> Scaling:
    """One worker a GPU where there is any, else one for every `cpus_per_worker` CPUs."""
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    room = math.floor(
        resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / config.cpus_per_worker
    )
    workers = max(config.min_workers, min(room, config.max_workers or room))
    return Scaling(workers, config.cpus_per_worker, gpus)

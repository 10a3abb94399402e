"""How many workers a run has, by what there is and what each one takes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from riemannopt_dist.run.config.scaling import STEP, ScalingConfig

Node = Mapping[str, float]
"""What a machine has, by Ray's names: CPU and GPU."""


@dataclass(frozen=True)
class Scaling:
    """How many workers there may be, and what each one takes."""

    workers: int
    cpus: int
    gpus: float

    @property
    def kind(self) -> str:
        """What is scarce."""
        return "GPU" if self.gpus else "CPU"

    def room_in(self, nodes: Sequence[Node]) -> int:
        """How many such workers there is room for: each is on one node, and shares no more than one GPU."""
        return int(sum(min(self._by_cpus(node), self._by_gpus(node)) for node in nodes))

    def needs(self) -> str:
        """What a worker takes, in words."""
        return _counted(self.cpus, "CPU") + (f" and {_counted(self.gpus, 'GPU')}" if self.gpus else "")

    def _by_cpus(self, node: Node) -> float:
        return node.get("CPU", 0.0) // self.cpus

    def _by_gpus(self, node: Node) -> float:
        if not self.gpus:
            return math.inf
        there = math.floor(node.get("GPU", 0.0))
        return there // self.gpus if self.gpus >= 1 else there * (round(1 / STEP) // round(self.gpus / STEP))


def scaling_in(nodes: Sequence[Node], config: ScalingConfig) -> Scaling:
    """One worker a GPU where there is any, else one for every `cpus_per_worker` CPUs of a node."""
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    one = Scaling(1, config.cpus_per_worker, gpus)
    room = one.room_in(nodes)
    return replace(one, workers=max(config.min_workers, min(room, config.max_workers or room)))


def _counted(number: float, kind: str) -> str:
    return f"{number:g} {kind}" if number == 1 else f"{number:g} {kind}s"

"""How many workers a cluster has room for, and what becomes of that as its nodes come and go."""

from pathlib import Path
from typing import Any

import pytest
import ray

from riemannopt_dist.run.config.scaling import ScalingConfig
from riemannopt_dist.run.ray.driver import find_scaling, scaling_now
from riemannopt_dist.run.ray.stage_run import scarcity
from riemannopt_dist.run.scaling import Scaling
from riemannopt_dist.testing.small_world import small_config


def node(cpus: float, gpus: float = 0.0, *, alive: bool = True) -> dict[str, Any]:
    """A machine, as Ray tells of it: of what there is none nothing is told."""
    resources = {"CPU": cpus, "GPU": gpus, "memory": 1e9}
    return {"Alive": alive, "Resources": {name: number for name, number in resources.items() if number}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes that Ray says there are, to be changed."""
    nodes = [node(0), node(20, 1), node(20, 1), node(96, 8, alive=False)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 3.0})
    return nodes


def test_a_worker_takes_a_gpu_where_there_are_any(cluster: list[dict[str, Any]]) -> None:
    assert find_scaling(ScalingConfig()) == Scaling(workers=2, cpus=1, gpus=1.0)
    assert find_scaling(ScalingConfig(gpus_per_worker=0.5)) == Scaling(workers=4, cpus=1, gpus=0.5)
    assert find_scaling(ScalingConfig(gpus_per_worker=0, cpus_per_worker=8)) == Scaling(
        workers=4, cpus=8, gpus=0.0
    )
    assert find_scaling(ScalingConfig(min_workers=3)).workers == 3
    assert find_scaling(ScalingConfig(max_workers=1)).workers == 1


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "workers"),
    [
        ([node(8, 1)] * 4, 1, 0.4, 8),  # two a GPU, and a fifth of each is left
        ([node(8, 4)], 1, 0.4, 8),
        ([node(16, 1)], 1, 0.1, 10),
        ([node(8, 3)] * 2, 1, 2, 2),
        ([node(4)] * 16, 3, None, 16),
        ([node(4, 1)] * 16, 8, None, 1),  # which waits
        ([node(1, 8)], 1, None, 1),
    ],
)
def test_a_worker_is_on_one_node_and_shares_one_gpu(
    cluster: list[dict[str, Any]], nodes: list[dict[str, Any]], cpus: int, gpus: float | None, workers: int
) -> None:
    cluster[:] = nodes
    config = ScalingConfig(cpus_per_worker=cpus, gpus_per_worker=gpus)
    assert find_scaling(config).workers == workers


def test_workers_with_gpus_wait_for_gpus_when_the_last_is_gone(cluster: list[dict[str, Any]]) -> None:
    config = ScalingConfig()
    scaling = find_scaling(config)
    cluster[:] = [node(32)]
    assert scaling_now(scaling, config) == Scaling(workers=1, cpus=1, gpus=1.0)
    cluster.append(node(8, 5))
    assert scaling_now(scaling, config) == Scaling(workers=5, cpus=1, gpus=1.0)


def test_workers_without_gpus_do_not_change_when_gpus_come(cluster: list[dict[str, Any]]) -> None:
    cluster[:] = [node(40)]
    config = ScalingConfig()
    scaling = find_scaling(config)
    cluster[:] = [node(40, 2)]
    assert scaling_now(scaling, config) == scaling == Scaling(workers=40, cpus=1, gpus=0.0)


def test_it_says_why_there_is_no_worker(cluster: list[dict[str, Any]]) -> None:
    assert scarcity(Scaling(1, 1, 1.0)).startswith("0 of 2 GPUs are free. Another run on this cluster may ")
    assert scarcity(Scaling(1, 8, 0.0)).startswith("3 of 40 CPUs are free. Another run on this cluster may ")
    assert scarcity(Scaling(1, 24, 1.0)).startswith(
        "no node has 24 CPUs and 1 GPU, which each takes: unless "
    )
    assert scarcity(Scaling(1, 24, 0.0)).startswith("no node has 24 CPUs, which each takes: unless ")
    cluster[:] = [node(4)]
    assert scarcity(Scaling(1, 1, 0.4)).startswith("there are no GPUs yet, of which each takes some; ")


@pytest.mark.parametrize("gpus", [None, 0.0, 0.0001, 0.3, 0.5, 1.0, 4.0])
def test_gpus_that_ray_can_give(gpus: float | None, tmp_path: Path) -> None:
    config = small_config(tmp_path, tmp_path, scaling={"gpus_per_worker": gpus})
    assert config.scaling.gpus_per_worker == gpus


@pytest.mark.parametrize("gpus", [0.00001, 0.33333, 1.5])
def test_gpus_that_it_cannot_give_are_refused(gpus: float, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"scaling\.gpus_per_worker: expected a whole .* 0.0001, got {gpus:g}$"
    ):
        small_config(tmp_path, tmp_path, scaling={"gpus_per_worker": gpus})

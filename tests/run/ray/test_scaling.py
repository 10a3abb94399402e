"""How many workers a cluster has room for, and what becomes of that as its nodes come and go."""

import pytest
import ray

from riemannopt_dist.run.config.scaling import ScalingConfig
from riemannopt_dist.run.ray.driver import find_scaling, scaling_now
from riemannopt_dist.run.scaling import Scaling


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What Ray says that there is, to be changed."""
    resources = {"CPU": 40.0, "GPU": 2.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    return resources


def test_a_worker_takes_a_gpu_where_there_are_any(cluster: dict[str, float]) -> None:
    assert find_scaling(ScalingConfig()) == Scaling(workers=2, cpus=1, gpus=1.0)
    assert find_scaling(ScalingConfig(gpus_per_worker=0.5)) == Scaling(workers=4, cpus=1, gpus=0.5)
    assert find_scaling(ScalingConfig(gpus_per_worker=0, cpus_per_worker=8)) == Scaling(
        workers=5, cpus=8, gpus=0.0
    )
    assert find_scaling(ScalingConfig(min_workers=3)).workers == 3
    assert find_scaling(ScalingConfig(max_workers=1)).workers == 1


def test_workers_with_gpus_wait_for_gpus_when_the_last_is_gone(cluster: dict[str, float]) -> None:
    config = ScalingConfig()
    scaling = find_scaling(config)
    cluster |= {"GPU": 0.0, "CPU": 32.0}
    assert scaling_now(scaling, config) == Scaling(workers=1, cpus=1, gpus=1.0)
    cluster["GPU"] = 5.0
    assert scaling_now(scaling, config) == Scaling(workers=5, cpus=1, gpus=1.0)


def test_workers_without_gpus_do_not_change_when_gpus_come(cluster: dict[str, float]) -> None:
    del cluster["GPU"]
    config = ScalingConfig()
    scaling = find_scaling(config)
    cluster["GPU"] = 2.0
    assert scaling_now(scaling, config) == scaling == Scaling(workers=40, cpus=1, gpus=0.0)

"""Kill workers, nodes and drivers at random during one run, and count what is lost, doubled or done again.

A Ray cluster of several nodes on this machine, with fake GPUs and a small classifier. The run is started
again after each death of its driver. Its rows are compared with those of a run that nobody disturbs.

    python -m benchmarks.chaos [--kills 36] [--nodes 3] [--seed 0]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from ray.cluster_utils import Cluster

from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.storage import Storage
from riemannopt_dist.run.verification import problems
from tests.small_world import FIT, make_pictures, small_fields

SHARD = 3
DETECTION = {  # a dead node is noticed within two seconds
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
KINDS = ("worker", "node", "driver")
PATIENCE = 240.0
"""Seconds without a finished shard after which the run counts as stuck."""


@dataclass(frozen=True)
class Outcome:
    """What a disturbed run came to. `work`: images shown to the model, over those of the undisturbed run."""

    kills: Counter[str]
    shards: int
    problems: list[str]
    failures: int
    equal: bool
    work: float
    allowed: float
    seconds: float

    @property
    def repeated_a_kill(self) -> float:
        """Share of the whole work done again for each kill, beyond the shards in flight."""
        return max(0.0, self.work - 1 - self.allowed) / max(1, self.kills.total())


def disturbed_run(folder: Path, *, kills: int, nodes: int, pictures: int, seed: int) -> Outcome:
    """Run twice under `folder`, undisturbed and with `kills` deaths, and compare.

    Raises RuntimeError where the disturbed run gets stuck or ends before the last kill.
    """
    images = make_pictures(folder / "pictures", pictures)
    plain = _Run(folder / "plain", images, {})
    if plain.start().wait():
        raise RuntimeError("the undisturbed run failed")
    start = time.monotonic()
    os.environ |= DETECTION | {"COUNTED_IMAGES": str(folder / "disturbed.count")}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, num_gpus=1)
        run = _Run(folder / "disturbed", images, {"RAY_ADDRESS": cluster.address})
        done = _disturb(run, cluster, kills, random.Random(seed))
    finally:
        cluster.shutdown()
    directory = RunDirectory(Storage(run.output))
    shards = -(-(pictures - FIT) // SHARD)
    in_flight = done["worker"] + done["node"] + nodes * done["driver"]
    return Outcome(
        kills=done,
        shards=shards,
        problems=list(problems(directory)),
        failures=len(directory.read_failures()),
        equal=run.rows() == plain.rows(),
        work=run.counted() / plain.counted(),
        allowed=in_flight / shards,
        seconds=time.monotonic() - start,
    )


class _Run:
    """One run directory, and the means to start its driver."""

    def __init__(self, output: Path, images: Path, environment: dict[str, str]) -> None:
        self.output = output
        self._count = output.with_suffix(".count")
        self._config = output.with_suffix(".yaml")
        self._log = output.with_suffix(".log")
        self._environment = {
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "COUNTED_IMAGES": str(self._count),
            "PYTHONPATH": str(Path.cwd()),
            **environment,
        }
        means = {"gpus_per_worker": 1 if environment else 0, "max_workers": 8}
        fields = small_fields(images, output, means=means)
        fields["model"] = {"name": "tests.small_world:counted_classifier"}
        self._config.write_text(json.dumps(fields))

    def start(self) -> "subprocess.Popen[bytes]":
        """A driver of its own process."""
        command = [sys.executable, "jobs/evaluate.py", "--config", str(self._config)]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def finished_shards(self) -> int:
        """Shards of all stages on disk."""
        return len(list(self.output.glob("*/[!.]*.parquet")))

    def counted(self) -> int:
        """Images shown to the model."""
        return self._count.stat().st_size

    def rows(self) -> list[dict[str, Any]]:
        """All result rows, but for their times, in a fixed order."""
        table = ds.dataset(self.output / "results").to_table().drop_columns(["seconds"])
        return sorted(table.to_pylist(), key=str)


def _disturb(run: _Run, cluster: Cluster, kills: int, rng: random.Random) -> Counter[str]:
    """Keep a driver going until it ends by itself; kill something now and then, each kind in turn."""
    driver = run.start()
    done: Counter[str] = Counter()
    # Every kind is as frequent, in random order.
    plan = [KINDS[n % len(KINDS)] for n in range(kills)]
    rng.shuffle(plan)
    finished, moved, pause = 0, time.monotonic(), rng.uniform(0.5, 4)
    while driver.poll() is None:
        time.sleep(0.1)
        now = time.monotonic()
        if now - moved > PATIENCE:
            raise RuntimeError(f"stuck with {finished} shards after {dict(done)}")
        if run.finished_shards() > finished and now - moved > pause:
            finished, moved, pause = run.finished_shards(), now, rng.uniform(0.5, 4)
            if done.total() < kills:
                kind = plan[done.total()]
                if kind == "driver":
                    driver.kill()
                    driver.wait()
                    driver = run.start()
                elif not (_kill_worker if kind == "worker" else _kill_node)(cluster, rng):
                    continue
                done[kind] += 1
    if driver.returncode or done.total() < kills:
        raise RuntimeError(f"the driver ended with {driver.returncode} after {dict(done)}")
    return done


def _kill_worker(cluster: Cluster, rng: random.Random) -> bool:
    """SIGKILL one of this cluster's actors; whether there was one."""
    raylets = {
        process.process.pid
        for node in cluster.list_all_nodes()
        for process in node.all_processes.get("raylet", [])
    }
    actors = [
        pid for pid, parent, name in _processes() if parent in raylets and name.startswith("ray::ShardWorker")
    ]
    if actors:
        os.kill(rng.choice(sorted(actors)), 9)
    return bool(actors)


def _kill_node(cluster: Cluster, rng: random.Random) -> bool:
    """Take one node away without notice, and add another."""
    cluster.remove_node(rng.choice(sorted(cluster.worker_nodes, key=str)), allow_graceful=False)
    cluster.add_node(num_cpus=1, num_gpus=1)
    return True


def _processes() -> list[tuple[int, int, str]]:
    """Process id, parent and command of every process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        found.append((int(entry.name), parent, name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=36)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = disturbed_run(Path(folder), **vars(options))
    print(f"{found.kills.total()} kills {dict(found.kills)} in {found.seconds:.0f} s, {found.shards} shards")
    print(f"rows lost, doubled or foreign: {len(found.problems)}; images given up on: {found.failures}")
    print(f"rows equal those of the undisturbed run: {found.equal}")
    print(
        f"work {found.work:.3f} of the undisturbed run's; {found.allowed:.3f} of it were shards in flight; "
        f"repeated beyond them for each kill: {found.repeated_a_kill:.4f}"
    )
    if found.problems or found.failures or not found.equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

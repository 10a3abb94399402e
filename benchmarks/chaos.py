"""Disturb one run at random in every way there is, and count what is lost, doubled, wrong or left out.

A Ray cluster of several nodes on this machine, with fake GPUs and a small classifier, and images in a bucket.
Workers, nodes and drivers are killed, drivers stopped and followed by others, some of them with a clock that
is wrong; the images are gone, denied or cut short for a while; files of the run are truncated, swapped,
deleted and copied, and single bits of them turned. The run is started again after each end of its driver. Its
rows are compared with those of a run that nobody disturbs.

    python -m benchmarks.chaos [--faults 45] [--nodes 3] [--seed 0]
"""

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from ray.cluster_utils import Cluster

from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.s3_server import Bucket, serving
from riemannopt_dist.testing.small_world import FIT, make_pictures, small_fields

SHARD = 3
DETECTION = {  # a dead node is noticed within two seconds
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
LEASE = 4.0
"""Seconds without a sign of life after which these drivers follow one that is stopped."""
OUTAGE = 2.5
"""Seconds for which images are out of reach."""
PATIENCE = 240.0
"""Seconds without a finished shard after which the run counts as stuck."""
ENDS = 3
"""How often the last driver may end at damage that it finds, until another one mends it."""

SKEW = 600.0
"""Seconds by which a wrong clock is early or late."""

DRIVER = f"""
import os, sys, time
right, skew = time.time, float(os.environ.get("CLOCK_SKEW", 0))
time.time = lambda: right() + skew
from riemannopt_dist.run import lock
lock.LEASE, lock.RENEWAL, lock.LOOK = {LEASE}, 0.5, 0.2
from riemannopt_dist.commands import app
app(["evaluate", *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Outcome:
    """What a disturbed run came to. `work`: images shown to the model, over those of the undisturbed run."""

    faults: Counter[str]
    shards: int
    problems: list[str]
    left_out: int
    lost: int
    doubled: int
    wrong: int
    silent: list[str]
    work: float
    allowed: float
    seconds: float

    @property
    def repeated_a_kill(self) -> float:
        """Share of the whole work done again for each death, beyond the shards in flight."""
        deaths = sum(self.faults[kind] for kind in ("worker", "node", "driver"))
        return max(0.0, self.work - 1 - self.allowed) / max(1, deaths)

    @property
    def bad(self) -> int:
        """Rows lost, doubled or wrong, images left out, faults that nobody told of."""
        rows = self.lost + self.doubled + self.wrong
        return rows + self.left_out + len(self.problems) + len(self.silent)


def disturbed_run(
    folder: Path, *, faults: int, nodes: int, pictures: int, seed: int, kinds: tuple[str, ...] = ()
) -> Outcome:
    """Run twice under `folder`, undisturbed and with `faults` of `kinds` (all by default), and compare.

    Raises RuntimeError where the disturbed run gets stuck or ends before the last fault.
    """
    images = make_pictures(folder / "pictures", pictures)
    plain = Disturbed(folder / "plain", str(images), {})
    if plain.start().wait():
        raise RuntimeError(f"the undisturbed run failed: {plain.last_words()}")
    start = time.monotonic()
    os.environ |= DETECTION | {"COUNTED_IMAGES": str(folder / "disturbed.count")}
    head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "dashboard_port": None}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        with serving() as bucket:
            for path in images.iterdir():
                bucket.put(f"pictures/{path.name}", path.read_bytes())
            bucket.faulty = "/bucket/pictures/"
            for _ in range(nodes):
                cluster.add_node(num_cpus=1, num_gpus=1)
            environment = {"RAY_ADDRESS": cluster.address}
            run = Disturbed(folder / "disturbed", bucket.uri("bucket/pictures"), environment)
            world = World(run, cluster, bucket, random.Random(seed))
            done = world.disturb(faults, kinds or tuple(FAULTS))
    finally:
        cluster.shutdown()
    shards = -(-(pictures - FIT) // SHARD)
    in_flight = done["worker"] + done["node"] + nodes * (done["driver"] + done["stop"] + done["skew"])
    again = sum(done[kind] for kind in ("truncate", "flip", "flip", "swap", "delete"))
    return _compared(run, plain, done, shards, (in_flight + again) / shards, time.monotonic() - start)


def _compared(
    run: "Disturbed", plain: "Disturbed", done: Counter[str], shards: int, allowed: float, seconds: float
) -> Outcome:
    directory = RunDirectory(Storage(run.output))
    found, expected = Counter(run.rows()), Counter(plain.rows())
    keys = {
        kind: Counter(row[0] for row in rows.elements()) for kind, rows in (("is", found), ("was", expected))
    }
    log = run.log.read_text(errors="replace")
    silent = [kind for kind in done if kind in TOLD and TOLD[kind] not in log]
    return Outcome(
        faults=done,
        shards=shards,
        problems=list(problems(directory)),
        left_out=len(directory.read_failures())
        + sum(row["error"] is not None for row in directory.read_images() or []),
        lost=(keys["was"] - keys["is"]).total(),
        doubled=(keys["is"] - keys["was"]).total(),
        wrong=(found - expected).total(),
        silent=silent,
        work=run.counted() / plain.counted(),
        allowed=allowed,
        seconds=seconds,
    )


class Disturbed:
    """One run directory, and the means to start its driver."""

    def __init__(self, output: Path, images: str, environment: dict[str, str]) -> None:
        self.output = output
        self.log = output.with_suffix(".log")
        self._count = output.with_suffix(".count")
        self._config = output.with_suffix(".yaml")
        self._environment = {
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "COUNTED_IMAGES": str(self._count),
            "PYTHONPATH": str(Path.cwd()),
            **environment,
        }
        # Rests of a second and a half.
        means = {"gpus_per_worker": 1 if environment else 0, "max_workers": 8, "patience": 60.0}
        fields = small_fields(Path(), output, scaling=means) | {"images": images}
        fields["model"] = {"name": "riemannopt_dist.testing.small_world:counted_classifier"}
        self._config.write_text(json.dumps(fields))

    def start(self, skew: float = 0.0) -> "subprocess.Popen[bytes]":
        """A driver of its own process, whose clock is off by `skew` seconds."""
        command = [sys.executable, "-c", DRIVER, "--config", str(self._config)]
        environment = self._environment | {"CLOCK_SKEW": str(skew)}
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def last_words(self) -> str:
        """The end of the drivers' log."""
        return self.log.read_text(errors="replace")[-2000:]

    def finished_shards(self) -> list[Path]:
        """Shards of all stages on disk."""
        return sorted(self.output.glob("*/[!.]*.parquet"))

    def results(self) -> list[Path]:
        """Shards of results on disk."""
        return [self.output / name for name in shard_files(Storage(self.output), "results").values()]

    def counted(self) -> int:
        """Images shown to the model."""
        return self._count.stat().st_size

    def rows(self) -> list[tuple[str, str]]:
        """The key of every result row, and all of it but for its times."""
        table = ds.dataset([str(path) for path in self.results()]).to_table().drop_columns(["seconds"])
        key = ("image_id", "path", "placement", "estimator", "samples")
        return [(str([row[name] for name in key]), str(row)) for row in table.to_pylist()]


@dataclass
class World:
    """A run with its cluster and the store of its images, and the driver that is at work."""

    run: Disturbed
    cluster: Cluster
    bucket: Bucket
    rng: random.Random
    driver: "subprocess.Popen[bytes]" = field(init=False)
    over: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    """What ends later: when, and how."""

    def disturb(self, faults: int, kinds: tuple[str, ...]) -> Counter[str]:
        """Keep a driver going until it ends by itself; something happens now and then, each kind in turn."""
        done: Counter[str] = Counter()
        plan = [kinds[n % len(kinds)] for n in range(faults)]
        self.rng.shuffle(plan)
        self.driver = self.run.start()
        # What was damaged last is found when the command is repeated.
        ends = 0 if {*kinds} & {"truncate", "flip", "swap", "copy", "delete"} else 1
        seen, moved, pause = 0, time.monotonic(), self.rng.uniform(0.5, 4)
        while True:
            time.sleep(0.1)
            now = time.monotonic()
            self._end_what_is_over(now)
            if self.driver.poll() is not None:
                if done.total() == faults and self.driver.returncode == 0 and not self.over and ends:
                    return done
                ends += self.driver.returncode == 0 or done.total() == faults
                if ends > ENDS:
                    told = f"{dict(done)}: {self.run.last_words()}"
                    raise RuntimeError(f"the driver ended with {self.driver.returncode} after {told}")
                self.driver = self.run.start()  # to mend what is damaged, and to change nothing else
                moved = now
            elif now - moved > PATIENCE:
                raise RuntimeError(f"stuck with {seen} shards after {dict(done)}: {self.run.last_words()}")
            elif (shards := len(self.run.finished_shards())) != seen and now - moved > pause:
                seen, moved, pause = shards, now, self.rng.uniform(0.5, 4)
                if done.total() < faults and not self.over and FAULTS[plan[done.total()]](self):
                    done[plan[done.total()]] += 1

    def _end_what_is_over(self, now: float) -> None:
        for end in [end for at, end in self.over if now >= at]:
            end()
        self.over = [(at, end) for at, end in self.over if now < at]

    def replace_driver(self, skew: float = 0.0) -> None:
        """Start another driver, which is the one that counts."""
        self.driver = self.run.start(skew)


def kill_worker(world: World) -> bool:
    """SIGKILL one of this cluster's actors; whether there was one."""
    raylets = {
        process.process.pid
        for node in world.cluster.list_all_nodes()
        for process in node.all_processes.get("raylet", [])
    }
    actors = [
        pid for pid, parent, name in _processes() if parent in raylets and name.startswith("ray::ShardWorker")
    ]
    if actors:
        os.kill(world.rng.choice(sorted(actors)), signal.SIGKILL)
    return bool(actors)


def kill_node(world: World) -> bool:
    """Take one node away without notice, and add another."""
    node = world.rng.choice(sorted(world.cluster.worker_nodes, key=str))
    world.cluster.remove_node(node, allow_graceful=False)
    world.cluster.add_node(num_cpus=1, num_gpus=1)
    return True


def kill_driver(world: World) -> bool:
    """SIGKILL the driver, and start the next."""
    world.driver.kill()
    world.driver.wait()
    world.replace_driver()
    return True


def skew_driver(world: World) -> bool:
    """Stop the driver until one whose clock is minutes off has followed it."""
    return stop_driver(world, world.rng.choice((-SKEW, SKEW)))


def stop_driver(world: World, skew: float = 0.0) -> bool:
    """Stop the driver until another has followed it; then it goes on, and must find out."""
    stopped = world.driver
    stopped.send_signal(signal.SIGSTOP)
    world.replace_driver(skew)

    def go_on() -> None:
        stopped.send_signal(signal.SIGCONT)
        if stopped.wait(timeout=120) == 0:
            raise RuntimeError("a driver that was followed ended as if nothing had been")

    world.over.append((time.monotonic() + LEASE + 12, go_on))
    return True


def out_of_reach(fault: str) -> Callable[[World], bool]:
    """For a while the images are gone, denied, or cut short."""

    def begin(world: World) -> bool:
        def end() -> None:
            world.bucket.fault = ""

        world.bucket.fault = fault
        world.over.append((time.monotonic() + OUTAGE, end))
        return True

    return begin


def damaged(change: Callable[[list[Path], random.Random], None]) -> Callable[[World], bool]:
    """Two shards of results are changed, and the driver killed, so that the next one meets that."""

    def do(world: World) -> bool:
        shards = world.run.results()
        if len(shards) < 2:
            return False
        change(world.rng.sample(shards, 2), world.rng)
        return kill_driver(world)

    return do


def truncate(shards: list[Path], rng: random.Random) -> None:
    content = shards[0].read_bytes()
    shards[0].write_bytes(content[: rng.choice((0, 4, len(content) // 2, len(content) - 1))])


def flip(shards: list[Path], rng: random.Random) -> None:
    """Turn one bit in each."""
    for shard in shards:
        content = bytearray(shard.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        shard.write_bytes(content)


def swap(shards: list[Path], rng: random.Random) -> None:
    shutil.copyfile(*shards)


def copy(shards: list[Path], rng: random.Random) -> None:
    folder = shards[0].parent
    for place in (
        folder / "old" / shards[0].name,
        folder / "shard-90000.parquet",
        folder / "shard-1 (1).parquet",
    ):
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(shards[0], place)


def delete(world: World) -> bool:
    """A file goes away under a driver that believes it has written it."""
    shards = world.run.results()
    if shards:
        world.rng.choice(shards).unlink()
    return bool(shards)


FAULTS: Mapping[str, Callable[[World], bool]] = {
    "worker": kill_worker,
    "node": kill_node,
    "driver": kill_driver,
    "stop": stop_driver,
    "skew": skew_driver,
    "away": out_of_reach("away"),
    "denied": out_of_reach("denied"),
    "cut": out_of_reach("cut"),
    "truncate": damaged(truncate),
    "flip": damaged(flip),
    "swap": damaged(swap),
    "copy": damaged(copy),
    "delete": delete,
}
TOLD = {
    "stop": "has taken this run over",
    "skew": "has taken this run over",
    "away": "no such file",
    "denied": "ACCESS_DENIED",
    "truncate": "not a Parquet file",
    "flip": "its digest is not that of its content",
    "swap": "is no image of this shard",
    "copy": "not a shard of this run",
}
"""What a log must say of a fault."""


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
    parser.add_argument("--faults", type=int, default=45)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    options: dict[str, Any] = vars(parser.parse_args())
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        found = disturbed_run(Path(folder), **options)
    print(
        f"{found.faults.total()} faults {dict(found.faults)} in {found.seconds:.0f} s, {found.shards} shards"
    )
    print(f"rows lost: {found.lost}, doubled: {found.doubled}, wrong: {found.wrong}")
    print(
        f"images left out: {found.left_out}; faults that no log tells of: {', '.join(found.silent) or 'none'}"
    )
    print(f"what verification finds: {len(found.problems)}")
    print(
        f"work {found.work:.3f} of the undisturbed run's; {found.allowed:.3f} of it were shards in flight or "
        f"damaged; repeated beyond them for each death: {found.repeated_a_kill:.4f}"
    )
    if found.bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

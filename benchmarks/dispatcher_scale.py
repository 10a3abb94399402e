"""What the dispatcher costs: driver time a task and the share of time that actors are busy.

By default on this machine's Ray, with actors that sleep. With --simulate, the bookkeeping alone, without Ray
and at any number of actors: --task-ms is then simulated time.

    python benchmarks/dispatcher_scale.py --actors 8 --tasks 400 --task-ms 200
    python benchmarks/dispatcher_scale.py --actors 1000 --tasks 100000 --task-ms 200 --simulate
"""

import argparse
import heapq
import os
import resource
import time
from collections.abc import Iterator

from riemannopt_dist.run.ray.dispatcher import dispatch
from riemannopt_dist.run.ray.pool import Pool
from riemannopt_dist.run.ray.task_tracker import Done, Task, TaskTracker


def tasks(count: int) -> Iterator[Task]:
    return (Task(f"shard-{number:06d}", (number,)) for number in range(count))


def simulate(actors: int, count: int, seconds: float) -> tuple[int, float, float]:
    """Tasks done, wall-clock seconds of the driver, and simulated seconds of the run."""
    start = time.perf_counter()
    tracker = TaskTracker(tasks(count), lookahead=actors, attempts=3, in_flight=2)
    ends: list[tuple[float, int]] = []
    running: set[int] = set()
    now, done = 0.0, 0
    for actor in range(actors):
        tracker.add_worker(actor)
    while not tracker.finished:
        for actor, _ in tracker.hand_out(now):
            if actor not in running:
                running.add(actor)
                heapq.heappush(ends, (now + seconds, actor))
        now, actor = heapq.heappop(ends)
        done += len(tracker.succeeded(actor, None, now))
        if tracker.head(actor) is None:
            running.remove(actor)
        else:
            heapq.heappush(ends, (now + seconds, actor))
    return done, time.perf_counter() - start, now


def measure(actors: int, count: int, seconds: float) -> tuple[int, float, float]:
    """Tasks done, CPU seconds of the driver, and seconds of the run, once all actors are up."""
    import ray

    class Sleeper:
        def process(self, key: str, items: tuple[int, ...]) -> dict[str, int]:
            time.sleep(seconds)
            return {}

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray writes a token file
    ray.init(num_cpus=actors, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    actor_class = ray.remote(num_cpus=1)(Sleeper)
    events = dispatch(tasks(count + 10 * actors), Pool(actor_class.remote, actors))
    warm_up = 10 * actors
    done = 0
    started = cpu = 0.0
    for event in events:
        done += isinstance(event, Done)
        if done == warm_up and not started:
            started, cpu = time.perf_counter(), time.process_time()
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    ray.shutdown()
    return done - warm_up, cpu, elapsed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--task-ms", type=float, default=200.0)
    parser.add_argument("--simulate", action="store_true", help="the bookkeeping alone, without Ray")
    arguments = parser.parse_args()
    run = simulate if arguments.simulate else measure
    seconds = arguments.task_ms / 1000
    done, driver, elapsed = run(arguments.actors, arguments.tasks, seconds)
    print(f"{done} tasks of {arguments.task_ms:g} ms on {arguments.actors} actors: {elapsed:.2f} s", end="")
    print(" (simulated)" if arguments.simulate else "")
    print(f"driver: {1000 * driver / done:.3f} ms a task")
    print(f"actors busy: {100 * done * seconds / (arguments.actors * elapsed):.1f} %")
    print(f"driver's peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()

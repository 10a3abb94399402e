"""A hundred thousand images through the whole system with a tiny model: is the driver's memory flat?

Selects, fits and evaluates on a local Ray. The driver's resident memory is sampled while results are written,
and compared with what it was after the first tenth of them. Its processor time a shard bounds what the
dispatcher costs.

    python -m benchmarks.soak [--images 100000] [--folder FOLDER]
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riemannopt_dist.run.ray.driver import evaluate, ray_session
from riemannopt_dist.run.verification import problems
from riemannopt_dist.testing.small_world import make_pictures, small_config

SHARD = 250
PAGE = 4096


@contextmanager
def sampled(results: Path) -> Iterator[list[tuple[int, int, float]]]:
    """Shards there, resident bytes and processor seconds of this process, twice a second."""
    found: list[tuple[int, int, float]] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.5):
            shards = len(list(results.glob("[!.]*.parquet"))) if results.is_dir() else 0
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found.append((shards, pages * PAGE, time.process_time()))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        output = Path(folder) / "run"
        pictures = make_pictures(Path(folder) / "pictures", options.images)
        config = small_config(
            pictures,
            output,
            grid=[{"placements": ["linear"], "estimators": ["left"], "samples": [2, 4]}],
            metrics=["completeness"],
            shard_size=SHARD,
            batch_size=SHARD,
            internal_batch_size=SHARD,
        )
        start = time.monotonic()
        with ray_session(), sampled(output / "results") as found:
            directory = evaluate(config)
        seconds = time.monotonic() - start
        wrong = list(problems(directory))
        shards = len(directory.done_shards("results"))
    late = [(memory, cpu) for done, memory, cpu in found if done >= shards / 10]
    base, largest = late[0][0], max(memory for memory, _ in late)
    print(f"{options.images} images, {shards} shards of results, {seconds:.0f} s; problems: {len(wrong)}")
    print(
        f"driver's memory: {base / 2**20:.0f} MiB after a tenth of the results, at most "
        f"{largest / 2**20:.0f} MiB later ({100 * (largest / base - 1):+.1f} %)"
    )
    print(f"driver's processor time: {1000 * (late[-1][1] - late[0][1]) / (0.9 * shards):.1f} ms a shard")


if __name__ == "__main__":
    main()

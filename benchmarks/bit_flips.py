"""Turn single bits of a result shard, one at a time, and count those that nobody notices.

Of each it is asked whether reading, `summarize` and `verify` tell of the file by its name.

    python -m benchmarks.bit_flips [--flips 400 | --all] [--seed 0]
"""

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.run import schemas
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.examples import evaluated_examples
from riemannopt_dist.run.results import read_results
from riemannopt_dist.run.verification import problems
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import small_config

SHARD = "results/shard-00000.parquet"
PICTURES = 6


def made_run(folder: Path) -> RunDirectory:
    """A run with one shard of results, whose numbers are made up."""
    config = small_config(folder, folder / "run", metrics=["completeness"])
    directory = RunDirectory(Storage(config.output))
    directory.claim(config, "digest")
    directory.write_images(
        {**_IMAGE, "image_id": f"{n}", "uri": f"/{n}", "in_fit": n < 3} for n in range(PICTURES)
    )
    schema = schemas.results_schema(METRICS[name] for name in config.metrics)
    table = pa.Table.from_pylist(_results(directory, config, schema), schema)
    directory.write_table(SHARD, table)
    return directory


def unnoticed(directory: RunDirectory, bits: Iterable[int]) -> Counter[str]:
    """How many of these bits of the shard, turned one at a time, are not told of, and by what."""
    storage = directory.storage
    whole = storage.read_bytes(SHARD)
    asked: dict[str, Callable[[], str]] = {
        "reading": lambda: _told(lambda: storage.read_table(SHARD)),
        "summarize": lambda: _told(lambda: read_results(storage)),
        "verify": lambda: "\n".join(problems(directory)),
    }
    found: Counter[str] = Counter()
    for bit in bits:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        storage.write_bytes(SHARD, data)
        found.update(name for name, ask in asked.items() if SHARD not in ask())
    storage.write_bytes(SHARD, whole)
    return found


def drawn_bits(directory: RunDirectory, count: int, seed: int) -> list[int]:
    """So many bits of the shard, at random."""
    return random.Random(seed).sample(range(8 * len(directory.storage.read_bytes(SHARD))), count)


def _told(read: Callable[[], object]) -> str:
    try:
        read()
    except OSError as error:
        return str(error)
    return ""


def _results(directory: RunDirectory, config: Config, schema: pa.Schema) -> list[dict[str, object]]:
    rng = random.Random(0)
    numbers = {field.name: rng.random for field in schema if pa.types.is_floating(field.type)}
    examples = evaluated_examples(directory.read_images() or [], config)
    return [
        {"image_id": example.image.image_id, "target": 0, "gradient_evaluations": cell.samples}
        | {name: number() for name, number in numbers.items()}
        | asdict(cell)
        for example in examples
        for cell in config.cells()
    ]


_IMAGE = {"label": None, "prediction": 0, "probability": 1.0, "selected": True, "error": None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--all", action="store_true", help="every bit of the file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = made_run(Path(folder))
        size = 8 * len(directory.storage.read_bytes(SHARD))
        bits = range(size) if options.all else drawn_bits(directory, options.flips, options.seed)
        found = unnoticed(directory, bits)
    print(f"{len(bits)} of {size} bits turned; unnoticed: {dict(found) or 0}")
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

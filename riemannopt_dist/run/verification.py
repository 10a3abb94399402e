"""Whether a run directory holds what its configuration promises: every row once, finite, and nothing else."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from riemannopt_dist.metrics.metric import Metric
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.run import schemas
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.directory import IMAGES, LISTING, PROBES, RUN, RunDirectory
from riemannopt_dist.run.examples import evaluated_examples, located
from riemannopt_dist.run.finiteness import faulty_column
from riemannopt_dist.run.grid import Cell, cell_of
from riemannopt_dist.run.maps import MapOutput, map_output
from riemannopt_dist.run.origin import is_behind
from riemannopt_dist.run.shards import shards_of
from riemannopt_dist.run.stages.names import FIT, REFINE, RESULTS, SELECTION
from riemannopt_dist.run.steps import cuts, steps_of
from riemannopt_dist.storage.base import check_columns, only
from riemannopt_dist.storage.errors import StorageError

EARLIER = (SELECTION, FIT, REFINE)
BESIDE = (LISTING, PROBES)


def problems(directory: RunDirectory) -> Iterator[str]:
    """What is wrong with a run's results, a line each; nothing if every row is there once and finite.

    An image that failures.parquet gives up on may be missing. Raises ValueError where there is no run, or
    one that has not come to its results yet.
    """
    storage = directory.storage
    run = directory.read_run()
    images = directory.read_images()
    if images is None:
        raise ValueError(f"{storage.root}: no run whose images are selected (expected {IMAGES})")
    config = make_config(run["config"], storage.uri(RUN))
    for step in (run, *steps_of(run)):
        known = make_config(step["config"], storage.uri(RUN)).fingerprint(run["weights_digest"])
        if step["fingerprint"] != known:
            yield f"{storage.uri(RUN)}: its fingerprint is not that of its configuration"
    yield from _damaged(directory, run)
    cells = config.row_cells()
    metrics = [METRICS[name] for name in config.metrics]
    schema = schemas.results_schema(metrics)
    given_up = {f.image_id for f in directory.read_failures() if f.stage == RESULTS}
    evaluated = evaluated_examples(images, config)
    maps = map_output(config, [example.image.image_id for example in evaluated])
    shards = shards_of(evaluated, config.shard_size, located, cuts(run))
    done = directory.done_shards(RESULTS)
    for key in sorted(done - set(shards)):
        yield f"{RESULTS}/{key}.parquet: not a shard of this run"
    for key, examples in shards.items():
        name = f"{RESULTS}/{key}.parquet"
        expected = {s.image.image_id for s in examples}
        if key not in done:
            if expected - given_up:
                yield f"{name}: missing, with {len(expected - given_up)} images"
            continue
        try:
            shard = directory.checked(name, run)
            if is_behind(shard.schema, run, RESULTS):
                yield f"{name}: of before the run was extended, and not extended yet"
                continue
            check_columns(shard.schema, schema, storage.uri(name))
            table = shard.to_pylist()
        except StorageError as error:
            yield str(error)
            continue
        yield from _map_problems(directory, run, maps, key, expected - given_up)
        promised = {(image_id, cell) for image_id in expected for cell in cells}
        yield from (f"{name}: {problem}" for problem in _row_problems(table, promised, given_up, metrics))


def _map_problems(
    directory: RunDirectory,
    run: Mapping[str, Any],
    maps: MapOutput | None,
    shard: str,
    image_ids: Set[str],
) -> Iterator[str]:
    """What is wrong with the files of a shard's maps."""
    for name, expected in ({} if maps is None else maps.files(shard, image_ids)).items():
        try:
            table = directory.checked(name, run, columns=only("image_id"))
        except (StorageError, FileNotFoundError) as error:
            yield str(error)
            continue
        counts = Counter(table["image_id"].to_pylist())
        yield from (f"{name}: {image_id} is missing" for image_id in sorted(expected - counts.keys()))
        yield from (f"{name}: {image_id} is there {n} times" for image_id, n in counts.items() if n > 1)


def _row_problems(
    table: Sequence[dict[str, Any]],
    promised: Set[tuple[str, Cell]],
    given_up: Set[str],
    metrics: Sequence[Metric],
) -> Iterator[str]:
    """What is wrong with the rows of a shard, of which those `promised` are to be there, once each."""
    counts = Counter(map(_key, table))
    faults = ((row, faulty_column(row, metrics)) for row in table)
    yield from (f"{' '.join(map(str, _key(row)))}: {fault} is not finite" for row, fault in faults if fault)
    yield from (f"{image_id} {cell} is there {n} times" for (image_id, cell), n in counts.items() if n > 1)
    yield from (f"{image_id} {cell} was not promised" for image_id, cell in sorted(set(counts) - promised))
    absent = {(image_id, cell) for image_id, cell in promised - set(counts) if image_id not in given_up}
    yield from (f"{image_id} {cell} is missing" for image_id, cell in sorted(absent))


def _damaged(directory: RunDirectory, run: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the files of the stages before the results, and with those beside them."""
    shards = (f"{stage}/{key}.parquet" for stage in EARLIER for key in sorted(directory.done_shards(stage)))
    there = (name for name in BESIDE if directory.storage.exists(name))
    for name in (*there, *shards):
        try:
            directory.checked(name, run)
        except StorageError as error:
            yield str(error)


def _key(row: dict[str, Any]) -> tuple[str, Cell]:
    """The image and the cell of a row."""
    return row["image_id"], cell_of(row)

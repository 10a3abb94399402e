"""What the file of a shard holds: whether it is whole, of this shard, and which images it lacks."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.stages.base import Stage
from riemannopt_dist.storage.errors import DamagedFile

READERS = 16
"""Shards read at once: an object store takes its time to answer."""


@dataclass(frozen=True)
class Inspection:
    """What is wrong with a shard's file, None if nothing is; and the images of the shard that it lacks."""

    damage: str | None
    missing: frozenset[str]


@contextmanager
def inspected(
    directory: RunDirectory, stage: Stage, files: Mapping[str, str], shards: Mapping[str, frozenset[str]]
) -> Iterator[Iterator[tuple[str, Inspection]]]:
    """Each of `files` read and compared with the ids of its shard's images, by its key, in order.

    They are read on threads as long as the context lasts. Iterating raises StorageError where the storage
    does not answer, which is no damage.
    """

    run = directory.read_run()

    def of(key: str) -> Inspection:
        return _inspected(directory, run, stage, files[key], shards[key])

    threads = ThreadPoolExecutor(READERS, "shards")
    try:
        yield zip(files, threads.map(of, files), strict=True)
    finally:
        threads.shutdown(cancel_futures=True)


def _inspected(
    directory: RunDirectory, run: Mapping[str, Any], stage: Stage, name: str, expected: frozenset[str]
) -> Inspection:
    try:
        table = directory.checked(name, run, stage.schema, ["image_id"])
    except DamagedFile as error:
        return Inspection(str(error), expected)
    except FileNotFoundError:  # deleted since it was listed
        return Inspection(None, expected)
    uri = directory.storage.uri(name)
    rows = Counter(table["image_id"].to_pylist())
    strange = [image for image in rows if image not in expected]
    if strange:
        return Inspection(f"{uri}: {strange[0]} is no image of this shard", expected)
    odd = [image for image, count in rows.items() if count != stage.rows_an_image]
    if odd:
        promised = f"{rows[odd[0]]} rows of {odd[0]}, {stage.rows_an_image} were promised"
        return Inspection(f"{uri}: {promised}", expected)
    return Inspection(None, expected - rows.keys())

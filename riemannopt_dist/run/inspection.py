"""What the file of a shard holds: whether it is whole, of this shard, and which images it lacks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.origin import is_of_earlier_step
from riemannopt_dist.run.stages.base import Stage
from riemannopt_dist.run.stages.completion import Key, kept_parts, key_fields, row_keys
from riemannopt_dist.run.steps import steps_of
from riemannopt_dist.storage.base import check_columns, only
from riemannopt_dist.storage.errors import DamagedFile

READERS = 16
"""Shards read at once: an object store takes its time to answer."""


@dataclass(frozen=True)
class Inspection:
    """What is wrong with a shard's file, None if nothing is; and the images of which it lacks rows."""

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
    uri = directory.storage.uri(name)
    try:
        # Of a run that was extended, whose shards may lack columns, all of them are read.
        keys, extended = key_fields(stage), bool(steps_of(run))
        table = (
            directory.checked(name, run, keys)
            if extended
            else directory.checked(name, run, stage.schema, only(*(field.name for field in keys)))
        )
        counts, kept = Counter(row_keys(stage, table)), kept_parts(stage, table)
        staying = [key for key in counts if key[1:] in kept]
        check_columns(table.schema, stage.schema if extended and staying else (), uri)
    except DamagedFile as error:
        return Inspection(str(error), expected)
    except FileNotFoundError:  # deleted since it was listed
        return Inspection(None, expected)
    all_stay = not is_of_earlier_step(table.schema, run)
    if (fault := _fault(counts, expected, {*staying} if all_stay else counts.keys())) is not None:
        return Inspection(f"{uri}: {fault}", expected)
    rows = Counter(image for image, *_ in staying)
    return Inspection(None, frozenset(image for image in expected if rows[image] < len(stage.parts)))


def _fault(counts: Mapping[Key, int], images: Set[str], promised: Set[Key]) -> str | None:
    """What is wrong with the rows of a shard of such images, by how often each is there."""
    for key, count in counts.items():
        if key[0] not in images:
            return f"{key[0]} is no image of this shard"
        if count > 1 or key not in promised:
            fault = f"is there {count} times" if count > 1 else "was not promised"
            return f"{' '.join(map(str, key))} {fault}"
    return None

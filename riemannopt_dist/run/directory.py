"""The run directory: which files a run consists of, and what was already done in it.

This module needs no torch: how far a run is can be asked where none is.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from riemannopt_dist.run import rows
from riemannopt_dist.run.storage import Storage

if TYPE_CHECKING:
    from riemannopt_dist.images import ImageRef
    from riemannopt_dist.profile import Profile
    from riemannopt_dist.run.config import Config
    from riemannopt_dist.run.grid import Cell
    from riemannopt_dist.schedule import Schedule

UNREADABLE = "UnreadableImage:"
"""How the reason of an image begins that cannot be read: a reason is an exception's type and text."""
OUT_OF_REACH = ("UnreachableImage:", "ReplacedImage:")
"""How the reason of an image begins whose source does not give it, or another in its place."""
FORMAT = 1
"""Of a run's files: a directory of another one is refused."""

RUN = "run.json"
LISTING = "listing.parquet"
IMAGES = "images.parquet"
FAILURES = "failures.parquet"
NEEDED = (
    "fingerprint",
    "weights_digest",
    "versions.riemannopt-dist",
    "config.images",
    "config.model.name",
    "config.grid",
    "config.fit.images",
    "config.limit",
    "config.seed",
    "config.shard_size",
)
"""What is read of run.json; the keys in each other are separated by dots."""
PACKAGES = ("riemannopt-dist", "torch", "torchvision", "ray", "numpy", "scipy", "pyarrow")


@dataclass(frozen=True)
class Failure:
    """An image given up on in one of the stages."""

    stage: str
    image_id: str
    reason: str
    attempts: int

    @property
    def own(self) -> bool:
        """Whether it is the image's, which cannot be read or decoded, not the model's or a worker's."""
        return self.reason.startswith(UNREADABLE)

    @property
    def out_of_reach(self) -> bool:
        """Whether it is the source's, which may give the image later."""
        return self.reason.startswith(OUT_OF_REACH)


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    storage: Storage

    def read_run(self) -> dict[str, Any]:
        """What run.json holds. Raises ValueError where there is none, one of another version, or no run's."""
        if not self.storage.exists(RUN):
            raise ValueError(f"{self.storage.root}: no run in it (expected {RUN})")
        found = self.storage.read_json(RUN)
        if not isinstance(found, dict):
            raise ValueError(f"{self.storage.uri(RUN)}: not that of a run (expected keys and values)")
        if found.get("format", FORMAT) != FORMAT:
            writer = found.get("versions", {}).get("riemannopt-dist", "unknown")
            raise ValueError(
                f"{self.storage.root}: holds a run in format {found['format']}, written by riemannopt-dist "
                f"{writer}; this is {version('riemannopt-dist')}, which knows format {FORMAT}"
            )
        if missing := [path for path in NEEDED if not _has(found, path)]:
            raise ValueError(f"{self.storage.uri(RUN)}: not that of a run (expected {missing[0]} in it)")
        return found

    def holds(self, config: Config, weights_digest: str | None) -> bool:
        """Whether there is a run of `config` already, with these weights or (None) with any.

        Raises ValueError if it is of another configuration or version.
        """
        if not self.storage.exists(RUN):
            return False
        found = self.read_run()
        if found["fingerprint"] != config.fingerprint(weights_digest or found["weights_digest"]):
            differing = _differences(found["config"], config.published())
            raise ValueError(
                f"{self.storage.root}: holds a run of another configuration (differs in: {differing}); "
                f"choose another output, or remove it"
            )
        return True

    def claim(self, config: Config, weights_digest: str) -> None:
        """Make this the directory of `config`."""
        self.storage.write_json(
            RUN,
            {
                "format": FORMAT,
                "fingerprint": config.fingerprint(weights_digest),
                "config": config.published(),
                "weights_digest": weights_digest,
                "versions": {name: version(name) for name in PACKAGES}
                | {"python": platform.python_version()},
            },
        )

    def done_shards(self, folder: str) -> set[str]:
        """The keys of the shards that are committed in `folder`."""
        return set(shard_files(self.storage, folder))

    def put_aside(self, name: str) -> str:
        """Move a file that is no part of the run, or damaged, to damaged/<name>.<n>: the name it has then."""
        content, aside = self.storage.read_bytes(name), f"damaged/{name}"
        taken = set(self.storage.list(aside.rpartition("/")[0]))
        aside = next(f"{aside}.{n}" for n in count(1) if f"{aside}.{n}" not in taken)
        self.storage.write_bytes(aside, content)
        self.storage.delete(name)
        return aside

    def shard_rows(self, folder: str) -> list[dict[str, Any]]:
        """The rows of all shards in `folder`, in order."""
        files = shard_files(self.storage, folder).values()
        tables = [self.storage.read_table(name) for name in files]
        return pa.concat_tables(tables).to_pylist() if tables else []

    def write_listing(self, refs: Iterable[ImageRef]) -> None:
        """Commit what the image source holds."""
        self.storage.write_table(
            LISTING, pa.Table.from_pylist([asdict(ref) for ref in refs], schema=rows.LISTING)
        )

    @property
    def is_listed(self) -> bool:
        """Whether it holds what the image source held when the run began."""
        return self.storage.exists(LISTING)

    def read_listing(self) -> list[dict[str, Any]] | None:
        """The fields of what the image source held when the run began, None where that is not there yet."""
        if not self.is_listed:
            return None
        return self._rows(LISTING, rows.LISTING)

    def write_images(self, images: Iterable[Mapping[str, Any]]) -> None:
        """Commit the list of all inputs."""
        self.storage.write_table(IMAGES, pa.Table.from_pylist(list(images), schema=rows.IMAGES))

    def read_images(self) -> list[dict[str, Any]] | None:
        """The list of all inputs, None where it is not there yet."""
        if not self.storage.exists(IMAGES):
            return None
        return self._rows(IMAGES, rows.IMAGES)

    def read_failures(self) -> list[Failure]:
        """All images given up on so far."""
        if not self.storage.exists(FAILURES):
            return []
        return [Failure(**row) for row in self._rows(FAILURES, rows.FAILURES)]

    def settle(self, stage: str, settled: Collection[str], failures: Iterable[Failure] = ()) -> list[Failure]:
        """Put `failures` in the place of those of the images `settled` in a stage: all failures, as stored.

        What is stored counts, not what a driver remembers: another may have been at work meanwhile.
        """
        stored = self.read_failures()
        left = [f for f in stored if f.stage != stage or f.image_id not in settled]
        if (now := [*left, *failures]) != stored:
            self.write_failures(now)
        return now

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Commit the list of images given up on."""
        table = pa.Table.from_pylist([vars(failure) for failure in failures], schema=rows.FAILURES)
        self.storage.write_table(FAILURES, table)

    def read_profile(self, family: str) -> dict[str, Any] | None:
        """The fields of a family's profile, None where it is not there yet."""
        name = f"schedules/{family}.json"
        if not self.storage.exists(name):
            return None
        profile: dict[str, Any] = self.storage.read_json(name)["profile"]
        return profile

    def write_schedules(self, family: str, profile: Profile, schedules: Mapping[Cell, Schedule]) -> None:
        """Commit a family's profile and the `schedules` fitted to it."""
        cells = [
            {"method": cell.method, "schedule": cell.schedule, "rule": cell.rule, "samples": cell.samples}
            | json.loads(schedule.to_json())
            for cell, schedule in schedules.items()
        ]
        content = {"profile": json.loads(profile.to_json()), "schedules": cells}
        self.storage.write_json(f"schedules/{family}.json", content)

    def _rows(self, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
        """The rows of a table, with the columns of `schema`."""
        table = self.storage.read_table(name, (field for field in schema if not field.nullable))
        # Versions before had fewer columns, and later ones may have more.
        there = table.select([column for column in schema.names if column in table.column_names])
        blank = dict.fromkeys(schema.names)
        return [blank | row for row in there.to_pylist()]


def shard_files(storage: Storage, folder: str) -> dict[str, str]:
    """The files of shards in one of a run's folders, by their keys, in order: no copies below it."""
    shards = (re.fullmatch(rf"{folder}/(shard-\d{{5,}})\.parquet", name) for name in storage.list(folder))
    return {shard[1]: shard[0] for shard in shards if shard}


def _has(found: Any, path: str) -> bool:
    """Whether there is a value under the keys of `path`, which dots separate."""
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return True


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The names of the top-level keys whose values differ."""
    keys = (key for key in wanted if key not in ("output", "means") and found.get(key) != wanted[key])
    return ", ".join(keys) or "the model's weights"

"""The run directory: which files a run consists of, and what was already done in it.

This module needs no torch: how far a run is can be asked where none is.
"""

from __future__ import annotations

import json
import logging
import platform
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from riemannopt_dist.run import schemas
from riemannopt_dist.run.failure import Failure
from riemannopt_dist.run.naming import named
from riemannopt_dist.run.origin import Origin, code_digest, foreign, origin_now
from riemannopt_dist.storage.base import Columns, Storage
from riemannopt_dist.storage.digest import digest_of_values
from riemannopt_dist.storage.errors import DamagedFile

if TYPE_CHECKING:
    from riemannopt_dist.choices import Framing
    from riemannopt_dist.data.image_ref import ImageRef
    from riemannopt_dist.quadrature.profile import Profile
    from riemannopt_dist.quadrature.schedule import Schedule
    from riemannopt_dist.run.config.config import Config
    from riemannopt_dist.run.grid import Cell

logger = logging.getLogger(__name__)

FORMAT = 3
"""Of a run's files: a directory of another one is refused. In format 1 shards held other images; in
format 2 a cell was a method, schedule and rule."""

RUN = "run.json"
LISTING = "listing.parquet"
IMAGES = "images.parquet"
FAILURES = "failures.parquet"
PROBES = "probes.parquet"
CLASSES = "classes.json"
NEEDED = (
    "id",
    "fingerprint",
    "weights_digest",
    "code_digest",
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
PACKAGES = ("riemannopt-dist", "torch", "torchvision", "timm", "ray", "numpy", "scipy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Probe:
    """What the model gave for an image when the run began: its logits, and a digest of the image's file."""

    image_id: str
    digest: str
    logits: tuple[float, ...]


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run. `term`, the driver's, goes into the tables that it writes."""

    storage: Storage
    term: int = 0

    def read_run(self) -> dict[str, Any]:
        """What run.json holds. Raises ValueError where there is none, one of another version, or no run's."""
        if not self.storage.exists(RUN):
            raise ValueError(f"{self.storage.root}: no run in it (expected {RUN})")
        run = self.storage.read_json(RUN)
        if not isinstance(run, dict):
            raise ValueError(f"{self.storage.uri(RUN)}: not that of a run (expected keys and values)")
        if run.get("format", 1) != FORMAT:
            writer = run.get("versions", {}).get("riemannopt-dist", "unknown")
            raise ValueError(
                f"{self.storage.root}: holds a run in format {run.get('format', 1)}, written by "
                f"riemannopt-dist {writer}; this is {version('riemannopt-dist')}, which knows format "
                f"{FORMAT}: "
                "choose another output, or read it with the version that wrote it"
            )
        if missing := [path for path in NEEDED if not _has(run, path)]:
            raise ValueError(f"{self.storage.uri(RUN)}: not that of a run (expected {missing[0]} in it)")
        return run

    def holds(self, config: Config, weights_digest: str | None) -> bool:
        """Whether there is a run already that goes on as one of `config`, with these weights or (None) any.

        That is one of the same configuration, or of less. Raises ValueError if it is of another one or of
        another version.
        """
        if not self.storage.exists(RUN):
            return False
        run = self.read_run()
        if run["fingerprint"] == config.fingerprint(weights_digest or run["weights_digest"]):
            return True
        if differing := "; ".join(_differences(run, config, weights_digest, self.storage.uri(RUN))):
            raise ValueError(
                f"{self.storage.root}: holds a run of another configuration (differs in: {differing}); "
                f"choose another output, or remove it"
            )
        return True

    def claim(self, config: Config, weights_digest: str, framing: Framing | None = None) -> None:
        """Make this the directory of `config`; `framing` is that of its model's images.

        It is noted so that whoever shows a photo as the model saw it calls no code of the model.
        """
        self.storage.write_json(
            RUN,
            {
                "format": FORMAT,
                "id": secrets.token_hex(8),
                "fingerprint": config.fingerprint(weights_digest),
                "config": config.published(),
                "weights_digest": weights_digest,
                "sizes": framing,
                **maker_now(config.model.name),
            },
        )

    def admit(self, baselines: Mapping[str, str]) -> None:
        """Note in run.json that the run goes on with the code and the versions of now, where they differ.

        So are the digests of the pictures that paths begin at, by the paths' labels.
        """
        run = self.read_run()
        maker, known = maker_now(run["config"]["model"]["name"]), run.get("baselines", {})
        more: dict[str, Any] = (
            {"baselines": {**known, **baselines}} if baselines.keys() - known.keys() else {}
        )
        if last_maker(run) != maker:
            more["resumed"] = [*run.get("resumed", ()), maker]
        if more:
            self.storage.write_json(RUN, {**run, **more})

    def table(self, name: str, expected: Iterable[pa.Field] = ()) -> pa.Table:
        """The table in the file `name`; DamagedFile if it is damaged, lacks a column or is another run's."""
        (table,) = self.tables([name], expected)
        return table

    def tables(self, names: Iterable[str], expected: Iterable[pa.Field] = ()) -> Iterator[pa.Table]:
        """The tables in several files, each as `table` gives it. Without a run.json any run's will do."""
        run = self.read_run() if self.storage.exists(RUN) else None
        return (self.checked(name, run, expected) for name in names)

    def checked(
        self,
        name: str,
        run: Mapping[str, Any] | None,
        expected: Iterable[pa.Field] = (),
        columns: Columns | None = None,
    ) -> pa.Table:
        """The table in the file `name`, with the `columns` chosen, or all.

        Raises DamagedFile if it is damaged, lacks an `expected` column, or is not of the run that `run`, its
        run.json, tells of; None stands for any.
        """
        table = self.storage.read_table(name, expected, columns)
        if run is not None and (reason := foreign(table.schema, run)) is not None:
            raise DamagedFile(f"{self.storage.uri(name)}: not a file of this run: {reason}")
        return table

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table that tells its origin, where the directory is a run's."""
        if self.storage.exists(RUN):
            table = self.origin().in_table(table)
        self.storage.write_table(name, table)

    def origin(self) -> Origin:
        """The origin of what is made now."""
        return origin_now(self.read_run(), self.term)

    def done_shards(self, folder: str) -> set[str]:
        """The keys of the shards that are committed in `folder`."""
        return set(shard_files(self.storage, folder))

    def put_aside(self, name: str, damage: object) -> str:
        """Move a file that is no part of the run, or damaged, to damaged/<name>.<n>; the name it has then.

        A warning tells of the `damage`, and where the file is.
        """
        content, aside = self.storage.read_bytes(name), f"damaged/{name}"
        taken = set(self.storage.list(aside.rpartition("/")[0]))
        aside = next(f"{aside}.{n}" for n in count(1) if f"{aside}.{n}" not in taken)
        self.storage.write_bytes(aside, content)
        self.storage.delete(name)
        logger.warning("%s; put aside as %s", damage, self.storage.uri(aside))
        return aside

    def shard_rows(self, folder: str) -> list[dict[str, Any]]:
        """The rows of all shards in `folder`, in order."""
        tables = list(self.tables(shard_files(self.storage, folder).values()))
        return pa.concat_tables(tables).to_pylist() if tables else []

    def write_listing(self, refs: Iterable[ImageRef]) -> None:
        """Commit what the image source holds."""
        self.write_table(LISTING, pa.Table.from_pylist([asdict(ref) for ref in refs], schema=schemas.LISTING))

    @property
    def is_listed(self) -> bool:
        """Whether it holds what the image source held when the run began."""
        return self.storage.exists(LISTING)

    def read_listing(self) -> list[dict[str, Any]] | None:
        """The fields of what the image source held when the run began, None where that is not there yet."""
        if not self.is_listed:
            return None
        return self._rows(LISTING, schemas.LISTING)

    def write_images(self, images: Iterable[Mapping[str, Any]]) -> None:
        """Commit the list of all inputs, with the names of their classes where the run tells them."""
        rows = list(images)
        besides = (f for f in schemas.OPTIONAL if any(row.get(f.name) is not None for row in rows))
        schema = pa.schema([*schemas.IMAGES, *besides])
        table, names = pa.Table.from_pylist(rows, schema=schema), self.read_class_names()
        self.write_table(IMAGES, table if names is None else named(table, names))

    def read_images(self) -> list[dict[str, Any]] | None:
        """The list of all inputs, None where it is not there yet."""
        if not self.storage.exists(IMAGES):
            return None
        rows: list[dict[str, Any]] = self.table(IMAGES, schemas.IMAGES).to_pylist()
        return rows

    def read_failures(self) -> list[Failure]:
        """All images given up on so far."""
        if not self.storage.exists(FAILURES):
            return []
        return [Failure(**row) for row in self._rows(FAILURES, schemas.FAILURES)]

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
        table = pa.Table.from_pylist([vars(failure) for failure in failures], schema=schemas.FAILURES)
        self.write_table(FAILURES, table)

    def write_class_names(self, names: Sequence[str]) -> None:
        """Commit the names of the model's classes, by their indices."""
        self.storage.write_json(CLASSES, list(names))

    def read_class_names(self) -> list[str] | None:
        """The names of the model's classes, None where the run does not tell them."""
        names: list[str] | None = self.storage.read_json(CLASSES) if self.storage.exists(CLASSES) else None
        return names

    def write_probes(self, probes: Iterable[Probe]) -> None:
        """Commit what the model gives for some images."""
        table = pa.Table.from_pylist([vars(probe) for probe in probes], schema=schemas.PROBES)
        self.write_table(PROBES, table)

    def read_probes(self) -> list[Probe]:
        """What the model gave for some images when the run began."""
        if not self.storage.exists(PROBES):
            return []
        return [
            Probe(**{**row, "logits": tuple(row["logits"])}) for row in self._rows(PROBES, schemas.PROBES)
        ]

    def read_profile(self, path: str) -> dict[str, Any] | None:
        """The fields of a path's profile, None where it is not there yet; DamagedFile if it is damaged."""
        fitted = self.read_schedules(path)
        profile: dict[str, Any] | None = None if fitted is None else fitted["profile"]
        return profile

    def read_schedules(self, path: str) -> dict[str, Any] | None:
        """A path's profile and the schedules fitted to it, as `write_schedules` writes them, or None."""
        name = f"schedules/{path}.json"
        if not self.storage.exists(name):
            return None
        content = self.storage.read_json(name)
        if not isinstance(content, dict) or content.pop("digest", None) != digest_of_values(content):
            raise DamagedFile(f"{self.storage.uri(name)}: damaged: its digest is not that of its content")
        return content

    def write_schedules(self, path: str, profile: Profile, schedules: Mapping[Cell, Schedule]) -> None:
        """Commit a path's profile and the `schedules` fitted to it."""
        cells = [
            {"path": cell.path, "estimator": cell.estimator, "placement": cell.placement}
            | {"samples": cell.samples}
            | json.loads(schedule.to_json())
            for cell, schedule in schedules.items()
        ]
        content = {"profile": json.loads(profile.to_json()), "schedules": cells}
        self.storage.write_json(f"schedules/{path}.json", content | {"digest": digest_of_values(content)})

    def _rows(self, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
        """The rows of a table, with the columns of `schema`."""
        table = self.table(name, schema).select(schema.names)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows


def shard_files(storage: Storage, folder: str) -> dict[str, str]:
    """The files of shards in one of a run's folders, by their keys, in order: no copies below it."""
    shards = (re.fullmatch(rf"{folder}/(shard-\d{{5,}})\.parquet", name) for name in storage.list(folder))
    return {shard[1]: shard[0] for shard in shards if shard}


def maker_now(model: str) -> dict[str, Any]:
    """The code of a model and the versions that are at work now, as run.json has them."""
    versions = {name: number for name in PACKAGES if (number := _version(name))}
    return {
        "code_digest": code_digest(model),
        "versions": versions | {"python": platform.python_version()},
    }


def last_maker(run: Mapping[str, Any]) -> dict[str, Any]:
    """The code and the versions with which a run went on last."""
    maker = [run, *run.get("resumed", ())][-1]
    return {key: maker[key] for key in ("code_digest", "versions")}


def _differences(
    run: Mapping[str, Any], config: Config, weights_digest: str | None, source: str
) -> Iterator[str]:
    """What keeps the run that run.json, at `source`, tells of from going on as one of `config`."""
    from riemannopt_dist.run.config.loading import make_config  # late: whoever reads a run needs none of it

    earlier = make_config(run["config"], source)
    yield from config.differences(earlier)
    if weights_digest not in (None, run["weights_digest"]):
        yield "the model's weights"
    if earlier.fingerprint(run["weights_digest"]) != run["fingerprint"]:
        yield "its fingerprint, which is not that of its configuration"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _has(value: Any, path: str) -> bool:
    """Whether there is a value under the keys of `path`, which dots separate."""
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True

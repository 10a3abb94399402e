"""How far a run is, from its directory alone: without Ray or torch, and without disturbing the run."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from riemannopt_dist.run.directory import RunDirectory, shard_files
from riemannopt_dist.run.draw import evaluated_ids
from riemannopt_dist.run.grid import by_profile
from riemannopt_dist.run.journal import ShardEvent, in_flight
from riemannopt_dist.run.lock import LOCK, Holder, read_holder
from riemannopt_dist.run.origin import is_behind
from riemannopt_dist.run.shards import location_of, shards_of
from riemannopt_dist.run.stages.names import FIT, REFINE, RESULTS, SELECTION
from riemannopt_dist.run.stages.tally import Timings
from riemannopt_dist.run.steps import cuts
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DamagedFile
from riemannopt_dist.text import ago, duration, table_lines

STAGES = (SELECTION, FIT, REFINE, RESULTS)

SHOWN = 32
"""Shards in flight that are told of."""

PAUSE = 60.0
"""Seconds beyond two shards' own time after which a gap between shards is a pause: nobody was at work."""

READERS = 16
"""Shards whose timings are read at once: an object store takes its time to answer."""


@dataclass(frozen=True)
class StageStatus:
    """One stage in images and in shards.

    `images` is None where the run does not tell how many there will be, `rate` (images/s) where fewer than
    two shards are there to tell it. `written` is when its last shard was done, in Unix time. Both are as the
    shards tell them, whose files may be copies. `damaged` shards are not done, nor are those `behind`, which
    are there and lack what the run was extended by.
    """

    name: str
    images: int | None
    done: int
    failed: int
    shards: int | None
    shards_done: int
    rate: float | None
    written: float | None
    damaged: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()

    @property
    def left(self) -> int | None:
        """Images neither done nor given up on."""
        return None if self.images is None else max(0, self.images - self.done - self.failed)

    def cells(self) -> tuple[str, ...]:
        """A row of the table of all stages."""
        numbers = (self.images, self.done, self.failed, self.left, self.shards, self.shards_done)
        texts = ("?" if number is None else str(number) for number in numbers)
        rate = "?" if self.rate is None else f"{self.rate:.3g}"
        left = "?" if self.seconds_left is None else duration(self.seconds_left)
        return (self.name, *texts, rate, left)

    @property
    def seconds_left(self) -> float | None:
        """For the images left at the present rate."""
        if self.left == 0:
            return 0.0
        return None if self.left is None or not self.rate else self.left / self.rate


@dataclass(frozen=True)
class RunStatus:
    """What a run is, each of its stages, and when its last shard was done (Unix time).

    Where no shard tells, `written` is when any file was last written.
    """

    root: str
    model: str
    source: str
    version: str
    stages: tuple[StageStatus, ...]
    written: float
    driver: Holder | None
    damaged: tuple[str, ...] = ()
    in_flight: tuple[ShardEvent, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing is left in the last stage, and there was something."""
        return self.stages[-1].left == 0 and not self.too_few

    @property
    def too_few(self) -> bool:
        """Whether the fit subset takes all images that can be used, or more than there are."""
        return self.stages[-1].images == 0

    def lines(self) -> list[str]:
        """For a terminal or a log."""
        heads = (
            "stage",
            "images",
            "done",
            "failed",
            "left",
            "shards",
            "shards done",
            "images/s",
            "time left",
        )
        table = [heads, *(stage.cells() for stage in self.stages)]
        return [
            f"{self.root}: {self.model} on {self.source}, riemannopt-dist {self.version}",
            *table_lines(table),
            *(f"{name}: damaged; done again when the command is repeated" for name in self.damaged),
            *(
                f"{stage.name}: {len(stage.behind)} shards of before the run was extended are left"
                for stage in self.stages
                if stage.behind
            ),
            *self._shards_in_flight(),
            f"last written {ago(self.written)}; {self._at_work()}",
        ]

    def _shards_in_flight(self) -> list[str]:
        """Where each shard is that is being done, the oldest first; none where no driver is at work."""
        shown = self.in_flight[:SHOWN] if self.driver is not None else ()
        lines = [
            f"{event.stage}/{event.shard}: {event.images} images on {event.worker}, begun {ago(event.time)}"
            for event in shown
        ]
        hidden = len(self.in_flight) - len(shown) if lines else 0
        return [*lines, *([f"and {hidden} shards more"] if hidden else [])]

    def _at_work(self) -> str:
        if self.driver is not None:
            return f"locked by {self.driver}, renewed {ago(self.driver.renewed)}"
        if self.too_few:
            return "too few images can be used: none is left to evaluate beside fit.images"
        return "finished" if self.finished else "no driver is at work"


def read_status(storage: Storage) -> RunStatus:
    """The status of the run in `storage`. Raises ValueError where is none, or one of another version."""
    directory = RunDirectory(storage)
    run = directory.read_run()
    config = run["config"]
    items = _items_of_stages(config, directory)
    files = {name: shard_files(storage, name) for name in STAGES}
    failed: dict[str, set[str]] = {name: set() for name in STAGES}
    for failure in directory.read_failures():
        failed.setdefault(failure.stage, set()).add(failure.image_id)
    shards = {
        name: _shards(items[name], config["shard_size"], cuts(run) if name == RESULTS else ())
        for name in STAGES
        if _takes_place(name, config, files[name])
    }
    states = {name: _files(storage, files[name], run, name) for name in shards}
    stages = tuple(_stage_status(name, states[name], shards[name], failed[name]) for name in shards)
    driver = read_holder(storage)
    # What a driver that is gone left unfinished is in nobody's hands.
    events = [] if driver is None else in_flight(storage)
    return RunStatus(
        root=storage.root,
        model=config["model"]["name"],
        source=config["images"],
        version=run["versions"]["riemannopt-dist"],
        stages=stages,
        written=_last_written(storage, stages),
        driver=driver,
        in_flight=tuple(_unsettled(events, states, shards, failed)),
        damaged=tuple(f"{stage.name}/{key}.parquet" for stage in stages for key in stage.damaged),
    )


@dataclass(frozen=True)
class _Files:
    """The shards of a stage that have a file: what those took that tell, the damaged ones, those behind."""

    there: frozenset[str]
    timings: Mapping[str, Timings]
    damaged: tuple[str, ...]
    behind: tuple[str, ...]


def _unsettled(
    events: Iterable[ShardEvent],
    files: Mapping[str, _Files],
    shards: Mapping[str, Mapping[str, Sequence[str]] | None],
    failed: Mapping[str, set[str]],
) -> list[ShardEvent]:
    """Those whose shard has no file yet, or one that is behind, and some image that is not given up on."""

    def is_left(event: ShardEvent) -> bool:
        images = (shards.get(event.stage) or {}).get(event.shard, ())
        whole = files[event.stage].there - {*files[event.stage].behind}
        return event.shard not in whole and not {*images} <= failed[event.stage]

    return [event for event in events if event.stage in shards and is_left(event)]


def _shards(
    images: Sequence[dict[str, Any]] | None, size: int, cuts: Sequence[int]
) -> dict[str, list[str]] | None:
    """The ids of the images of each shard; None where they are not known yet."""
    if images is None:
        return None
    shards = shards_of(images, size, location_of, cuts)
    return {key: [row["image_id"] for row in shard] for key, shard in shards.items()}


def _takes_place(stage: str, config: Mapping[str, Any], files: Mapping[str, str]) -> bool:
    """Whether a run has a stage: fit if a cell takes its points from a profile, refine once it has begun."""
    if stage == "refine":
        return bool(files)
    if stage != "fit":
        return True
    placements = {name for block in config["grid"] for name in block["placements"]}
    tolerant = any(block.get("tolerances") for block in config["grid"])
    return config["fit"]["images"] > 0 and (tolerant or any(map(_is_fitted, placements)))


def _is_fitted(placement: str) -> bool:
    """`by_profile`; a placement of a package that is not here is taken for one, as most are."""
    try:
        return by_profile(placement)
    except ValueError:
        return True


def _items_of_stages(
    config: Mapping[str, Any], directory: RunDirectory
) -> dict[str, Sequence[dict[str, Any]] | None]:
    """The images of each stage, in the order in which it has them; None where they are not known yet."""
    images = directory.read_images()
    if images is None:
        return {"selection": directory.read_listing(), "fit": None, "refine": None, "results": None}
    by_id = {row["image_id"]: row for row in images}
    in_fit = [row for row in images if row["in_fit"]]
    return {
        "selection": images,
        "fit": in_fit,
        "refine": in_fit,
        "results": [by_id[name] for name in evaluated_ids(images, config)],
    }


def _last_written(storage: Storage, stages: Sequence[StageStatus]) -> float:
    told = [stage.written for stage in stages if stage.written is not None]
    return max(told or [written for name, written in storage.times().items() if name != LOCK])


def _stage_status(
    name: str, files: _Files, shards: Mapping[str, Sequence[str]] | None, failed: set[str]
) -> StageStatus:
    timings, damaged, behind = files.timings, files.damaged, files.behind
    there = files.there.difference(damaged, behind)
    written = max((taken.finished for taken in timings.values()), default=None)
    if shards is None:
        return StageStatus(name, None, 0, len(failed), None, len(there), None, written, damaged, behind)
    done = {key: len(set(items) - failed) for key, items in shards.items() if key in there}
    finished = sorted((timings[key].finished, images) for key, images in done.items() if key in timings)
    last = max(timings.values(), key=lambda taken: taken.finished, default=None)
    settled = sum(not set(items) - failed for key, items in shards.items() if key not in there)
    return StageStatus(
        name=name,
        images=sum(map(len, shards.values())),
        done=sum(done.values()),
        failed=len(failed),
        shards=len(shards),
        shards_done=len(done) + settled,
        rate=images_per_second(finished, last.seconds if last else 0.0),
        written=written,
        damaged=damaged,
        behind=behind,
    )


def _files(storage: Storage, files: Mapping[str, str], run: Mapping[str, Any], stage: str) -> _Files:
    """What the files of a stage's shards tell at their ends."""

    def schema_of(name: str) -> pa.Schema | None:
        try:
            return storage.read_schema(name)
        except DamagedFile:
            return None

    with ThreadPoolExecutor(READERS) as pool:
        outcomes = dict(zip(files, pool.map(schema_of, files.values()), strict=True))
    schemas = {key: schema for key, schema in outcomes.items() if schema is not None}
    taken = {key: Timings.of(schema) for key, schema in schemas.items()}
    return _Files(
        there=frozenset(files),
        timings={key: timings for key, timings in taken.items() if timings is not None},
        damaged=tuple(key for key in files if key not in schemas),
        behind=tuple(key for key, schema in schemas.items() if is_behind(schema, run, stage)),
    )


def images_per_second(finished: Sequence[tuple[float, int]], shard_seconds: float) -> float | None:
    """The rate since the last pause, from when each shard was finished and its images, in order of time.

    A gap between shards of more than two shards' time and `PAUSE` seconds is a pause. None where fewer than
    two shards came since.
    """
    longest = 2 * shard_seconds + PAUSE
    starts = [n for n, (a, b) in enumerate(pairwise(finished), 1) if b[0] - a[0] > longest]
    recent = finished[starts[-1] if starts else 0 :]
    # The first one's own time is not known: a rate is of those after it.
    seconds = recent[-1][0] - recent[0][0] if recent else 0.0
    return sum(images for _, images in recent[1:]) / seconds if seconds > 0 else None

"""Two runs or more side by side: what differs in their configurations, and in their scores, paired.

A score is paired by image and cell of the grid, the first run against each other one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from riemannopt_dist.reports.answer import counted
from riemannopt_dist.reports.cells import cell_name
from riemannopt_dist.reports.gaps import gauged
from riemannopt_dist.reports.pivot import Pivot
from riemannopt_dist.reports.statistics import ENOUGH, TOO_FEW, cell_fields, mean_interval, scores

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NamedRun:
    """A run as it was named: its result rows, what run.json tells, and the digests of images by their ids."""

    name: str
    results: pa.Table
    about: Mapping[str, Any]
    digests: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison of runs comes to.

    `differences` are keys with a text for each run. `changes` has a row for each other run, cell and score:
    `run`, the cell, `score`, `direction`, `images` where both have it, the means `before` in the first run
    and `after` in the other, the mean `change` with its 95 % interval `low` to `high`, and a `verdict` for
    `ENOUGH` images or more. `unpaired` tells in sentences what has no partner.
    """

    names: Sequence[str]
    differences: Mapping[str, Sequence[str]]
    changes: pd.DataFrame
    unpaired: Sequence[str]


def compare_runs(runs: Sequence[NamedRun]) -> Comparison:
    """Compare the first of two runs or more with each other one."""
    first, *others = runs
    pairs = [_paired(first, other) for other in others]
    changes = pd.concat([table for table, _ in pairs], ignore_index=True)
    sentences = [sentence for _, sentences in pairs for sentence in sentences]
    return Comparison([run.name for run in runs], differences(runs), changes, sentences)


def differences(runs: Sequence[NamedRun]) -> dict[str, list[str]]:
    """What run.json tells differently: configuration but for the output, weights, code and versions."""
    parts = ("config", "weights_digest", "code_digest", "versions")
    flat = [dict(_flat({part: run.about.get(part) for part in parts})) for run in runs]
    keys = [key for key in dict.fromkeys(key for texts in flat for key in texts) if key != "config.output"]
    table = {key.removeprefix("config."): [texts.get(key, "–") for texts in flat] for key in keys}
    return {key: texts for key, texts in table.items() if len({*texts}) > 1}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys, dots between them, and values as JSON; a list is a value."""
    for key, part in value.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)


@dataclass(frozen=True, eq=False)
class _Pair:
    """The rows of two runs, and where the images of both are among those of each, `here` and `there` (N,).

    Of `replaced` images the two have other bytes under one name: they are no pairs.
    """

    before: Pivot
    after: Pivot
    here: NDArray[np.int64]
    there: NDArray[np.int64]
    replaced: int

    @classmethod
    def of(cls, first: NamedRun, other: NamedRun) -> "_Pair":
        before, after = (Pivot.of(gauged(run.results)) for run in (first, other))
        replaced = [name for name, text in first.digests.items() if other.digests.get(name, text) != text]
        other_bytes = pc.is_in(before.images, pa.array(replaced, before.images.type))
        partner = pc.index_in(before.images, after.images)
        in_both = pc.is_valid(partner)
        here = np.flatnonzero(pc.and_not(in_both, other_bytes))
        there = partner.take(pa.array(here)).to_numpy().astype(np.int64)
        return cls(before, after, here, there, pc.sum(pc.and_(in_both, other_bytes)).as_py() or 0)


def _paired(first: NamedRun, other: NamedRun) -> tuple[pd.DataFrame, list[str]]:
    """The changes from one run to another, and what has no partner."""
    directions = scores(first.results) | scores(other.results)
    shared = [name for name in directions if name in first.results.schema.names]
    shared = [name for name in shared if name in other.results.schema.names]
    pair = _Pair.of(first, other)
    rows = _changes(pair, {name: directions[name] for name in shared})
    told = [*_without_partner(first.name, other.name, pair)]
    if lacking := sorted({*directions} - {*shared}):
        told.append(f"{counted(len(lacking), 'score')} in one of the runs alone: {', '.join(lacking)}.")
    return pd.DataFrame([{"run": other.name, **row} for row in rows]), told


def _changes(pair: _Pair, directions: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A row for each score, and cell of both in which two images or more have it in both."""
    places = {cell: place for place, cell in enumerate(pair.after.cells)}
    for score, direction in directions.items():
        before = pair.before.values(score)[:, pair.here]
        after = pair.after.values(score)[:, pair.there]
        for cell, values in zip(pair.before.cells, before, strict=True):
            if cell not in places:
                continue
            others = after[places[cell]]
            both = ~np.isnan(values) & ~np.isnan(others)
            if both.sum() > 1:
                numbers = _change(values[both], others[both], direction)
                yield {**cell_fields(cell), "score": score, "direction": direction, **numbers}


def _change(before: Array, after: Array, direction: str) -> dict[str, Any]:
    """The numbers of two images or more."""
    change, low, high = mean_interval(after - before)
    gain = change if direction.startswith("higher") else -change
    verdict = "open" if low <= 0 <= high else "better" if gain > 0 else "worse"
    means = {"before": float(before.mean()), "after": float(after.mean())}
    numbers = {"images": len(before), **means, "change": change, "low": low, "high": high}
    return {**numbers, "verdict": verdict if len(before) >= ENOUGH else TOO_FEW}


def _without_partner(first: str, other: str, pair: _Pair) -> Iterator[str]:
    """Images and cells that only one of the runs has, and images that are not the same in both."""
    common, replaced = len(pair.here), pair.replaced
    few = f", fewer than the {ENOUGH} of a verdict" if common < ENOUGH else ""
    yield f"{counted(common, 'image')} in both {first} and {other}{few}."
    sides = ((first, pair.before, pair.after), (other, pair.after, pair.before))
    for name, mine, _ in sides:
        if alone := len(mine.images) - common - replaced:
            yield f"{counted(alone, 'image')} in {name} alone, without a partner."
    if replaced:
        yield f"{counted(replaced, 'image')} of one name with other bytes in the two, left out."
    for name, mine, theirs in sides:
        if alone_cells := [cell_name(cell) for cell in mine.cells if cell not in theirs.cells]:
            some = ", ".join(alone_cells[:3]) + (", …" if len(alone_cells) > 3 else "")
            yield f"{counted(len(alone_cells), 'cell')} in {name} alone, without a partner: {some}."
    targets = _targets(pair.before)[pair.here], _targets(pair.after)[pair.there]
    if differing := int((targets[0] != targets[1]).sum()):
        yield f"{counted(differing, 'image')} of which the two explain different classes."


def _targets(rows: Pivot) -> Array:
    """The class that is explained of each image, (images,)."""
    return np.asarray(rows.column("target")[rows.rows.max(0)])

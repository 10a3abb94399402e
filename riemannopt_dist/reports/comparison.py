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
from numpy.typing import NDArray

from riemannopt_dist.reports.answer import counted
from riemannopt_dist.reports.cells import cell_key, cell_name
from riemannopt_dist.reports.pivot import CELL, CellKey
from riemannopt_dist.reports.statistics import ENOUGH, TOO_FEW, cell_fields, mean_interval, scores

Array = NDArray[np.float64]
Frames = Mapping[CellKey, pd.DataFrame]
"""The scores of each cell, by image."""


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


def _paired(first: NamedRun, other: NamedRun) -> tuple[pd.DataFrame, list[str]]:
    """The changes from one run to another, and what has no partner."""
    directions = scores(first.results) | scores(other.results)
    shared = [name for name in directions if name in first.results.schema.names]
    shared = [name for name in shared if name in other.results.schema.names]
    replaced = {
        image for image, digest in first.digests.items() if other.digests.get(image, digest) != digest
    }
    before, after = (_by_cell(run.results, shared, replaced) for run in (first, other))
    changes = _changes(before, after, {name: directions[name] for name in shared})
    told = [*_without_partner(first, other, before, after, replaced)]
    if lacking := sorted({*directions} - {*shared}):
        told.append(f"{counted(len(lacking), 'score')} in one of the runs alone: {', '.join(lacking)}.")
    ordered = sorted(changes, key=lambda row: shared.index(row["score"]))
    return pd.DataFrame([{"run": other.name, **row} for row in ordered]), told


def _changes(before: Frames, after: Frames, directions: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A row for each cell of both, and score that two images or more have in both."""
    for cell in before:
        if cell not in after:
            continue
        pairs = before[cell].add_suffix(" before").join(after[cell].add_suffix(" after"), how="inner")
        for score, direction in directions.items():
            both = pairs[[f"{score} before", f"{score} after"]].dropna().to_numpy()
            if len(both) > 1:
                numbers = _change(both[:, 0], both[:, 1], direction)
                yield {**cell_fields(cell), "score": score, "direction": direction, **numbers}


def _by_cell(results: pa.Table, names: Sequence[str], left_out: set[str]) -> dict[CellKey, pd.DataFrame]:
    frame = results.select(["image_id", *CELL, *names]).to_pandas()
    frame = frame[~frame["image_id"].isin(left_out)]
    frame["tolerance"] = frame["tolerance"].astype(float).fillna(0.0)
    groups = frame.groupby(CELL, observed=True)
    keyed = {cell_key(dict(zip(CELL, cell, strict=True))): group for cell, group in groups}
    return {cell: group.set_index("image_id")[[*names]] for cell, group in keyed.items()}


def _change(before: Array, after: Array, direction: str) -> dict[str, Any]:
    """The numbers of two images or more."""
    change, low, high = mean_interval(after - before)
    gain = change if direction.startswith("higher") else -change
    verdict = "open" if low <= 0 <= high else "better" if gain > 0 else "worse"
    means = {"before": float(before.mean()), "after": float(after.mean())}
    numbers = {"images": len(before), **means, "change": change, "low": low, "high": high}
    return {**numbers, "verdict": verdict if len(before) >= ENOUGH else TOO_FEW}


def _without_partner(
    first: NamedRun, other: NamedRun, before: Frames, after: Frames, replaced: set[str]
) -> Iterator[str]:
    """Images and cells that only one of the runs has, and images that are not the same in both."""
    targets = [_targets(run.results) for run in (first, other)]
    ids = [{*classes} for classes in targets]
    common = len((ids[0] & ids[1]) - replaced)
    few = f", fewer than the {ENOUGH} of a verdict" if common < ENOUGH else ""
    yield f"{counted(common, 'image')} in both {first.name} and {other.name}{few}."
    for run, here, there in ((first, ids[0], ids[1]), (other, ids[1], ids[0])):
        if alone := len(here - there):
            yield f"{counted(alone, 'image')} in {run.name} alone, without a partner."
    if both := len(replaced & ids[0] & ids[1]):
        yield f"{counted(both, 'image')} of one name with other bytes in the two, left out."
    for run, mine, theirs in ((first, before, after), (other, after, before)):
        if alone_cells := [cell_name(cell) for cell in mine if cell not in theirs]:
            some = ", ".join(alone_cells[:3]) + (", …" if len(alone_cells) > 3 else "")
            yield f"{counted(len(alone_cells), 'cell')} in {run.name} alone, without a partner: {some}."
    if differing := sum(targets[0][image] != targets[1][image] for image in ids[0] & ids[1]):
        yield f"{counted(differing, 'image')} of which the two explain different classes."


def _targets(results: pa.Table) -> dict[str, int]:
    """The class that is explained of each image."""
    return dict(zip(results["image_id"].to_pylist(), results["target"].to_pylist(), strict=True))

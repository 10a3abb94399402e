"""The answer of a run in three sentences: what was compared, what is best, what is missing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.reports.cells import cell_key, cell_name, in_path_order
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.efficiency import AT_LEAST, AT_MOST, EQUAL, ERROR, ROUNDING, sample_efficiency
from riemannopt_dist.reports.gaps import GAP
from riemannopt_dist.reports.inputs import failed_in_selection, inputs_sentence
from riemannopt_dist.reports.page.parts import bounded, shown
from riemannopt_dist.reports.pivot import CellKey
from riemannopt_dist.reports.statistics import ENOUGH, TOO_FEW
from riemannopt_dist.text import printable

WORDS: Mapping[str, str] = {ERROR: "true error", GAP: "completeness gap"}


@dataclass(frozen=True)
class Saving:
    """A cell against equal points, judged by `score`: its row of `sample_efficiency`.

    `ends` are the least and the most evaluations of equal points on its path.
    """

    cell: CellKey
    score: str
    row: Mapping[str, Any]
    ends: tuple[float, float]

    @property
    def error(self) -> tuple[float, float, float]:
        """Its mean error, and the interval of that."""
        return self._interval(f"{self.score}_mean")

    @property
    def cost(self) -> float:
        """Its evaluations an image."""
        return float(self.row["gradient_evaluations"])

    @property
    def efficiency(self) -> tuple[float, float, float]:
        """The evaluations of equal points of the same error over its own, and their interval."""
        return self._interval("efficiency")

    @property
    def equal(self) -> tuple[float, float, float]:
        """The evaluations of equal points of the same error, and their interval."""
        value, low, high = (self.cost * ratio for ratio in self.efficiency)
        return value, low, high

    @property
    def spared(self) -> tuple[float, float, float]:
        """The share of equal points' evaluations that it spares, and its interval."""
        value, low, high = (1 - 1 / ratio if ratio else -math.inf for ratio in self.efficiency)
        return value, low, high

    @property
    def reading(self) -> str:
        """How the numbers are to be read where its error lies outside of those of equal points."""
        if self.row["bound"] != TOO_FEW or self.cell[1:3] == EQUAL:
            return f"{self.row['bound']} " if self.row["bound"] in (AT_LEAST, AT_MOST) else ""
        at_an_end = [math.isclose(self.equal[0], end) for end in self.ends]
        return f"{AT_LEAST} " if at_an_end[1] else f"{AT_MOST} " if at_an_end[0] else ""

    @property
    def images(self) -> int:
        """The images that it is judged by."""
        return int(self.row["images"])

    def _interval(self, name: str) -> tuple[float, float, float]:
        value, low, high = (float(self.row[f"{name}{end}"]) for end in ("", "_low", "_high"))
        return value, low, high


def error_of(results: pa.Table) -> str | None:
    """The score that errors are told by: the true error, else the completeness gap; None without either."""
    for name in WORDS:
        if name in results.column_names and pc.any(pc.is_finite(results[name])).as_py():
            return name
    return None


def savings_of(results: pa.Table) -> dict[CellKey, Saving]:
    """Cells against equal points, by the run's error; none where nothing is compared with these.

    Of completeness gaps without cells that have none by design.
    """
    score = error_of(results)
    table = pd.DataFrame() if score is None else sample_efficiency(results, score)
    if score is None or table.empty:
        return {}
    if score == GAP:
        table = table[table[f"{score}_mean"] > ROUNDING]
    is_equal = (table["estimator"] == EQUAL[0]) & (table["placement"] == EQUAL[1])
    savings = {}
    for row in table.to_dict("records"):
        taken = table.loc[is_equal & (table["path"] == row["path"]), "gradient_evaluations"]
        fields = {str(name): value for name, value in row.items()}
        savings[cell_key(row)] = Saving(cell_key(row), score, fields, (taken.min(), taken.max()))
    return savings


def best_of(savings: Mapping[CellKey, Saving]) -> Saving | None:
    """The cell that saves most, None where nothing is compared with equal points."""
    others = [saving for cell, saving in savings.items() if cell[1:3] != EQUAL]
    # At the end of equal points' counts several cells save as much: the least error is the best of them.
    return max(others, key=lambda saving: (round(saving.efficiency[0], 6), -saving.error[0]), default=None)


# --- Sentences ---


def compared(data: RunData) -> str:
    """What was compared, on which model, and on how many images."""
    summary, source = data.summary, data.about.get("config", {}).get("images", "")
    cells = summary[summary["path"] != NONE]
    paths = joined(in_path_order(cells["path"].unique()))
    counts = sorted({*cells["samples"]})
    spent = (
        "" if not counts else f" of {' to '.join(dict.fromkeys(map(str, (counts[0], counts[-1]))))} samples"
    )
    images = f"{counted(evaluated(data), 'image')}{f' of {source}' if source else ''}"
    return printable(
        f"Compared: {paths} on {data.model} and {images}, in {counted(len(cells), 'cell')} of path, "
        f"placement and estimator{spent}."
    )


def verdict(data: RunData, best: Saving | None) -> str:
    """The best cell against equal points, or why there is none."""
    if best is not None:
        return " ".join(_of_best(best))
    if error_of(data.results) is None:
        return (
            "No verdict: there is no error to compare by. The metric reference measures the true error, "
            "completeness what is off in a map's sum."
        )
    if evaluated(data) < 2:
        return "No verdict: one image tells nothing of others."
    return (
        "No verdict: nothing is compared with equal points. That needs the placement linear with the "
        "estimator left at two counts or more, another cell of the path, and images with all errors."
    )


def _of_best(best: Saving) -> Iterator[str]:
    if best.images < ENOUGH:
        yield f"No verdict, for which {ENOUGH} images are needed and {best.images} are there. So far,"
    yield (
        f"{cell_name(best.cell)} saves most against equal points: for its {WORDS[best.score]} of "
        f"{bounded(*best.error)} on {counted(best.images, 'image')} these take "
        f"{best.reading}{bounded(*best.equal)} evaluations, and it takes {shown(best.cost)},"
    )
    value, low, high = best.spared
    if value <= 0:
        yield "so that nothing is saved."
    else:
        ends = "" if low == high else f" [{_percent(low)}, {_percent(high)}]"
        doubt = "" if low > 0 else ", which these images do not tell from nothing"
        yield f"{best.reading}{100 * value:.0f} %{ends} less{doubt}."


def _percent(share: float) -> str:
    return shown(share) if math.isinf(share) else f"{100 * share:.0f}".replace("-", "−")


def missing(data: RunData) -> str:
    """What was left out, given up on, or is not done yet."""
    parts = [] if data.images is None else [_inputs(data, data.images)]
    done = evaluated(data)
    parts.append(
        f"all {counted(done, 'image')} to be evaluated are done"
        if done >= data.promised
        else f"the run is not finished: {done:,} of {counted(data.promised, 'image')} are done"
    )
    failed = given_up(data)
    parts.append(f"{counted(failed, 'image')} given up on" if failed else "none was given up on")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _inputs(data: RunData, images: pa.Table) -> str:
    """How many inputs there are, and how many of them are left out for what."""
    select = data.about.get("config", {}).get("select", "correct")
    return inputs_sentence(images, select, failed_in_selection(data.failures))


def evaluated(data: RunData) -> int:
    """The images that have results."""
    return int(pc.count_distinct(data.results["image_id"]).as_py())


def given_up(data: RunData) -> int:
    """The images given up on, in any stage."""
    return len({failure["image_id"] for failure in data.failures})


def counted(count: int, noun: str) -> str:
    """So many of them."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def joined(words: Sequence[str]) -> str:
    """A list in a sentence."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))

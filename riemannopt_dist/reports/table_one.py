"""Table 1 of arXiv 2410.04118 for a run: relative errors of the methods, with equal points and RiemannOpt's.

In the paper's layout, method by number of samples, twice: aggregated as the paper's code does, the sum of all
images' gaps over the sum of their changes of f (which it takes without their signs also in the gaps, so that
an exact map of a falling f is off by twice that there), and as the mean of single images' relative errors.
Beneath each pair of rows stands by how much RiemannOpt lowers the error, with its paired 95 % interval.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from riemannopt_dist.choices import CELL
from riemannopt_dist.estimators.base import LINEAR
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.pivot import Pivot
from riemannopt_dist.reports.statistics import ENOUGH, saving_interval
from riemannopt_dist.text import as_text

METHODS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ig": ("IG", ("released", "right", "left")),
    "blur_ig": ("Blur IG", ("right", "left")),
    "guided_ig": ("Guided IG", ("left", "trapezoid")),
}
"""The paper's methods: their names, and the rules that a run may have them under, the authors' own first."""

PLACEMENTS: Mapping[str, str] = {LINEAR: "", "riemannopt": " + RiemannOpt"}

PAPER: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("ig", LINEAR): (0.708, 0.374, 0.166, 0.066),
    ("ig", "riemannopt"): (0.404, 0.223, 0.123, 0.065),
    ("blur_ig", LINEAR): (0.886, 0.554, 0.268, 0.114),
    ("blur_ig", "riemannopt"): (0.269, 0.123, 0.058, 0.041),
    ("guided_ig", LINEAR): (0.786, 0.788, 0.725, 0.612),
    ("guided_ig", "riemannopt"): (0.666, 0.731, 0.711, 0.610),
}
"""The paper's Table 1: InceptionV3, at 16, 32, 64 and 128 samples."""

SAMPLES = (16, 32, 64, 128)
PAPER_MODEL = "inception_v3"

AGGREGATES: Mapping[str, str] = {
    "ratio_of_sums": "Σ|Σᵢaᵢ − (f(x) − f(x′))| / Σ|f(x) − f(x′)|, sums over images, as the paper's code",
    "mean": "the mean over images of |Σᵢaᵢ − (f(x) − f(x′))| / |f(x) − f(x′)|",
}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """One number of the table: the relative error of a cell of the grid, under one aggregate.

    `images` went into it. `paper` is the paper's, None for another model, output or count. `saving` is by
    which share of the linear one RiemannOpt's error is lower over the images of both, `low` and `high` are
    its 95 % interval; None in other rows and for fewer than `ENOUGH` images.
    """

    aggregate: str
    method: str
    placement: str
    rule: str
    samples: int
    images: int
    error: float
    paper: float | None = None
    saving: float | None = None
    low: float | None = None
    high: float | None = None


ENTRY_COLUMNS = {
    "aggregate": "ratio_of_sums: gaps over changes of f, both summed over images; mean: of single images' "
    "relative errors",
    "method": "the path",
    "placement": "where the samples are: linear or riemannopt",
    "rule": "the estimator",
    "samples": "samples asked for",
    "images": "images that have the error",
    "error": "the relative error",
    "paper": "that of the paper's Table 1; empty for another model, output or count",
    "saving": "by which share riemannopt's error is less than linear's, over the images of both; empty in "
    "linear's rows and for fewer than 10 images",
    "low": "lower end of its paired 95 % interval over images",
    "high": "upper end of that interval",
}
"""What the columns of report/table1.csv are."""


@dataclass(frozen=True)
class TableOne:
    """The entries of a run, and what a reader must know of it: `model`, and `notes`, a sentence each."""

    model: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    def entry(self, aggregate: str, method: str, placement: str, samples: int) -> Entry | None:
        """One number, None where the run does not have it."""
        key = (aggregate, method, placement, samples)
        return next((e for e in self.entries if (e.aggregate, e.method, e.placement, e.samples) == key), None)


def table_files(data: RunData) -> dict[str, bytes]:
    """The table in all its formats, by their names in the run directory."""
    table = table_of(data)
    return {f"report/table1.{ending}": write(table).encode() for ending, write in WRITERS.items()}


def table_of(data: RunData) -> TableOne:
    """The table of a run."""
    output = data.about.get("config", {}).get("explain", "probability")
    return table_one(data.results, data.model, data.promised, output)


def table_one(results: pa.Table, model: str, promised: int, output: str = "probability") -> TableOne:
    """The table of result rows with the metric completeness, of which `promised` images were to come.

    `output` is what f is: the paper's numbers are of probabilities, and stand beside no others.
    """
    if "relative_error" not in results.column_names:
        note = "The run has no relative errors: they come with the metric completeness."
        return TableOne(model, (), (note,))
    pivot = Pivot.of(results)
    errors = _Errors(*(pivot.values(name) for name in _Errors.__dataclass_fields__))
    cells = pd.DataFrame(pivot.cells, columns=CELL)
    entries: list[Entry] = []
    notes = [_images_note(len(pivot.images), promised)]
    of_paper = (model, output) == (PAPER_MODEL, "probability")
    if output != "probability":
        notes.append(f"f is the {output} of the class here; the paper's is the probability.")
    for method, (title, rules) in METHODS.items():
        path = path_of(cells, method)
        of_method = cells[(cells["path"] == path) & cells["placement"].isin(PLACEMENTS)]
        rule = rule_of(of_method, rules)
        if rule is None:
            notes.append(f"{title} is not in this run, or not under {' or '.join(rules)}.")
            continue
        of_rule = of_method[of_method["estimator"] == rule]
        notes += [
            f"{title}{suffix} is not in this run under the rule {rule}, so that nothing is compared."
            for placement, suffix in PLACEMENTS.items()
            if not (of_rule["placement"] == placement).any()
        ]
        if path != method:
            notes.append(f"{title} goes along {path} here.")
        if rule != rules[0]:
            notes.append(f"{title} is summed by the rule {rule} here; the authors' is {rules[0]}.")
        for samples, of_count in of_rule.groupby("samples"):
            numbers = dict(zip(of_count["placement"], of_count.index, strict=True))
            entries += _of_count(errors, numbers, method, rule, int(str(samples)), of_paper)
    return TableOne(model, tuple(entries), tuple(notes))


@dataclass(frozen=True, eq=False)
class _Errors:
    """What relative errors are made of, by cell and image."""

    relative_error: Array
    completeness_delta: Array
    output_change: Array


def path_of(cells: pd.DataFrame, name: str) -> str:
    """The label of the path called `name` that has the most cells: with the parameters that it has here."""
    labels = cells.loc[cells["path"].map(lambda label: str(label).partition("(")[0]) == name, "path"]
    counts = labels.value_counts()
    return str(counts.index[0]) if len(counts) else name


def rule_of(cells: pd.DataFrame, rules: Sequence[str]) -> str | None:
    """The first of `rules` that all placements have cells under, else the first that any has."""
    under = {rule: cells.loc[cells["estimator"] == rule, "placement"].nunique() for rule in rules}
    most = max(under.values())
    return next((rule for rule in rules if most and under[rule] == most), None)


def _images_note(images: int, promised: int) -> str:
    whole = f"{images} image{'s' if images != 1 else ''}"
    note = whole + "." if images >= promised else f"{whole} of {promised}: the run is not finished."
    few = f" Savings and their intervals need {ENOUGH}." if images < ENOUGH else ""
    return note + few


def _of_count(
    errors: _Errors, cells: Mapping[str, int], method: str, rule: str, samples: int, of_paper: bool
) -> Iterator[Entry]:
    """Both aggregates of a method's cells, whose numbers are told by their placement."""
    for placement, aggregate in product(PLACEMENTS, AGGREGATES):
        if placement not in cells:
            continue
        images, error = _error(errors, cells[placement], aggregate)
        paper = _paper(method, placement, samples) if of_paper else None
        entry = Entry(aggregate, method, placement, rule, samples, images, error, paper)
        saving = _saving(errors, cells, aggregate) if placement == "riemannopt" else None
        yield entry if saving is None else _with_saving(entry, saving)


def _with_saving(entry: Entry, saving: tuple[float, float, float]) -> Entry:
    return replace(entry, saving=saving[0], low=saving[1], high=saving[2])


def _paper(method: str, placement: str, samples: int) -> float | None:
    return PAPER[method, placement][SAMPLES.index(samples)] if samples in SAMPLES else None


def _error(errors: _Errors, cell: int, aggregate: str) -> tuple[int, float]:
    """The number of images in a cell's relative error, and the error."""
    if aggregate == "mean":
        relative = errors.relative_error[cell]
        relative = relative[~np.isnan(relative)]
        return len(relative), float(relative.mean()) if len(relative) else math.nan
    both = np.abs([errors.completeness_delta[cell], errors.output_change[cell]])
    both = both[:, ~np.isnan(both).any(0)]
    gap, change = both.sum(1)
    return both.shape[1], float(gap / change) if change else math.nan


def _saving(errors: _Errors, cells: Mapping[str, int], aggregate: str) -> tuple[float, float, float] | None:
    """By which share RiemannOpt lowers linear's error, over the images of both, with its interval.

    f changes alike under both, so that of the ratio of sums only the gaps count. None without both.
    """
    if PLACEMENTS.keys() - cells.keys():
        return None
    values = errors.relative_error if aggregate == "mean" else errors.completeness_delta
    before, after = np.abs(values[[cells[LINEAR], cells["riemannopt"]]])
    known = ~np.isnan(before) & ~np.isnan(after)
    if known.sum() < ENOUGH or not before[known].sum():
        return None
    return saving_interval(before[known], after[known])


# --- Formats ---


def markdown(table: TableOne) -> str:
    """Two Markdown tables with their captions."""
    parts = []
    for aggregate, meaning in AGGREGATES.items():
        head, *rows = grid(table, aggregate)
        lines = [f"**Table 1, {aggregate.replace('_', ' ')}.** Relative error, {meaning}; {table.model}.", ""]
        lines += [_markdown_row(head), "|" + "---|" * len(head), *map(_markdown_row, rows)]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, " ".join(table.notes)]) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(table: TableOne) -> str:
    """Two LaTeX tables, for the package booktabs."""
    parts = []
    for aggregate in AGGREGATES:
        head, *rows = grid(table, aggregate)
        body = "\n".join(_latex_row(row) for row in rows)
        caption = f"Relative error ({aggregate.replace('_', ' ')}), {table.model}. {' '.join(table.notes)}"
        parts.append(
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{_escaped(caption)}}}\n"
            f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\toprule\n"
            f"{_latex_row(head)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
        )
    return "\n".join(parts)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + " \\\\"


_LATEX = {"\\": r"\textbackslash{}", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _escaped(text: str) -> str:
    plain = {**_LATEX, **{sign: f"\\{sign}" for sign in "&%$#_{}"}}
    return "".join(plain.get(sign, sign) for sign in text)


def comma_separated(table: TableOne) -> str:
    """A CSV line for every entry, in full digits; just the head where there are none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: as_text(value) for key, value in asdict(entry).items()} for entry in table.entries)
    return text.getvalue()


WRITERS: Mapping[str, Callable[[TableOne], str]] = {"md": markdown, "tex": latex, "csv": comma_separated}
"""How the table is written, by the ending of its file."""


def grid(table: TableOne, aggregate: str) -> list[list[str]]:
    """Head and rows in the paper's layout: of every method linear, RiemannOpt, what it saves, the paper's."""
    counts = sorted({*SAMPLES, *(entry.samples for entry in table.entries)})
    rows = [["method", *map(str, counts)]]
    for method, (title, _) in METHODS.items():
        for placement, suffix in PLACEMENTS.items():
            entries = [table.entry(aggregate, method, placement, count) for count in counts]
            rows.append([title + suffix, *(f"{e.error:.3f}" if e else "–" for e in entries)])
            if any(e and e.paper is not None for e in entries):
                rows.append(["  paper", *(f"{e.paper:.3f}" if e and e.paper else "–" for e in entries)])
        savings = [table.entry(aggregate, method, "riemannopt", count) for count in counts]
        rows.append(["  lower by", *map(_shown_saving, savings)])
    return rows


def _shown_saving(entry: Entry | None) -> str:
    if entry is None or entry.saving is None or entry.low is None or entry.high is None:
        return "–"
    return f"{entry.saving:.0%} [{100 * entry.low:.0f}, {100 * entry.high:.0f}]"

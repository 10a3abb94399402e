"""The page of a run: the answer, tables, figures, pictures, what is missing, where all of it comes from."""

from collections.abc import Iterator, Sequence

from riemannopt_dist.metrics.metric import summaries_of
from riemannopt_dist.reports.answer import (
    WORDS,
    Saving,
    best_of,
    compared,
    evaluated,
    given_up,
    missing,
    savings_of,
    verdict,
)
from riemannopt_dist.reports.cells import COLUMNS, cell_name, in_order, values_of
from riemannopt_dist.reports.data import RunData
from riemannopt_dist.reports.equal_points import against_equal_points
from riemannopt_dist.reports.exclusions import exclusions
from riemannopt_dist.reports.gallery import gallery
from riemannopt_dist.reports.line_charts import curve_charts, error_charts, profile_charts
from riemannopt_dist.reports.page.parts import (
    NOTHING,
    Block,
    Column,
    Note,
    Page,
    Section,
    Table,
    Tile,
    Value,
    shown,
    text,
)
from riemannopt_dist.reports.page.rendering import rendered
from riemannopt_dist.reports.provenance import provenance
from riemannopt_dist.reports.statistics import ENOUGH
from riemannopt_dist.reports.summary import csv_of, meaning_of
from riemannopt_dist.reports.table_one import AGGREGATES, comma_separated, grid, table_of
from riemannopt_dist.text import printable

INDEX = "report/index.html"


def html_files(data: RunData) -> dict[str, bytes]:
    """report/index.html."""
    return {INDEX: rendered(run_page(data))}


def run_page(data: RunData) -> Page:
    """The page of a run, finished or not, or not come to results yet."""
    title = f"Attributions of {printable(data.model)}"
    if not len(data.results):
        answer = ("No verdict: there are no results yet.", missing(data))
        return Page(title, answer, [*_tiles(data, None)], [*_beside(data)])
    savings = savings_of(data.results)
    best = best_of(savings)
    sections = (
        Section("Against equal points", [*against_equal_points(data, savings)]),
        Section("Table 1 of the paper", [*_table_one(data)]),
        Section("Error against cost", [*error_charts(data)]),
        Section("Best and worst images", [*gallery(data, savings)]),
        Section("Profiles and points", [*profile_charts(data)]),
        Section("Insertion and deletion", [*curve_charts(data, best)]),
        Section("Every score", [_scores(data)]),
        *_beside(data),
    )
    return Page(title, (compared(data), verdict(data, best), missing(data)), [*_tiles(data, best)], sections)


def _beside(data: RunData) -> Iterator[Section]:
    """What is told of every run, with results or without."""
    yield Section("Left out and failed", [*exclusions(data)])
    yield Section("Provenance", [*provenance(data.about)])


def _tiles(data: RunData, best: Saving | None) -> Iterator[Tile]:
    """The answer's numbers, to be seen from afar."""
    yield Tile(f"{evaluated(data):,}", f"images evaluated, of {data.promised:,}")
    if best is not None:
        few = "" if best.images >= ENOUGH else "; too few images for a verdict"
        spared = f"{best.reading}{100 * best.spared[0]:.0f} %".replace("-", "−")
        yield Tile(spared, f"of equal points' evaluations spared by {cell_name(best.cell)}{few}")
        needed = f"{best.reading}{shown(best.equal[0])}"
        meaning = f"its {WORDS[best.score]}, for {shown(best.cost)} evaluations; equal points need {needed}"
        yield Tile(shown(best.error[0]), meaning)
    yield Tile(f"{given_up(data):,}", "images given up on")


def _table_one(data: RunData) -> Iterator[Block]:
    table = table_of(data)
    for aggregate, meaning in AGGREGATES.items() if table.entries else ():
        head, *rows = _filled(grid(table, aggregate))
        columns = [Column(name, numbers=place > 0) for place, name in enumerate(head)]
        values = [[text(row[0]), *(Value(entry, _number(entry)) for entry in row[1:])] for row in rows]
        caption = f"Relative error: {meaning}."
        yield Table(f"table1-{aggregate}", caption, columns, values, comma_separated(table))
    yield Note(" ".join(table.notes))


def _filled(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows and columns in which something stands, each row with the name of its method."""
    head, *body = rows
    places = [place for place, column in enumerate(zip(*body, strict=True)) if {*column} != {NOTHING}]
    filled, method = [[head[place] for place in places]], ""
    for name, *entries in body:
        method = method if name.startswith(" ") else name
        if {*entries} != {NOTHING}:
            row = [name if name == method else f"{method}: {name.strip()}", *entries]
            filled.append([row[place] for place in places])
    return filled


def _number(entry: str) -> float | None:
    """What an entry of Table 1 is sorted by."""
    try:
        return float(entry.partition("%")[0])
    except ValueError:
        return None


def _scores(data: RunData) -> Table:
    summary = in_order(data.summary)
    others = [str(name) for name in summary if name not in COLUMNS and not str(name).endswith("_left_out")]
    meanings = {one.name: meaning_of(one) for one in summaries_of(data.results)}
    columns = {**COLUMNS, **{name: Column(name.replace("_", " "), meanings.get(name, "")) for name in others}}
    columns = {name: column for name, column in columns.items() if name in summary}
    rows = [values_of(row, columns) for row in summary.to_dict("records")]
    return Table("scores", "Every summary of every cell.", [*columns.values()], rows, csv_of(summary))

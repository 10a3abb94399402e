"""The drawings of a run's page: errors against cost, profiles with their points, mean curves."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from riemannopt_dist.choices import CELL
from riemannopt_dist.estimators.base import LINEAR, NONE
from riemannopt_dist.reports.answer import WORDS, Saving, error_of
from riemannopt_dist.reports.cells import cell_name, in_order, in_path_order, kind_name
from riemannopt_dist.reports.data import Curve, RunData
from riemannopt_dist.reports.figures import COSTS, curve_figure, error_figure
from riemannopt_dist.reports.page.charts import chart
from riemannopt_dist.reports.page.parts import Block, Note
from riemannopt_dist.reports.run_figures import ERRORS, marked_points, profile_of
from riemannopt_dist.text import printable

LINES = 8
"""Curves of a path, at most, beside those of controls."""


def error_charts(data: RunData) -> Iterator[Block]:
    """Each error against evaluations, and the run's own against seconds, of cells that have one above 0."""
    summary, drawn = in_order(data.summary), 0
    own = f"{error_of(data.results)}_mean"
    for cost, words in COSTS.items():
        for column in ERRORS if cost == "gradient_evaluations" else (own,):
            if column not in summary or not ((summary[column] > 0) & (summary[cost] > 0)).any():
                continue
            drawn += 1
            points = summary[[name for name in (*CELL, cost, column) if name in summary]]
            caption = f"Mean {WORDS[column.removesuffix('_mean')]} against {words}."
            yield chart(f"{column}-{cost}", caption, partial(error_figure, summary, column, cost), points)
    if not drawn:
        yield Note(
            "No error above 0 is there to draw: the metrics reference and completeness measure errors."
        )


def profile_charts(data: RunData) -> Iterator[Block]:
    """Each path's profile, with equal and fitted points."""
    for place, path in enumerate(in_path_order(data.fitted)):
        fitted = data.fitted[path]
        profile = fitted["profile"]
        lines = [pd.DataFrame({"line": "|g′|", "alpha": profile["points"], "value": profile["magnitudes"]})]
        lines += [
            pd.DataFrame({"line": label, "alpha": points})
            for label, points in marked_points(path, fitted).items()
        ]
        caption = f"{printable(path)}: how fast the integrand changes, and points on the path."
        yield chart(f"profile-{place}", caption, partial(profile_of, path, fitted), pd.concat(lines))
    if not data.fitted:
        yield Note("No profile was fitted: the run has equal points alone, or has not come to it.")


def curve_charts(data: RunData, best: Saving | None) -> Iterator[Block]:
    """The mean curves of each score, of the cells of one count and of the controls."""
    curves = data.curves()
    for score in dict.fromkeys(curve.score for curve in curves):
        chosen = _chosen([curve for curve in curves if curve.score == score], best)
        lines = [("" if c.cell[0] == NONE else c.cell[0], kind_name(c.cell), c.x, c.values) for c in chosen]
        points = pd.concat(
            pd.DataFrame({"cell": cell_name(c.cell), "share": c.x, "f": c.values}) for c in chosen
        )
        counts = ", ".join(str(count) for count in sorted({c.cell[3] for c in chosen if c.cell[0] != NONE}))
        caption = f"{score.replace('_', ' ').capitalize()}: mean f, {counts} samples; controls are dotted."
        yield chart(f"curves-{score}", caption, partial(curve_figure, lines, "mean f"), points)
    if not curves:
        yield Note("The run has no curves: the metrics insertion and deletion bring them.")


def _chosen(curves: Sequence[Curve], best: Saving | None) -> list[Curve]:
    """Curves of controls, and of the cells with the best one's count, or else with the commonest."""
    counts = Counter(curve.cell[3] for curve in curves if curve.cell[0] != NONE)
    common = min(counts, key=lambda count: (-counts[count], count), default=0)
    count = best.cell[3] if best is not None and best.cell[3] in counts else common
    ordered = sorted(curves, key=lambda c: (c.cell[2] != LINEAR, c.cell))
    chosen = [curve for curve in ordered if curve.cell[0] == NONE]
    for path in in_path_order({curve.cell[0] for curve in curves} - {NONE}):
        chosen += [c for c in ordered if (c.cell[0], c.cell[3]) == (path, count)][:LINES]
    return chosen

"""Figures: maps over photos, errors against costs, curves, profiles with their points."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import LogLocator
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from riemannopt_dist.text import printable

Array = NDArray[np.float64]

SMOOTHING = 2.0
"""σ of the blur of maps that are laid over a photo, in pixels."""

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


COSTS: Mapping[str, str] = {
    "gradient_evaluations": "gradient evaluations an image",
    "seconds": "seconds an image",
}
"""What errors are drawn against."""


def overlay_figure(
    photos: Array, title: str, rows: Sequence[tuple[str, Sequence[tuple[str, ArrayLike]]]]
) -> Figure:
    """Photos (R, H, W, 3) in [0, 1] and maps (H, W) over them: a row of captioned maps for each of R rows.

    Maps are smoothed by `SMOOTHING` pixels. What speaks for the class is orange, what speaks against it
    purple, colours that are told apart without colour vision; a row's scale ends at the 99.5th percentile of
    the magnitudes of its last map.
    """
    columns = 1 + max(len(maps) for _, maps in rows)
    figure = Figure(figsize=(2.5 * columns, 2.75 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, photo, (method, maps) in zip(axes, photos, rows, strict=True):
        grey = np.repeat(photo @ np.array([[0.299], [0.587], [0.114]]), 3, axis=2)
        smooth = [gaussian_filter(np.asarray(values, dtype=np.float64), SMOOTHING) for _, values in maps]
        limit = max(float(np.percentile(np.abs(smooth[-1]), 99.5)), 1e-12)
        line[0].imshow(photo)
        line[0].set_title(method, fontsize=10, fontweight="bold")
        for axis, (caption, _), values in zip(line[1:], maps, smooth, strict=False):
            share = np.clip(values / limit, -1, 1)
            axis.imshow(0.35 + 0.5 * grey)
            axis.imshow(share, cmap="PuOr_r", vmin=-1, vmax=1, alpha=np.abs(share) ** 0.7)
            axis.set_title(caption, fontsize=9)
        for axis in line:
            axis.set_axis_off()
    colours = ScalarMappable(Normalize(-1, 1), "PuOr_r")
    bar = figure.colorbar(colours, ax=axes, shrink=0.6, ticks=[-1, 0, 1], pad=0.01)
    bar.ax.set_yticklabels(["against", "0", "for"], fontsize=8)
    figure.suptitle(title, fontsize=12)
    return figure


def error_figure(summary: pd.DataFrame, column: str, cost: str = "gradient_evaluations") -> Figure:
    """A summary's `column` against a column of `COSTS`, log-log: a panel a path, a line a kind of cells.

    A kind is an estimator and placement, and has the same colour in every panel. Cells without gradients or
    without a value are left out. Raises ValueError where nothing is left.
    """
    shown = summary[(summary["gradient_evaluations"] > 0) & (summary[column] > 0) & (summary[cost] > 0)]
    if shown.empty:
        raise ValueError(f"{column}: no cell of the summary has a value above 0")
    names = [*dict.fromkeys(map(str, shown["path"]))]
    figure = Figure(figsize=(_width(len(names)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    kinds: list[Any] = [*dict.fromkeys(zip(shown["placement"], shown["estimator"], strict=True))]
    lines = {}
    for panel, name in zip(panels, names, strict=True):
        for kind, part in shown[shown["path"] == name].groupby(["placement", "estimator"], sort=True):
            ordered = part.sort_values(cost)
            place = kinds.index(kind)
            (lines[kind],) = panel.plot(
                ordered[cost],
                ordered[column],
                color=f"C{place % 10}",
                linestyle=("-", "--", ":")[place // 10 % 3],
                marker="o",
                ms=4,
            )
        panel.set_title(printable(name), parse_math=False)
        panel.set(xscale="log", yscale="log", xlabel=COSTS[cost])
        if cost == "gradient_evaluations":
            counts = sorted(shown.loc[shown["path"] == name, "samples"].unique())
            panel.set_xticks(counts, [str(count) for count in counts], fontsize=8)
        else:
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.xaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
        if shown[column].max() < 100 * shown[column].min():
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel(column.replace("_", " "))
    legend = figure.legend(
        [lines[kind] for kind in kinds],
        [" ".join(kind) for kind in kinds],
        loc="outside lower center",
        ncols=3,
        handlelength=4,  # dashes show
        fontsize=8,
    )
    _taken_as_they_are(legend)
    return figure


def profile_figure(title: str, points: Array, magnitudes: Array, marks: Mapping[str, Array]) -> Figure:
    """A profile |g′|(α), with rows of sample points `marks` below it."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(points, magnitudes)
    step = float(np.max(magnitudes)) / 12 or 1.0
    for row, (label, alphas) in enumerate(marks.items(), start=1):
        axis.plot(alphas, np.full(len(alphas), -row * step), "|", ms=9, label=label)
    axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= np.max(magnitudes)])
    axis.set_title(printable(title), parse_math=False)
    axis.set(xlabel="α, from baseline to image", ylabel="|g′|")
    _taken_as_they_are(axis.legend(fontsize=8))
    return figure


def single_profiles_figure(title: str, images: Sequence[Mapping[str, Any]]) -> Figure:
    """|g′|(α) of single images: rows with image_id, alphas (k,) and variation (k − 1,)."""
    figure = Figure(figsize=(4 * min(len(images), 3), 2.6 * -(-len(images) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(images) // 3), min(len(images), 3), squeeze=False).ravel()
    for panel, row in zip(panels, images, strict=False):
        alphas = np.asarray(row["alphas"])
        panel.plot((alphas[:-1] + alphas[1:]) / 2, row["variation"], lw=1)
        panel.set_title(printable(row["image_id"]), fontsize=7, parse_math=False)
    for panel in panels[len(images) :]:
        panel.set_axis_off()
    shown = f"{printable(title)}: |g′| of single images against α"
    figure.suptitle(shown, fontsize=10, parse_math=False)
    return figure


def curve_figure(curves: Sequence[tuple[str, str, Array, Array]], ylabel: str) -> Figure:
    """Curves (panel, label, x, y) over shares of the pixels; a label has the same colour in every panel.

    Curves of the panel "" are in every panel, dotted.
    """
    names = list(dict.fromkeys(panel for panel, *_ in curves if panel)) or [""]
    labels = list(dict.fromkeys(label for _, label, *_ in curves))
    figure = Figure(figsize=(_width(len(names)), 3.9), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    lines = {}
    for panel, name in zip(panels, names, strict=True):
        for place, label, x, y in curves:
            if place in (name, ""):
                color = f"C{labels.index(label) % 10}"
                (lines[label],) = panel.plot(x, y, color=color, linestyle="-" if place else ":")
        panel.set_title(printable(name), parse_math=False)
        panel.set(xlabel="share of the pixels", xlim=(0, 1))
    panels[0].set_ylabel(ylabel)
    legend = figure.legend([*lines.values()], [*lines], loc="outside lower center", ncols=3, fontsize=8)
    _taken_as_they_are(legend)
    return figure


def change_figure(rows: Sequence[tuple[str, float, float, float]], xlabel: str) -> Figure:
    """Changes with their intervals (label, change, low, high) beside each other, and a line at 0."""
    figure = Figure(figsize=(8, 0.8 + 0.27 * len(rows)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(rows))[::-1]
    middles, lows, highs = (np.array([row[n] for row in rows]) for n in (1, 2, 3))
    axis.errorbar(middles, places, xerr=(middles - lows, highs - middles), fmt="o", ms=4, capsize=2)
    axis.axvline(0, color="C1", lw=1)
    axis.set_yticks(places, [printable(row[0]) for row in rows], fontsize=8, parse_math=False)
    axis.set_xlabel(xlabel)
    return figure


def score_figure(curves: pd.DataFrame, scores: Mapping[str, str]) -> Figure:
    """Scores against the number of samples, a panel for each of `scores` (column: its name in words).

    `curves` has columns `line`, `dashed`, `samples` and the scores. A line and its dashed companion have the
    same colour and marker; colours are Okabe and Ito's, told apart without colour vision.
    """
    figure = Figure(figsize=(5 * len(scores), 4), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    names = list(dict.fromkeys(curves["line"]))
    for panel, (column, title) in zip(panels, scores.items(), strict=True):
        for (name, dashed), part in curves.groupby(["line", "dashed"], sort=True):
            place = names.index(name)
            panel.plot(
                part["samples"],
                part[column],
                color=OKABE_ITO[place % len(OKABE_ITO)],
                marker="osD^vP"[place % 6],
                linestyle="--" if dashed else "-",
                label=f"{name}, {'equal points' if dashed else 'RiemannOpt'}",
            )
        panel.set(title=title, xscale="log", xlabel="samples")
        counts = sorted(curves["samples"].unique())
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.minorticks_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _width(panels: int) -> float:
    """Of a figure with panels beside each other, in inches."""
    return 7.0 if panels == 1 else max(11.5, 3.6 * panels)


def _taken_as_they_are(legend: Legend) -> None:
    """Show the texts of a legend without taking what is between two dollars for a formula."""
    for text in legend.get_texts():
        text.set_text(printable(text.get_text()))
        text.set_parse_math(False)


def picture(figure: Figure, kind: str = "png") -> bytes:
    """The figure in a format of matplotlib's, the same bytes each time."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with rc_context({"svg.hashsalt": "riemannopt", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=120, metadata=metadata)
    return buffer.getvalue()

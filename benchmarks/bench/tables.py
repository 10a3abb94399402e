"""The page of a benchmark: its tables in Markdown, from what was measured."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def page(found: Mapping[str, Any]) -> str:
    """All tables of the sections that there are."""
    machine = found["machine"]
    models = machine["models"]
    lines = [
        "# Speed",
        "",
        f"Written by `make bench` on {machine['device']}, {machine['threads']} threads,",
        f"torch {machine['torch']}. {machine['batch']} gradients at once.",
        *(f"{name}: {images} images, {samples} samples." for name, (images, samples) in models.items()),
        f"A ratio is the median of {machine['turns']} turns, each between two of what it is compared with,",
        "with the least and the greatest. Others get the model as it is loaded; ours has its normalisations",
        "folded, as in a run's workers. The Rescale rule's ramps are one kernel, as in workers that have",
        "been at work for a while.",
    ]
    for name, table in TABLES.items():
        if name in found:
            lines += ["", *table(found[name])]
    return "\n".join(lines) + "\n"


def _bare(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(
        "Over the bare model",
        "Seconds over those of the bare model's gradients and forward passes that the work needs, in the",
        "same batches.",
    )
    names = [name for name in next(iter(found.values())) if not name.endswith("_ms")]
    rows = [[f"`{name}`", *(_ratio(table[name]) for table in found.values())] for name in names]
    ends = ("gradient_ms", "gradient_as_loaded_ms", "forward_ms")
    rows += [
        [
            f"bare {end.removesuffix('_ms').replace('_', ' ')}, ms",
            *(f"{table[end]:.1f}" for table in found.values()),
        ]
        for end in ends
    ]
    yield from _table(["work", *found], rows)


def _others(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(
        "Over others",
        "Their seconds over ours for the same number of samples, and how far the maps are apart (L1,",
        "relative).",
    )
    rows = [[f"`{name}`", _ratio(value), f"{value['maps_apart']:.1e}"] for name, value in found.items()]
    yield from _table(["what", "theirs over ours", "maps apart"], rows)


def _grid(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(
        "The paper's grid",
        "Three methods, two placements and insertion, as a worker evaluates a shard, over the bare model's",
        "seconds for as many gradients and forward passes: with its normalisations folded, and as it is",
        "loaded. A loop takes a gradient for each point of each cell.",
    )
    rows = [
        [
            f"`{model}`",
            str(table["photos"]),
            ", ".join(map(str, table["samples"])),
            *(f"{table[f'{name}_an_image']:.0f}" for name in ("gradients", "passes")),
            str(table["gradients_of_a_loop"]),
            *(f"{table[name]:.2f}" for name in ("median", "over_as_loaded")),
        ]
        for model, table in found.items()
    ]
    heads = ["model", "photos", "samples", "gradients a photo", "passes", "a loop's gradients"]
    heads += ["over bare", "over bare as loaded"]
    yield from _table(heads, rows)


def _equal(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(
        "At equal true error",
        "Our seconds a map over those of captum's defaults (`ig`, 50 Gauss-Legendre points) and of PAIR's",
        "(`blur_ig`, 100 steps), with the fewest samples whose mean distance from the converged maps is no",
        "larger.",
    )
    rows = [
        [
            f"`{path}`, `{name}`",
            str(table["photos"]),
            f"{table['their_error']:.3f}",
            f"{value['error']:.3f}",
            str(value["samples"]),
            _ratio(value, 3),
        ]
        for path, table in found.items()
        for name, value in table.items()
        if isinstance(value, dict)
    ]
    yield from _table(["maps", "photos", "their error", "ours", "samples", "ours over theirs"], rows)


def _scale(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading("By size")
    for name, values in found.items():
        rows = [[f"{value:.2f}" for value in values.values()]]
        yield f"{name.replace('_', ' ')}:"
        yield ""
        yield from _table([*values], rows)
        yield ""


def _heading(title: str, *lines: str) -> Iterator[str]:
    """A section's title and what its table says, in lines, each with an empty one behind."""
    yield from (f"## {title}", "", *lines, *([""] if lines else []))


def _table(heads: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _ratio(value: Mapping[str, Any], digits: int = 2) -> str:
    return " ".join(
        [f"{value['median']:.{digits}f}", f"[{value['low']:.{digits}f}, {value['high']:.{digits}f}]"]
    )


TABLES = {"bare": _bare, "others": _others, "grid": _grid, "equal": _equal, "scale": _scale}

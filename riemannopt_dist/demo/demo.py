"""The demo: the whole system on photos that come with scikit-image, in a table and a picture."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike

from riemannopt_dist.data.classes import class_name
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.weights import RANDOM
from riemannopt_dist.reader import RunReader
from riemannopt_dist.reports.efficiency import sample_efficiency
from riemannopt_dist.reports.figures import overlay_figure, picture
from riemannopt_dist.reports.table_one import METHODS
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.fit import FitConfig
from riemannopt_dist.run.config.loading import load_config, make_config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.examples import evaluated_examples
from riemannopt_dist.run.maps import CONVERGED
from riemannopt_dist.run.stages.batches import read_tensor

SAMPLES = 16
PLACED: Mapping[str, str] = {
    "linear": "equal",
    "riemannopt": "RiemannOpt",
    "adaptive": "for each photo, Rescale rule",
    "exact": "exact bound, softmax-weighted",
}
"""What the table calls the placements of the demo's cells."""

PHOTOS = 1
"""How many photos are drawn."""
SHOWN: Mapping[str, str] = {
    "linear": "equal points",
    "riemannopt": "RiemannOpt",
    "adaptive": "for this photo",
}
"""What the picture calls the placements of the maps in it."""
PATHS = ("ig", "blur_ig")
"""The paths whose maps are drawn."""


def demo_config(output: str, fit: bool = False) -> Config:
    """The configuration in demo.yaml, with another run directory; with `fit`, profiles of its own photos."""
    config = load_config(str(Path(__file__).with_name("demo.yaml")), {"output": output})
    if not fit:
        return config
    return config.model_copy(update={"fit": FitConfig(images=4, samples=64)})


# --- The table ---


def demo_table(results: pa.Table) -> list[list[str]]:
    """Rows of text: for every method and placement the true error of 16 evaluations, and what it saves.

    "as good as" is the number of equal points with the same mean error; "nearer on" counts the photos whose
    map is nearer to the converged one than that of 16 equal points.
    """
    frame = results.to_pandas()
    savings = {
        (row["path"], row["placement"], row["samples"]): row
        for row in sample_efficiency(results).to_dict("records")
    }
    rows = [["method", "16 evaluations", "error [95 % interval]", "as good as", "nearer on", "s a photo"]]
    for method, (title, _) in METHODS.items():
        cells = frame[frame["path"] == method].set_index("image_id")
        best = cells[cells["placement"] == "linear"].groupby("samples")["reference_error"].mean().min()
        cells = cells[cells["samples"] == SAMPLES]
        equal = cells[cells["placement"] == "linear"]["reference_error"]
        for placement, words in PLACED.items():
            cell = cells[cells["placement"] == placement]
            if len(cell):
                saving = savings.get((method, placement, SAMPLES))
                rows.append([title, words, *_numbers(cell, saving, best)])
                rows[-1].insert(4, "" if words == "equal" else _nearer(cell["reference_error"], equal))
    return rows


def _numbers(cell: pd.DataFrame, saving: Mapping[Hashable, float] | None, best: float) -> list[str]:
    """The error with its interval, equal points as good, and seconds; `best` is equal points' least error."""
    mean, seconds = cell["reference_error"].mean(), f"{cell['seconds'].mean():.1f}"
    if saving is None:
        return [f"{mean:.2f}", "", seconds]
    low, high = saving["reference_error_mean_low"], saving["reference_error_mean_high"]
    least = "at least " if mean < best else ""
    return [f"{mean:.2f} [{low:.2f}, {high:.2f}]", f"{least}{saving['efficiency'] * SAMPLES:.0f}", seconds]


def _nearer(errors: "pd.Series[float]", equal: "pd.Series[float]") -> str:
    return f"{int((errors < equal.reindex(errors.index)).sum())} of {len(errors)}"


# --- The picture ---


def draw_maps(directory: RunDirectory) -> list[str]:
    """Draw the maps of the first photos: equal points, RiemannOpt's, ours, and the converged map.

    They are those that the run has stored. The names of the pictures.
    """
    config = make_config(directory.storage.read_json("run.json")["config"], "run.json")
    model = load_model(config.model.name, RANDOM, **config.model.settings)  # it tells how photos are cut
    rows = {
        (row["image_id"], row["path"], row["placement"]): row
        for row in directory.shard_rows("results")
        if row["samples"] == SAMPLES
    }
    names = []
    for example in evaluated_examples(directory.read_images() or [], config)[:PHOTOS]:
        photo, image_id = read_tensor(example.image, model), example.image.image_id
        lines = [(METHODS[path][0], maps_beside(directory, image_id, path, rows)) for path in PATHS]
        probability = rows[image_id, PATHS[0], "linear"]["f_input"]
        title = f"{class_name(example.target)}, probability {probability:.2f}"
        shown = photo.permute(1, 2, 0).double().numpy()
        figure = overlay_figure(np.stack([shown] * len(lines)), title, lines)
        name = f"maps/{image_id.rsplit('.', 1)[0]}.png"
        directory.storage.write_bytes(name, picture(figure))
        names.append(name)
    return names


def maps_beside(
    directory: RunDirectory, image_id: str, path: str, rows: Mapping[tuple[str, str, str], Mapping[str, Any]]
) -> list[tuple[str, ArrayLike]]:
    """Captions, with true errors, and maps (H, W) of an image along a path; the last is the converged one."""
    reader, lines = RunReader(directory), []
    for placement, words in SHOWN.items():
        off = rows[image_id, path, placement]["reference_error"]
        values = dict(reader.maps(path=path, placement=placement, samples=SAMPLES))
        lines.append((f"{SAMPLES} {words}: {off:.0%} off", values[image_id]))
    return [*lines, ("converged", dict(reader.maps(path=path, estimator=CONVERGED))[image_id])]

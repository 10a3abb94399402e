"""The demo: the whole system on photos that come with scikit-image, in a table and a picture."""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.data.classes import class_name
from riemannopt_dist.data.files import files_of
from riemannopt_dist.estimators.adaptive_rescale import adaptive_rescale_attribution
from riemannopt_dist.methods import integrate_path
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.folding import folded
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import target_output
from riemannopt_dist.paths.base import Path as AttributionPath
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.placement.equidistribution import density_partitions
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_schedule, schedule_from_partition
from riemannopt_dist.reports.efficiency import sample_efficiency
from riemannopt_dist.reports.figures import overlay_figure, picture
from riemannopt_dist.reports.table_one import METHODS
from riemannopt_dist.run.config import Config, load_config, make_config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.examples import evaluated_examples
from riemannopt_dist.run.memory import CPU_BATCH
from riemannopt_dist.run.stages.batches import example_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.tally import Tally

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
CONVERGED = 64
"""The intervals of what is drawn as the converged map."""

PATHS: Mapping[str, Callable[[Tensor], AttributionPath]] = {
    "ig": StraightPath.from_black,
    "blur_ig": BlurPath,
}


def demo_config(output: str, fit: bool = False) -> Config:
    """The configuration in demo.yaml, with another run directory; with `fit`, profiles of its own photos."""
    config = load_config(str(Path(__file__).with_name("demo.yaml")), {"output": output})
    if not fit:
        return config
    return make_config({**config.published(), "fit": {"images": 4, "samples": 64}}, "demo.yaml")


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

    The names of the pictures.
    """
    config = make_config(directory.storage.read_json("run.json")["config"], "run.json")
    profiles = {name: Profile.from_fields(directory.read_profile(name) or {}) for name in PATHS}
    model = folded(load_model(config.model.name, config.model.weights))
    examples = evaluated_examples(directory.read_images() or [], config)[:PHOTOS]
    engine = Engine(model, torch.device("cpu"), files_of(config.images), CPU_BATCH, Tally())
    errors = {
        (row["image_id"], row["path"], row["placement"]): row["reference_error"]
        for row in directory.shard_rows("results")
        if row["samples"] == SAMPLES
    }
    names = []
    for (example,), images, targets in example_batches(examples, engine, 1):
        rows = []
        for name, path in PATHS.items():
            off = {p: errors[example.image.image_id, name, p] for p in SHOWN}
            rows.append((METHODS[name][0], maps_beside(model, path(images), targets, profiles[name], off)))
        probability = float(target_output(model, images, targets))
        title = f"{class_name(example.target)}, probability {probability:.2f}"
        figure = overlay_figure(images[0].permute(1, 2, 0).double().numpy(), title, rows)
        name = f"maps/{example.image.image_id.rsplit('.', 1)[0]}.png"
        directory.storage.write_bytes(name, picture(figure))
        names.append(name)
    return names


def maps_beside(
    model: Classifier, path: AttributionPath, targets: Tensor, profile: Profile, errors: Mapping[str, float]
) -> list[tuple[str, Tensor]]:
    """Captions and maps (H, W) of the first image of a path; the last one is the converged map.

    `errors` are the true errors that the run measured, by placement. What is shown as converged has but half
    of the intervals that they were measured against: nobody sees the difference.
    """
    schedules = [
        linear_schedule(SAMPLES),
        optimize_schedule(profile, SAMPLES, "right", placement="riemannopt"),
        schedule_from_partition(density_partitions(profile, "trapezoid", [CONVERGED])[0], "trapezoid"),
    ]
    equal, riemannopt, converged = integrate_path(model, path, targets, schedules)
    ours = adaptive_rescale_attribution(model, path, targets, profile, SAMPLES)
    shown = [
        (f"{SAMPLES} {SHOWN[placement]}: {errors[placement]:.0%} off", result.maps[0].sum(0))
        for placement, result in zip(SHOWN, (equal, riemannopt, ours), strict=True)
    ]
    return [*shown, ("converged", converged.maps[0].sum(0))]

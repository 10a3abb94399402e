"""The demo: the whole system on photos that come with scikit-image."""

from pathlib import Path

import torch

from riemannopt_dist.analysis.figures import attribution_figure, picture
from riemannopt_dist.attribution import integrate_path
from riemannopt_dist.images import files_of
from riemannopt_dist.models import load_model
from riemannopt_dist.paths import StraightPath
from riemannopt_dist.profile import Profile
from riemannopt_dist.run.batches import subject_batches
from riemannopt_dist.run.config import Config, load_config, make_config
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.driver import evaluated_subjects
from riemannopt_dist.run.engine import Engine
from riemannopt_dist.run.grid import Cell, cell_schedules
from riemannopt_dist.run.memory import CPU_BATCH
from riemannopt_dist.run.tally import Tally

SHOWN = [
    Cell("ig", "linear", "left", 16),
    Cell("ig", "exact", "left", 16),
    Cell("ig", "linear", "trapezoid", 65),
]


def demo_config(output: str) -> Config:
    """The configuration in demo.yaml, with another run directory."""
    return load_config(str(Path(__file__).with_name("demo.yaml")), {"output": output})


def draw_maps(directory: RunDirectory) -> list[str]:
    """Draw the evaluated images' maps with linear and exact points beside a fine one; the names written."""
    found = directory.storage.read_json("run.json")["config"]
    config = make_config(found, "run.json")
    profile = directory.storage.read_json("schedules/ig.json")["profile"]
    schedules = cell_schedules(SHOWN, {"ig": Profile.from_fields(profile)})
    model = load_model(config.model.name, config.model.weights)
    subjects = evaluated_subjects(directory.read_images() or [], config)
    names = []
    engine = Engine(model, torch.device("cpu"), files_of(config.images), CPU_BATCH, Tally())
    for (subject,), images, targets in subject_batches(subjects[:3], engine, 1):
        results = integrate_path(
            model, StraightPath.from_black(images), targets, [schedules[cell] for cell in SHOWN]
        )
        maps = [
            (f"{cell.schedule} {cell.rule}, {cell.samples} points", result.maps[0].double().numpy())
            for cell, result in zip(SHOWN, results, strict=True)
        ]
        figure = attribution_figure(
            images[0].permute(1, 2, 0).double().numpy(),
            maps,
            f"{subject.image.image_id}, class {subject.target}",
        )
        name = f"maps/{subject.image.image_id.rsplit('.', 1)[0]}.png"
        directory.storage.write_bytes(name, picture(figure))
        names.append(name)
    return names

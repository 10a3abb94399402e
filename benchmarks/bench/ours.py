"""What we do, each piece of work with what it asks of the model: the gradients and forward passes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import riemannopt_dist as ro
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.estimators.idgi import IdgiSums
from riemannopt_dist.estimators.passes import sums_along
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.quadrature.profile import equispaced
from riemannopt_dist.quadrature.variation import path_variation
from riemannopt_dist.run.config.loading import load_config, make_config
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.grid import place
from riemannopt_dist.run.profiles import read_profiles
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.evaluate import Evaluation
from riemannopt_dist.run.stages.tally import Tally


@dataclass(frozen=True)
class Piece:
    """A piece of work, how many gradients and forward passes of single images it needs, and how many at once.

    Fewer than a micro-batch where the next ones depend on the last.
    """

    work: Callable[[], object]
    gradients: int
    passes: int = 0
    at_once: int = sys.maxsize


def pieces(model: Classifier, images: Tensor, targets: Tensor, samples: int, batch: int) -> dict[str, Piece]:
    """Methods, estimators, the profile and the metrics, in micro-batches of `batch`."""
    count = len(images)
    objective = ro.Objective(model, targets, internal_batch_size=batch)
    line, schedule = ro.StraightPath.from_black(images), ro.linear_schedule(samples, "trapezoid")
    profile = read_profiles("demo:", ["ig"])["ig"]
    walk = ro.GuidedPath(line)
    maps = torch.rand(1, *images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    each = count * samples
    return {
        "ig": Piece(lambda: ro.integrate_path(objective, line, [schedule]), each),
        "ig with idgi": Piece(
            lambda: sums_along(line, objective, [(RiemannSums, schedule), (IdgiSums, schedule)]), each
        ),
        "blur_ig": Piece(lambda: ro.integrate_path(objective, ro.BlurPath(images), [schedule]), each),
        "guided_ig": Piece(
            lambda: sums_along(walk, objective, [(RiemannSums, ro.linear_schedule(samples))]),
            each,
            count,
            at_once=count,
        ),
        "rescale": Piece(lambda: ro.rescale_attribution(objective, line, ro.linear_schedule(samples)), each),
        "rescale, adaptive": Piece(
            lambda: ro.adaptive_rescale_attribution(objective, line, profile, samples), each
        ),
        "softmax_trapezoid, adaptive": Piece(
            lambda: ro.adaptive_attribution(objective, line, profile, samples), each
        ),
        "profile": Piece(lambda: path_variation(line, objective, equispaced(samples)), each),
        "reference": Piece(lambda: ro.converge(objective, line, 2 * samples), count * (2 * samples + 1)),
        "insertion": Piece(lambda: ro.insertion(objective, images, maps), 0, count * 19 + 2 * count),
        "deletion": Piece(lambda: ro.deletion(objective, images, maps), 0, count * 19 + 2 * count),
    }


def grid(model: Classifier, photos: int, samples: list[int], batch: int) -> Callable[[], tuple[int, int]]:
    """The paper's grid with its metrics, on some of the demo's photos, as a worker evaluates a shard.

    What is returned does it, and tells the gradients and the forward passes.
    """
    paper = load_config("jobs/configs/paper.yaml", {"images": "demo:", "output": "nowhere"})
    fields = paper.published() | {"fit": {"profiles": "demo:"}}
    fields["grid"] = [{**block, "samples": samples} for block in fields["grid"][:3]]
    config = make_config(fields, "paper.yaml")
    labels = {label: label.partition("(")[0] for label in config.paths()}
    profiles = {label: read_profiles("demo:", [path])[path] for label, path in labels.items()}
    placed = place(config.cells(), config.paths(), profiles)
    stage = Evaluation(
        placed=placed,
        paths=config.paths(),
        controls=(),
        metrics=config.metrics,
        reference_edges={},
        reference_images=frozenset(),
        explain="probability",
        batch_size=photos,
        seed=0,
    )
    device = model.mean.device
    examples = [Example(ref, 0) for ref in list_images("demo:")[:photos]]

    def work() -> tuple[int, int]:
        tally = Tally()
        hook = model.register_forward_pre_hook(
            lambda _, inputs: tally.saw(len(inputs[0]), gradient=torch.is_grad_enabled())
        )
        try:
            for _ in stage.rows(Engine(model, device, files_of("demo:"), batch, tally), examples):
                pass
        finally:
            hook.remove()
        told = tally.timings(examples)
        return told.gradient_evaluations, told.forward_passes

    return work

"""Seconds a gradient evaluation inside each method, over the bare model's forward and input gradient.

Both at the same batch size, in one process, in turn: each ratio is taken between neighbours in time and the
median is printed, so that a machine whose speed drifts does not matter. InceptionV3's weights are random,
which speed does not care about. IG and Blur IG of PAIR's `saliency` stand beside them where it is installed
(its Guided IG does not run with current releases of NumPy).

    python benchmarks/methods_speed.py [--models efficientnet_lite0 inception_v3] [--batch 16] [--device cuda]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from riemannopt_dist.estimators.adaptive_rescale import adaptive_rescale_attribution
from riemannopt_dist.estimators.idgi import IdgiSums
from riemannopt_dist.estimators.passes import sums_along
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.methods import guided_ig, integrate_path
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.profile import Profile, equispaced
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.quadrature.variation import path_variation


def timed(work: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    """Seconds of one call."""
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def methods(
    model: Classifier, images: Tensor, targets: Tensor, samples: int, batch: int
) -> dict[str, Callable[[], object]]:
    """Each method on the same images with the same number of gradients: `samples` for each image."""
    schedule = linear_schedule(samples, "trapezoid")
    even = Profile((0.5,), (1.0,), (0.0,), 1, roughness=(1.0,))
    objective = Objective(model, targets, internal_batch_size=batch)
    return {
        "IG": lambda: integrate_path(
            Objective(model, targets, internal_batch_size=batch), StraightPath.from_black(images), [schedule]
        ),
        "Blur IG": lambda: integrate_path(
            Objective(model, targets, internal_batch_size=batch), BlurPath(images), [schedule]
        ),
        "IG's Rescale rule": lambda: rescale_attribution(
            Objective(model, targets, internal_batch_size=batch),
            StraightPath.from_black(images),
            linear_schedule(samples),
        ),
        "IG's adaptive Rescale rule": lambda: adaptive_rescale_attribution(
            Objective(model, targets, internal_batch_size=batch),
            StraightPath.from_black(images),
            even,
            samples,
        ),
        "Guided IG": lambda: guided_ig(model, images, targets, schedule, internal_batch_size=batch),
        "IG and IDGI": lambda: sums_along(
            StraightPath.from_black(images), objective, [(RiemannSums, schedule), (IdgiSums, schedule)]
        ),
        "IG's profile": lambda: path_variation(
            StraightPath.from_black(images), objective, equispaced(samples)
        ),
    }


def pair_methods(
    model: Classifier, images: Tensor, targets: Tensor, samples: int, batch: int
) -> dict[str, Callable[[], object]]:
    """PAIR's methods on the same work, an image at a time, as it takes them; none if not installed."""
    try:
        import saliency.core as pair
    except ImportError:
        return {}

    def gradients(
        inputs: np.ndarray, call_model_args: int, expected_keys: object = None
    ) -> dict[str, np.ndarray]:
        given = torch.from_numpy(inputs).to(images).movedim(3, 1)
        target = torch.full((len(given),), call_model_args, device=images.device)
        _, found = Objective(model, target, internal_batch_size=batch).gradients(given)
        return {pair.INPUT_OUTPUT_GRADIENTS: found.movedim(1, 3).cpu().numpy()}

    photos = [image.movedim(0, 2).cpu().numpy() for image in images]

    def run(method: object, **options: object) -> None:
        for photo, target in zip(photos, targets.tolist(), strict=True):
            method.GetMask(photo, gradients, target, batch_size=batch, **options)

    return {
        "PAIR IG": lambda: run(pair.IntegratedGradients(), x_steps=samples),
        "PAIR Blur IG": lambda: run(pair.BlurIG(), steps=samples),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["efficientnet_lite0", "inception_v3"])
    parser.add_argument("--batch", type=int, default=8, help="images, and gradients at once")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--cpu-clock", action="store_true", help="processor seconds: for a machine shared with others"
    )
    options = parser.parse_args()
    clock = time.process_time if options.cpu_clock else time.perf_counter
    for name in options.models:
        model = load_model(name, None if name.startswith("efficientnet_lite") else "random")
        model = model.to(options.device).to(memory_format=torch.channels_last)
        shape = (options.batch, *model.input_shape)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(options.device)
        targets = torch.arange(options.batch, device=options.device)

        def bare(model: Classifier = model, images: Tensor = images, targets: Tensor = targets) -> None:
            for _ in range(options.samples):
                Objective(model, targets, internal_batch_size=options.batch).gradients(images)

        timed(bare, options.device, clock)
        gradients = options.batch * options.samples
        given = (model, images, targets, options.samples, options.batch)
        for label, work in (methods(*given) | pair_methods(*given)).items():
            timed(work, options.device, clock)
            ratios, alone = [], []
            for _ in range(options.repeats):
                before = timed(bare, options.device, clock)
                inside = timed(work, options.device, clock)
                after = timed(bare, options.device, clock)
                ratios.append(2 * inside / (before + after))
                alone.append(min(before, after) / gradients)
            print(
                f"{name}, batch {options.batch}, {options.device}: {label} {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f}) of the bare model's "
                f"{1000 * statistics.median(alone):.2f} ms a gradient",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""How our seconds grow with images, samples and size, and the dispatcher with actors."""

import argparse
from functools import partial
from typing import Any

import riemannopt_dist as ro
from benchmarks.bench.networks import fast, loaded, noise
from benchmarks.bench.ratio import progress, seconds


def section(options: argparse.Namespace) -> dict[str, Any]:
    """Integrated Gradients' seconds an evaluation by images, samples and size; and the dispatcher's."""
    from benchmarks.dispatcher_scale import simulate

    model = fast(loaded("efficientnet_lite0", options))
    device = model.mean.device

    def each(images: int, samples: int, size: int | None = None) -> float:
        batch, targets = noise(model, images, size)
        work = partial(
            ro.integrated_gradients, model, batch, targets, ro.linear_schedule(samples),
            internal_batch_size=options.batch,
        )  # fmt: skip
        seconds(work, device)
        least = 1000 * min(seconds(work, device) for _ in range(options.turns)) / (images * samples)
        progress(f"{images} images, {samples} samples, size {size or model.input_size}: {least:.1f} ms")
        return least

    actors = {}
    for count in (10, 100, 1000):
        done, driver, _ = simulate(count, 20 * count, 0.2)
        actors[str(count)] = 1000 * driver / done
    return {
        "ms_an_evaluation_by_images": {str(n): each(n, 16) for n in (1, 2, 4, 8, 16)},
        "ms_an_evaluation_by_samples": {str(n): each(4, n) for n in (4, 8, 16, 32)},
        "ms_an_evaluation_by_size": {str(n): each(4, 16, n) for n in (96, 160, 224, 320)},
        "driver_ms_a_shard_by_actors": actors,
    }

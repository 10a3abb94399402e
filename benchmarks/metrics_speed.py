"""The cost of insertion and of the information curves for the maps of one photo, against the bare model.

python benchmarks/metrics_speed.py [--maps 24] [--batch 16 32] [--conventions pair fast] [--device cuda]
"""

import argparse
import time
from collections.abc import Callable

import torch
from skimage import data
from torch import Tensor

from riemannopt_dist.metrics.information import CONVENTIONS, information_blur, information_curve
from riemannopt_dist.metrics.insertion import insertion
from riemannopt_dist.models import load_model


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall-clock seconds on a GPU; on the CPU those of this process's threads, whatever else is running."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def coffee(size: int) -> Tensor:
    photo = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None, :, :, 100:500].float() / 255
    small = torch.nn.functional.interpolate(photo, (size, size), mode="bilinear", antialias=True)
    return (small * 255).round().clamp(0, 255) / 255


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--maps", type=int, default=24)
parser.add_argument("--batch", type=int, nargs="+", default=[16, 32])
parser.add_argument("--conventions", nargs="*", default=["pair", "fast"], choices=list(CONVENTIONS))
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--workers", type=int, default=None)
options = parser.parse_args()
device = options.device

model = load_model("efficientnet_lite0").to(device)
image = coffee(224).to(device)
with torch.no_grad():
    probability, target = model(image).softmax(dim=1).max(dim=1)
noise = torch.randn(options.maps, *image.shape, generator=torch.Generator().manual_seed(0)).to(device)
maps = image * torch.nn.functional.avg_pool3d(noise, (1, 5, 5), 1, (0, 2, 2))
print(f"{device}, {torch.get_num_threads()} threads, {options.maps} maps, f(x) = {probability.item():.3f}")

for batch in options.batch:
    passes = options.maps * 19
    pictures = image.expand(batch, -1, -1, -1).contiguous()

    @torch.no_grad()
    def bare(pictures: Tensor = pictures, passes: int = passes, batch: int = batch) -> None:
        for start in range(0, passes, batch):
            model(pictures[: min(batch, passes - start)])

    def inserted(batch: int = batch) -> None:
        insertion(model, image, target, maps, internal_batch_size=batch)

    seconds(bare, device)
    # The model before and after what is measured, so that a busy machine shows itself.
    before, inserting, after = (seconds(work, device) for work in (bare, inserted, bare))
    bare_time = (before + after) / 2
    print(
        f"batch {batch}: model {passes / before:.1f} and {passes / after:.1f} images/s; insertion "
        f"{(passes + 2) / inserting:.1f} images/s, {bare_time / inserting:.2f} of the model"
    )
    for convention in options.conventions:
        blurring = seconds(
            lambda convention=convention: information_blur(image, convention=convention), device
        )

        def curves(convention: str = convention, batch: int = batch) -> None:
            result = information_curve(
                model,
                image,
                target,
                maps,
                convention=convention,
                workers=options.workers,
                internal_batch_size=batch,
            )
            assert result.sic_skipped == (None,), result.sic_skipped

        taken = seconds(curves, device)
        share = CONVENTIONS[convention].steps / 19
        print(
            f"  SIC and AIC, {convention}: {taken:.2f} s, {taken / inserting:.2f} of insertion "
            f"(its forward passes alone: {share:.2f}); the blurred image takes {blurring * 1e3:.0f} ms"
        )

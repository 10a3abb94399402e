"""Secants of ten families of convolutional networks, with random weights, against a trapezoid.

    python -m benchmarks.rescale_families --side 64 --intervals 64

prints for each network the distance of its map of secants from that of a trapezoid of 1,024 intervals, as a
share of the latter's L1 norm, and how far the map's sum is off from the change of the logit. Normalisations
have random scales, since some networks start with residual branches that are zero. float64, noise as image.
"""

import argparse
import time

import torch
from torch import Tensor, nn

from riemannopt_dist.estimators.converged import converge
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import linear_schedule

FAMILIES = (
    "resnet18",
    "seresnet18",
    "ecaresnet26t",
    "resnetrs50",
    "regnety_002",
    "densenet121",
    "mobilenetv3_small_050",
    "convnext_atto",
    "efficientnet_b0",
    "repvgg_a0",
)
NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def network(name: str) -> nn.Module:
    """The network in float64, with random scales and shifts in its normalisations."""
    model = load_model(f"timm:{name}", "random").double()
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, NORMS):
            layer.weight.data = 0.5 + torch.rand(layer.weight.shape, generator=generator).double()
            layer.bias.data = 0.2 * torch.randn(layer.bias.shape, generator=generator).double()
    return model


def measured(name: str, image: Tensor, intervals: int, fine: int) -> tuple[float, float]:
    """The map's distance from the trapezoid's, and its sum's from the change of the logit, both relative."""
    model, path = network(name), StraightPath.from_black(image)
    with torch.no_grad():
        target = model(image).argmax(1)
    result = rescale_attribution(Objective(model, target, output="logit"), path, linear_schedule(intervals))
    reference = converge(Objective(model, target, output="logit"), path, fine)
    change = result.f_input - result.f_baseline
    gap = (result.maps.sum() - change).abs() / change.abs()
    return float(compare(result.maps, reference.maps).error), float(gap)


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--families", nargs="+", default=FAMILIES, help="names of timm's")
    parser.add_argument("--side", type=int, default=64, help="pixels of the image's sides")
    parser.add_argument("--intervals", type=int, default=64, help="secants a map")
    parser.add_argument("--fine", type=int, default=1024, help="intervals of the trapezoid")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, options.side, options.side, dtype=torch.float64, generator=generator)
    print(f"{'network':24} {'error':>9} {'incomplete':>11} {'seconds':>8}")
    for name in options.families:
        start = time.monotonic()
        error, gap = measured(name, image, options.intervals, options.fine)
        print(f"{name:24} {error:9.2e} {gap:11.1e} {time.monotonic() - start:8.0f}", flush=True)


if __name__ == "__main__":
    main()

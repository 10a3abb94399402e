"""How far Guided IG's maps and scores move on a real network when only rounding changes.

Photos that come with scikit-image, EfficientNet-Lite0: float64 against float32, other micro-batches, and
noise on the image. Each line is the relative L1 distance of the maps and the scores' values.

    python benchmarks/guided_chaos.py [--samples 16] [--device cuda]
"""

import argparse

import torch
from torch import Tensor

from riemannopt_dist.data.decoding import decode_image, prepare_image
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.methods import guided_ig
from riemannopt_dist.metrics.completeness import relative_error
from riemannopt_dist.metrics.insertion import insertion
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import Objective
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.testing.image_files import read_image

PHOTOS = ("chelsea.png", "coffee.png", "rocket.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    model = load_model("efficientnet_lite0").to(options.device)
    refs = [ref for ref in list_images("demo:") if ref.image_id in PHOTOS]
    photos = [prepare_image(decode_image(read_image(ref.uri)), 224, 256) for ref in refs]
    images = torch.stack(photos).to(options.device)
    targets = model(images).argmax(dim=1)

    def run(label: str, dtype: torch.dtype, batch: int, noise: float = 0.0) -> Tensor:
        given = images.to(dtype)
        given = given + noise * torch.randn(given.shape, generator=torch.Generator().manual_seed(0)).to(given)
        result = guided_ig(
            model.to(dtype), given, targets, linear_schedule(options.samples), internal_batch_size=batch
        )
        score = insertion(Objective(model.to(dtype), targets), given, result.maps).score
        errors = ", ".join(f"{error:.3f}" for error in relative_error(result).tolist())
        scores = ", ".join(f"{value:.3f}" for value in score.tolist())
        print(f"{label:32} relative error {errors}; insertion {scores}", end="")
        return result.maps.double()

    base = run("float32, batches of 3", torch.float32, 3)
    print()
    for label, *change in (
        ("float32, batches of 1", torch.float32, 1),
        ("float64", torch.float64, 3),
        ("float32, noise of 1e-7", torch.float32, 3, 1e-7),
        ("float32, noise of 1e-5", torch.float32, 3, 1e-5),
    ):
        maps = run(label, *change)
        moved = (maps - base).abs().flatten(1).sum(1) / base.abs().flatten(1).sum(1)
        print("; maps move by " + ", ".join(f"{value:.2f}" for value in moved.tolist()))


if __name__ == "__main__":
    main()

"""What a precision costs: gradients and maps of photos in float32, TF32 and bfloat16 against float64.

    python -m benchmarks.precision [--images FOLDER] [--count 20] [--json FILE]

prints the L1 distance of each from the same in float64, as a share of its norm: the median over photos and
the largest. The Riemann sums are the same, so nothing but rounding differs. Values that go into convolutions
are rounded on the CPU, for bfloat16 also what comes out of them (riemannopt_dist/testing/rounding.py).
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch
from torch import Tensor

import riemannopt_dist as ro
from benchmarks.photos import readable
from riemannopt_dist.choices import Precision
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.testing.rounding import RoundedConvolutions

Context = Callable[[], AbstractContextManager[object]]
PRECISIONS: dict[str, tuple[Context, Precision]] = {
    "float32": (nullcontext, "fp32"),
    "TF32, dense convolutions": (lambda: RoundedConvolutions("tf32", grouped=False), "tf32"),
    "TF32, all convolutions": (lambda: RoundedConvolutions("tf32"), "tf32"),
    "bfloat16": (lambda: RoundedConvolutions("bfloat16"), "tf32"),
}
"""What rounds, and the precision whose rounding is allowed for; a CPU computes in float32 all the same."""
WORKS: dict[str, Callable[[ro.Objective, ro.StraightPath], Tensor]] = {
    "gradient": lambda objective, line: objective.gradients(line.images)[1],
    "IG 16": lambda objective, line: ro.integrate_path(objective, line, [even(16)])[0].maps,
    "IG 64": lambda objective, line: ro.integrate_path(objective, line, [even(64)])[0].maps,
    "secants 16": lambda objective, line: (
        ro.rescale_attribution(objective, line, ro.linear_schedule(16)).maps
    ),
}


def even(samples: int) -> ro.Schedule:
    return ro.linear_schedule(samples, "trapezoid")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", default="demo:")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load_model(options.model)
    errors: dict[str, dict[str, list[float]]] = {name: {work: [] for work in WORKS} for name in PRECISIONS}
    for image in some_photos(options.images, options.count, model):
        with torch.no_grad():
            target = model(image).argmax(1)
        for name, found in one_photo(model, image, target).items():
            for work, error in found.items():
                errors[name][work].append(error)
    print(table(errors))
    if options.json:
        options.json.write_text(json.dumps(errors, indent=2) + "\n", encoding="utf-8")


def some_photos(images: str, count: int, model: Classifier) -> Iterator[Tensor]:
    """So many images of a folder, each a batch of one, drawn with a seed from those that can be read."""
    refs = list_images(images)
    random.Random(0).shuffle(refs)
    return (image[None] for image in readable(refs, model, count))


def one_photo(model: Classifier, image: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """The errors of each precision and work; none where the Rescale rule's completeness does not hold."""
    wide = ro.StraightPath.from_black(image.double())
    exact = {work: function(ro.Objective(model.double(), target), wide) for work, function in WORKS.items()}
    model.float()
    line = ro.StraightPath.from_black(image)
    errors: dict[str, dict[str, float]] = {}
    for name, (context, precision) in PRECISIONS.items():
        errors[name] = {}
        objective = ro.Objective(model, target, precision=precision)
        for work, function in WORKS.items():
            with context(), suppress(ValueError):
                maps = function(objective, line).double()
                errors[name][work] = float((maps - exact[work]).abs().sum() / exact[work].abs().sum())
    return errors


def table(errors: dict[str, dict[str, list[float]]]) -> str:
    """Medians and the largest, in Markdown; refused where most photos are."""
    count = len(errors["float32"]["gradient"])
    lines = ["| precision | " + " | ".join(WORKS) + " |", "|---|" + "---|" * len(WORKS)]
    for name, works in errors.items():
        cells = [
            f"{statistics.median(found):.2%} ({max(found):.2%})" if 2 * len(found) > count else "refused"
            for found in works.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

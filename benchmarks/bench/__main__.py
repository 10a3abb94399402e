"""Our speed against the bare model's and that of others, as ratios of times taken in turn in one process.

    make bench                                   → bench.json and docs/bench.md, in about an hour
    python -m benchmarks.bench --device cuda     the same on a GPU
    python -m benchmarks.bench --only equal      one part of it: bare, others, grid, equal, scale

A ratio is the median of several turns, with the least and the greatest. Others get the model as `load_model`
gives it, ours is the same one as a worker of a run makes it: normalisations folded, channels last. PAIR's
`saliency` needs a NumPy below 2.4: both are fetched into a folder of their own, for this process alone.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import riemannopt_dist as ro
from benchmarks.bench.others import Pair, captum, gradient, loop
from benchmarks.bench.ours import Piece, grid, pieces
from benchmarks.bench.ratio import ratio, seconds
from benchmarks.bench.tables import page
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.folding import channels_last, folded
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import micro_batches
from riemannopt_dist.run.allocator import KEEP_MEMORY
from riemannopt_dist.run.memory import CPU_BATCH
from riemannopt_dist.run.profiles import read_profiles
from riemannopt_dist.run.stages.batches import read_tensor

PACKAGES = ("saliency==0.2.1", "numpy<2.4")
FOLDER = Path(".bench")
"""Where PACKAGES are."""
MODELS = {"efficientnet_lite0": (8, 16), "inception_v3": (4, 8)}
"""How many images and samples each is measured with, so that its turn takes seconds."""
CAPTUM_STEPS, PAIR_STEPS = 50, 100
"""Of their defaults: Gauss-Legendre points, and steps of the blur."""
TIMED = 4
"""How many photos are timed, of those whose errors are compared."""
Section = Callable[[argparse.Namespace], dict[str, Any]]
Attribution = Callable[[Tensor, Tensor], Tensor]
"""Maps of images and targets."""


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--batch", type=int, default=CPU_BATCH, help="gradients at once, as a CPU's worker")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--photos", type=int, default=4, help="photos of the parts equal and grid")
    parser.add_argument("--images", default="demo:", help="where those of equal are")
    parser.add_argument("--intervals", type=int, default=256, help="of the converged maps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[*SECTIONS])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path, help="a Markdown page with the tables")
    options = parser.parse_args()
    with_saliency()
    found = {"machine": machine(options)}
    for name in options.only:
        found[name] = SECTIONS[name](options)
        print(json.dumps({name: found[name]}, indent=2), flush=True)
    found["ratios"] = headlines(found)
    print(json.dumps(found["ratios"], indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.docs:
        options.docs.write_text(page(found), encoding="utf-8")


def with_saliency() -> None:
    """Go on as a process that finds PACKAGES first, fetched where they are not there, and keeps its memory.

    So do workers: without it a CPU spends a good part of its time on clearing pages.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(FOLDER.resolve()) in paths:
        return
    if not (FOLDER / "saliency").is_dir():
        fetch = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER)]
        subprocess.run([*fetch, *PACKAGES], check=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER.resolve()), str(Path.cwd()), *paths])
    os.environ |= KEEP_MEMORY
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks.bench", *sys.argv[1:]])


def progress(line: str) -> None:
    """Tell of what is measured, beside the results."""
    print(line, file=sys.stderr, flush=True)


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What it ran on."""
    cuda = torch.device(options.device).type == "cuda"
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "device": torch.cuda.get_device_name() if cuda else cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "batch": options.batch,
        "models": {name: MODELS[name] for name in options.models},
        "turns": options.turns,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def loaded(name: str, options: argparse.Namespace) -> Classifier:
    """A classifier as anybody has it; with random weights where it has none here, which speed ignores."""
    return load_model(name, None if name.startswith("efficientnet_lite") else "random").to(options.device)


def fast(model: Classifier) -> Classifier:
    """The same as a worker runs it."""
    return channels_last(folded(model))


def noise(model: Classifier, count: int, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Images of noise, and classes for them."""
    height, width = (size, size) if size else model.input_size
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    return images.to(model.mean), torch.arange(count, device=model.mean.device)


def bare_section(options: argparse.Namespace) -> dict[str, Any]:
    """Each piece of work over the bare model's forward pass and gradient, for as many of both."""
    return {name: bare(name, options) for name in options.models}


def bare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Those of one model, with the milliseconds of its bare gradient and forward pass."""
    plain = loaded(name, options)
    model, (count, samples) = fast(plain), MODELS[name]
    images, targets = noise(model, options.batch)
    device = images.device
    one_gradient, as_loaded, one_pass = (
        1000 * min(seconds(work, device) for _ in range(options.turns + 1)) / options.batch
        for work in (
            partial(gradient, model, images, targets),
            partial(gradient, plain, images, targets),
            partial(forward, model, images),
        )
    )
    table: dict[str, Any] = {
        "gradient_ms": one_gradient,
        "gradient_as_loaded_ms": as_loaded,
        "forward_ms": one_pass,
    }
    for piece_name, piece in pieces(model, images[:count], targets[:count], samples, options.batch).items():
        limit = partial(needed, model, images, targets, piece)
        measured = ratio(piece.work, limit, device, options.turns)
        table[piece_name] = asdict(measured) | {"peak_gib": _peak(device)}
        progress(f"{name}, {piece_name}: {measured}")
    return table


def needed(model: Classifier, images: Tensor, targets: Tensor, piece: Piece) -> None:
    """The gradients and passes of a piece of work, and nothing else, in batches as large as it can use."""
    for part in micro_batches(piece.gradients, min(len(images), piece.at_once)):
        gradient(model, images[: part.stop - part.start], targets[: part.stop - part.start])
    for part in micro_batches(piece.passes, min(len(images), piece.at_once)):
        forward(model, images[: part.stop - part.start])


@torch.no_grad()
def forward(model: Classifier, images: Tensor) -> Tensor:
    """The model's logits."""
    logits: Tensor = model(images)
    return logits


def _peak(device: torch.device) -> float:
    """The most memory so far, in GiB: of the device, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def others_section(options: argparse.Namespace) -> dict[str, Any]:
    """The seconds of others over ours for the same maps, and how far the two sets of maps are apart."""
    name, batch = options.models[0], options.batch
    plain, (count, n) = loaded(name, options), MODELS[name]
    model, pair = fast(plain), Pair(plain, batch)
    images, targets = noise(model, count)
    left, settings = ro.linear_schedule(n), {"internal_batch_size": batch}
    middle, right = (ro.linear_schedule(n, rule) for rule in ("midpoint", "right"))
    blur = ro.BlurPath(images, convention="original")
    works: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "ig_over_loop": (
            lambda: loop(plain, images, targets, n),
            lambda: ro.integrated_gradients(model, images, targets, left, **settings).maps,
        ),
        "ig_over_captum": (
            lambda: captum(plain, images, targets, n, batch, "riemann_middle"),
            lambda: ro.integrated_gradients(model, images, targets, middle, **settings).maps,
        ),
        "blur_ig_over_pair": (
            lambda: pair.blur_ig(images, targets, n),
            lambda: ro.blur_ig(model, images, targets, right, path=blur, **settings).maps,
        ),
        "guided_ig_over_pair": (
            lambda: pair.guided_ig(images, targets, n),
            lambda: ro.guided_ig(model, images, targets, left, **settings).maps,
        ),
    }
    table = {}
    for name, (theirs, ours) in works.items():
        measured = ratio(theirs, ours, images.device, options.turns)
        table[name] = asdict(measured) | {"maps_apart": apart(theirs(), ours())}
        progress(f"{name}: {measured}")
    return table


def apart(maps: Tensor, reference: Tensor) -> float:
    """‖a − b‖₁ / ‖b‖₁ over all images."""
    return float((maps - reference).abs().sum() / reference.abs().sum())


def grid_section(options: argparse.Namespace) -> dict[str, Any]:
    """The paper's grid and metrics over the bare model's time for the evaluations that it needs."""
    model = fast(loaded("efficientnet_lite0", options))
    counts = [16, 32, 64, 128]
    work = grid(model, options.photos, counts, options.batch)
    gradients, passes = work()
    images, targets = noise(model, options.batch)
    limit = partial(needed, model, images, targets, Piece(work, gradients, passes))
    measured = ratio(work, limit, images.device, 1)
    return asdict(measured) | {
        "gradients_an_image": gradients / options.photos,
        "passes_an_image": passes / options.photos,
        "gradients_of_a_loop": 3 * 2 * sum(counts),
    }


def equal_section(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a map where the mean true error is no larger than that of captum's and PAIR's defaults."""
    plain = loaded("efficientnet_lite0", options)
    model = fast(plain)
    images = torch.stack([read_tensor(ref, model) for ref in some_photos(options)]).to(options.device)
    targets = model(images).argmax(1)
    pair, batch = Pair(plain, options.batch), options.batch
    theirs: dict[str, Attribution] = {
        "ig": lambda images, targets: captum(plain, images, targets, CAPTUM_STEPS, batch, "gausslegendre"),
        "blur_ig": lambda images, targets: pair.blur_ig(images, targets, PAIR_STEPS),
    }
    return {
        path: at_equal_error(model, images, targets, path, options, work) for path, work in theirs.items()
    }


def some_photos(options: argparse.Namespace) -> list[ImageRef]:
    """As many as asked for, evenly out of all that there are: a folder has them by class."""
    photos = list_images(options.images)
    step = max(1, len(photos) // options.photos)
    return photos[::step][: options.photos]


def at_equal_error(
    model: Classifier,
    images: Tensor,
    targets: Tensor,
    path: str,
    options: argparse.Namespace,
    theirs: Attribution,
) -> dict[str, Any]:
    """Our estimators with the fewest samples that are as near to the converged maps, and their seconds.

    Errors are those of all images, seconds those of the first TIMED.
    """
    profile = read_profiles("demo:", [path])[path]
    line = ro.BlurPath(images) if path == "blur_ig" else ro.StraightPath.from_black(images)
    objective = ro.Objective(model, targets, internal_batch_size=options.batch)
    density = partial(_edges, profile)
    converged = ro.converge(objective, line, options.intervals, partition=density).maps
    limit = mean_error(theirs(images, targets), converged)
    best: dict[str, Any] = {"photos": len(images), "their_error": limit}
    few = images[:TIMED], targets[:TIMED]
    for estimator in ("rescale", "softmax_trapezoid"):
        for samples in (2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32):
            ours = partial(
                ro.attribute, model, path=path, estimator=estimator, placement="adaptive",
                samples=samples, profile=profile, internal_batch_size=options.batch,
            )  # fmt: skip
            error = mean_error(ours(images, targets).maps, converged)
            if error <= limit:
                measured = ratio(partial(ours, *few), partial(theirs, *few), images.device, options.turns)
                best[estimator] = asdict(measured) | {"samples": samples, "error": error}
                progress(f"{path}, {estimator}, {samples} samples: {measured}")
                break
    return best


def _edges(profile: ro.Profile, intervals: int) -> Any:
    from riemannopt_dist.quadrature.placement.equidistribution import density_partitions

    return density_partitions(profile, "trapezoid", [intervals])[0]


def mean_error(maps: Tensor, converged: Tensor) -> float:
    """The mean over images of ‖a − b‖₁ / ‖b‖₁."""
    return float(ro.compare(maps, converged).error.mean())


def scale_section(options: argparse.Namespace) -> dict[str, Any]:
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


def headlines(found: dict[str, Any]) -> dict[str, Any]:
    """The ratios that are compared from one version to the next, as far as they were measured."""
    names = ("ig_over_loop", "ig_over_captum", "blur_ig_over_pair", "guided_ig_over_pair")
    ratios = {name: found["others"][name] for name in names if "others" in found}
    if "bare" in found:
        ratios |= {
            f"rescale_seconds_over_gradient {model}": table["rescale"]
            for model, table in found["bare"].items()
        }
    if "grid" in found:
        ratios["grid_over_bare"] = found["grid"]
    for path, table in found.get("equal", {}).items():
        ratios |= {
            f"{path}_at_equal_error {name}": value for name, value in table.items() if isinstance(value, dict)
        }
    return {name: {key: value[key] for key in ("median", "low", "high")} for name, value in ratios.items()}


SECTIONS: dict[str, Section] = {
    "bare": bare_section,
    "others": others_section,
    "grid": grid_section,
    "equal": equal_section,
    "scale": scale_section,
}


if __name__ == "__main__":
    main()

"""Our speed against the bare model's and that of others, as ratios of times taken in turn in one process.

    make bench                                   → bench.json and docs/bench.md, in about an hour
    python -m benchmarks.bench --device cuda     the same on a GPU
    python -m benchmarks.bench --only equal      one part of it: bare, others, grid, equal, scale

Parts that a file given by --json has of the same machine stay in it; it is written after each part.

A ratio is the median of several turns, with the least and the greatest. Others get the model as `load_model`
gives it, ours is the same one as a worker of a run makes it: normalisations folded, channels last. Kernels of
the Rescale rule are made before, which a worker does once there is work enough for them. PAIR's
`saliency` needs a NumPy below 2.4: both are fetched into a folder of their own, for this process alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench.networks import MODELS
from benchmarks.bench.sections import bare, equal, grid, others, scale
from benchmarks.bench.tables import page
from riemannopt_dist.rescale.kernels import KERNELS
from riemannopt_dist.run.allocator import KEEP_MEMORY
from riemannopt_dist.run.memory import CPU_BATCH

PACKAGES = ("saliency==0.2.1", "numpy<2.4")
FOLDER = Path(".bench")
"""Where PACKAGES are."""
Section = Callable[[argparse.Namespace], dict[str, Any]]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--batch", type=int, default=CPU_BATCH, help="gradients at once, as a CPU's worker")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--photos", type=int, default=4, help="photos of the part equal")
    parser.add_argument("--images", default="demo:", help="where those of equal are")
    parser.add_argument("--intervals", type=int, default=256, help="of the converged maps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[*SECTIONS])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path, help="a Markdown page with the tables")
    options = parser.parse_args()
    with_saliency()
    KERNELS.worth = dict.fromkeys(KERNELS.worth, 0)
    found: dict[str, Any] = {**measured_before(options), "machine": machine(options)}
    for name in options.only:
        found[name] = SECTIONS[name](options)
        found["ratios"] = headlines(found)
        print(json.dumps({name: found[name]}, indent=2), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        if options.docs:
            options.docs.write_text(page(found), encoding="utf-8")
    print(json.dumps(found["ratios"], indent=2))


def measured_before(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that the file to write has already, of this machine: those measured again replace them."""
    if options.json is None or not options.json.exists():
        return {}
    found: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
    return found if found["machine"] == machine(options) else {}


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
        "models": {name: [*MODELS[name]] for name in options.models},
        "turns": options.turns,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def headlines(found: dict[str, Any]) -> dict[str, Any]:
    """The ratios that are compared from one version to the next, as far as they were measured.

    Those of the first model have the plain name, those of others the model's besides.
    """
    names = ("ig_over_loop", "ig_over_captum", "blur_ig_over_pair", "guided_ig_over_pair")
    ratios = {name: found["others"][name] for name in names if "others" in found}
    rescale = {model: table["rescale"] for model, table in found.get("bare", {}).items()}
    for name, tables in (
        ("rescale_seconds_over_gradient", rescale),
        ("grid_over_bare", found.get("grid", {})),
    ):
        for number, (model, table) in enumerate(tables.items()):
            ratios[f"{name} {model}" if number else name] = table
    for path, table in found.get("equal", {}).items():
        ratios |= {
            f"{path}_at_equal_error {name}": value for name, value in table.items() if isinstance(value, dict)
        }
    return {name: {key: value[key] for key in ("median", "low", "high")} for name, value in ratios.items()}


SECTIONS: dict[str, Section] = {
    "bare": bare.section,
    "others": others.section,
    "grid": grid.section,
    "equal": equal.section,
    "scale": scale.section,
}


if __name__ == "__main__":
    main()

"""On an emulated GPU: the CPU's values, no tensors of both devices mixed, and no wait within a micro-batch.

`python -m tests.test_device` prints what waits, and where.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import riemannopt_dist as ro
from riemannopt_dist.estimators.base import ADAPTIVE, LINEAR, refusal
from riemannopt_dist.estimators.converged import Reference, references
from riemannopt_dist.estimators.rescale import SOFTMAX_POINTS
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.controls import CONTROLS
from riemannopt_dist.metrics.information.content import ms_ssim_window
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.paths.table import Blur, Guided, path_family
from riemannopt_dist.quadrature.nodes import gauss_legendre_on
from riemannopt_dist.quadrature.rules import linear_partition, linear_schedule
from riemannopt_dist.testing.cuda import DEVICE, Wait, emulated_cuda
from riemannopt_dist.testing.problems import RISING
from riemannopt_dist.transfer import on_host

Call = Callable[[ro.Objective, Tensor, int], Tensor]
"""Takes an objective, images and a count of samples or maps."""

FAMILIES: dict[str, PathFamily] = {
    "ig": path_family("ig"),
    "blur_ig": Blur(sigma_max=2.0),
    "guided_ig": path_family("guided_ig"),
}
DRAWS = ro.Straight(baseline="noise", draws=2)


class Network(nn.Module):
    """Every kind of operation that the Rescale rule knows, but for attention; seven classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding="same"), nn.Conv2d(8, 8, 3, padding="same")
        self.third, self.pool = nn.Conv2d(16, 8, 1), nn.MaxPool2d(3, 2, 1)
        self.norm, self.last = nn.GroupNorm(2, 8), nn.Linear(32, 7)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 7)."""
        x = self.pool(functional.relu(self.first(images), inplace=True))
        y = functional.hardswish(self.second(x))
        y = functional.relu6(y * torch.sigmoid(y.mean((2, 3), keepdim=True)))
        z = functional.gelu(self.third(torch.cat([x, functional.silu(y)], 1)))
        logits: Tensor = self.last(functional.adaptive_avg_pool2d(self.norm(z), 2).flatten(1))
        return 3 * logits


def plain_network() -> nn.Module:
    """Few operations, (B, 3, 8, 8) → (B, 7)."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 7))


class Sharpness(nn.Module):
    """Sure of class 0 for what is as sharp as `images`, and of class 1 for what is blurred."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.middle = float((images[..., 1:] - images[..., :-1]).abs().mean()) / 2

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 2)."""
        slopes = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
        return torch.stack([40 * (slopes / self.middle - 1), torch.zeros_like(slopes)], 1)


def attributed(family: PathFamily, estimator: str, placement: str) -> Call:
    def call(objective: ro.Objective, images: Tensor, count: int) -> Tensor:
        return ro.attribute(
            objective.model,
            images,
            objective.targets,
            path=family,
            estimator=estimator,
            placement=placement,
            samples=count,
            profile=RISING,
            internal_batch_size=objective.internal_batch_size,
        ).maps

    return call


def to_tolerance(objective: ro.Objective, images: Tensor, count: int) -> Tensor:
    path = ro.StraightPath.from_black(images)
    return ro.adaptive_to_tolerance(objective, path, RISING, 1e-9, maximum=count).maps


def converged(name: str) -> Call:
    def call(objective: ro.Objective, images: Tensor, count: int) -> Tensor:
        path = FAMILIES[name].through(images)
        (reference,) = references(path, objective, [linear_schedule(count)], linear_partition(2 * count))
        return reference.maps

    return call


def profile(name: str) -> Call:
    def call(objective: ro.Objective, images: Tensor, count: int) -> Tensor:
        estimate = ro.estimate_profile(objective, images, path=FAMILIES[name], samples=count, refine="never")
        return torch.tensor(estimate.magnitudes)

    return call


def metric(name: str) -> Call:
    def call(objective: ro.Objective, images: Tensor, _: int) -> Tensor:
        f_input, f_baseline = objective.values(images), images.new_zeros(1, len(images))
        reference = Reference(images, f_input.double(), torch.ones_like(objective.targets))
        maps = images.roll(1, 3)[None]
        known = {"references": [reference], "boxes": [[ro.Box(0, 0, 4, 4)]] * len(images)}
        batch = MapBatch(objective, images, maps, f_input, f_baseline, **known)
        columns = METRICS[name].compute(batch)
        return torch.cat([c.flatten() for c in columns.values() if isinstance(c, Tensor)])

    return call


def control(name: str) -> Call:
    return lambda objective, images, count: CONTROLS[name](images)


CALLS: dict[str, Call] = {
    **{
        f"{path} {estimator} {placement}": attributed(FAMILIES[path], estimator, placement)
        for path in ("ig", "blur_ig", "guided_ig")
        for estimator in ESTIMATORS
        for placement in (LINEAR, ADAPTIVE)
        if refusal(ESTIMATORS[estimator], FAMILIES[path], placement, 4) is None
    },
    "ig to a tolerance": to_tolerance,
    **{f"draws {one} linear": attributed(DRAWS, one, LINEAR) for one in ("left", "expected_gradients")},
    **{f"{name} converged": converged(name) for name in FAMILIES},
    **{f"{name} profile": profile(name) for name in FAMILIES},
    **{name: metric(name) for name in METRICS},
    **{name: control(name) for name in CONTROLS},
}
SUMS = (
    *("left", "right", "midpoint", "trapezoid", "released", "gauss_legendre", "mean"),
    *("idgi", "idgi_right", "idgi_trapezoid", "softmax_trapezoid", "idg", "left_ig"),
    *("path_weighted_early", "path_weighted_middle", "path_weighted_late"),
)
"""Of the samples of one pass along a path."""

WAITS: dict[str, tuple[int, int]] = {
    **{f"ig {name} linear": (6, 0) for name in SUMS},
    **{f"blur_ig {name} linear": (3, 0) for name in SUMS},
    "draws left linear": (10, 0),
    "draws expected_gradients linear": (9, 0),
    "ig rescale linear": (8, 0),
    "blur_ig rescale linear": (5, 0),
    # A read for each image, or group of images, whose intervals are placed together.
    "ig rescale adaptive": (11, 0),
    "blur_ig rescale adaptive": (8, 0),
    # A read a round: three images in groups of two take one round more than all at once.
    "ig softmax_trapezoid adaptive": (9, 1),
    "blur_ig softmax_trapezoid adaptive": (6, 1),
    "ig to a tolerance": (8, 1),
    # A read a step.
    "guided_ig left linear": (11, 0),
    "guided_ig trapezoid linear": (10, 0),
    "guided_ig idgi linear": (11, 0),
    "guided_ig idgi_trapezoid linear": (10, 0),
    "guided_ig softmax_trapezoid linear": (10, 0),
    "guided_ig converged": (10, 0),
    "guided_ig profile": (10, 0),
    "ig converged": (6, 0),
    "blur_ig converged": (3, 0),
    "ig profile": (7, 0),
    "blur_ig profile": (4, 0),
    "completeness": (1, 0),
    "reference": (1, 0),
    "infidelity": (3, 0),
    "insertion": (7, 0),
    "insertion_smoothed": (9, 0),
    "deletion": (7, 0),
    "sensitivity_n": (7, 0),
    "sparseness": (1, 0),
    "pointing_game": (2, 0),
    # Its equations are solved in rounds, and looked at where those of the micro-batch before were solved.
    "road": (26, 14),
    # Pictures are encoded on the host, by threads that wait for them.
    "information": (16, 0),
    "information_fast": (19, 0),
    "information_official_png": (16, 0),
    "information_official_ms_ssim": (25, 6),  # the package that computes MS-SSIM copies its weights
    "random": (2, 0),
    "edges": (2, 0),
}
"""What waits in a call, and how much more does with micro-batches of half the size.

One of them is the look at a model's first logits.
"""
BY_SAMPLE: dict[str, int] = {
    **{name: 4 for name in WAITS if name.startswith("guided_ig")},
    **{name: 2 for name in WAITS if "softmax_trapezoid adaptive" in name or "tolerance" in name},
}
"""How much more does with eight samples instead of four: four steps; and two rounds, the first one of six."""


class Run(NamedTuple):
    """What a call gives, how often it calls the model, and what waits for the device."""

    result: Tensor
    model_calls: int
    waits: Counter[Wait]


def run(name: str, size: int, count: int, device: str) -> Run:
    """A call with micro-batches of `size`, in float64."""
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if name.endswith("ms_ssim"):
        images = functional.interpolate(images[:1, :1], (161, 161), mode="bicubic").clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if name.startswith("information"):
            network: nn.Module = Sharpness(images)
        else:
            network = Network() if "rescale" in name else plain_network()
    model, images = network.double().eval().requires_grad_(False).to(device), images.to(device)
    targets = torch.zeros(len(images), dtype=torch.int64, device=device)
    calls: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    objective = ro.Objective(model, targets, internal_batch_size=size)
    return Run(CALLS[name](objective, images, count), len(calls), Counter())


def run_on_device(name: str, size: int = 4, count: int = 4) -> Run:
    """The same on the emulated device; what waits outside of the package does not count."""
    with emulated_cuda() as waits:
        outcome = run(name, size, count, "cuda")
    return outcome._replace(waits=Counter({wait: times for wait, times in waits.items() if wait.place}))


def coarse_and_fine(name: str) -> tuple[Run, Run]:
    """With micro-batches of four samples or intervals, and of two."""
    return run_on_device(name, 4), run_on_device(name, 2)


def copy_constants() -> None:
    """Have points of quadratures and windows on the device, where they stay from their first use on."""
    with emulated_cuda():
        for points in (32, SOFTMAX_POINTS):
            gauss_legendre_on(points, DEVICE, torch.float64)
        ms_ssim_window(1, DEVICE, torch.float64)


@pytest.fixture(scope="module", autouse=True)
def constants_on_device() -> None:
    copy_constants()


def test_the_table_has_every_call() -> None:
    assert WAITS.keys() == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_values_are_the_cpus_and_waits_are_known(name: str) -> None:
    coarse, fine = coarse_and_fine(name)
    on_cpu = run(name, 4, 4, "cpu")
    torch.testing.assert_close(coarse.result, on_cpu.result, rtol=1e-12, atol=1e-15, equal_nan=True)
    assert (coarse.waits.total(), fine.waits.total() - coarse.waits.total()) == WAITS[name]
    calls = {"ig rescale adaptive": 1, "blur_ig rescale adaptive": 1, **dict.fromkeys(CONTROLS, 1)}
    assert fine.model_calls >= calls.get(name, 1.5) * coarse.model_calls
    if name in BY_SAMPLE:
        longer = run_on_device(name, count=8)
        assert longer.waits.total() - coarse.waits.total() == BY_SAMPLE[name]


def test_a_guided_walk_waits_once_a_step_and_adaptive_points_once_a_round() -> None:
    """Four steps; and one round of the first four points, after a look at where paths begin flat."""
    walk, points = (run_on_device(name).waits for name in ("guided_ig left linear", "ig to a tolerance"))
    assert [n for wait, n in walk.items() if wait.place.startswith("paths/guided.py")] == [4]
    reads = [(wait.what, n) for wait, n in points.items() if wait.place.startswith("estimators/adaptive.py")]
    assert sorted(reads) == [("copy to the device", 1), ("tolist", 1), ("tolist", 1)]


def test_a_walk_of_many_passes_a_step_is_the_cpus() -> None:
    """With a fraction of 3 % a step has up to 34 passes, of which a few are looked at."""
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets, schedule = torch.zeros(2, dtype=torch.int64), linear_schedule(5)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = plain_network().double().eval()

    def maps(device: str) -> Tensor:
        there = images.to(device)
        path = ro.GuidedPath(ro.StraightPath.from_black(there), Guided(fraction=0.03))
        return ro.guided_ig(network.to(device), there, targets.to(device), schedule, path=path).maps

    on_cpu = maps("cpu")
    with emulated_cuda() as waits:
        on_device = maps("cuda")
    torch.testing.assert_close(on_device, on_cpu, rtol=1e-12, atol=1e-15)
    looks = sum(times for wait, times in waits.items() if wait.place.startswith("paths/guided.py"))
    assert 5 <= looks <= 5 * 5


# --- Mistakes ---


@dataclass(frozen=True)
class Forgetful:
    """A straight path from black whose positions stay on the host."""

    images: Tensor

    def at(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """γ(α) and dγ/dα."""
        halves = torch.full((len(rows), 1, 1, 1), 0.5, dtype=torch.float64)
        return halves * self.images[rows], self.images[rows]


def test_a_tensor_on_the_wrong_device_is_named() -> None:
    images, targets = torch.rand(2, 3, 8, 8).double(), torch.zeros(2, dtype=torch.int64)
    schedule = linear_schedule(4)
    maps = ro.integrate_path(ro.Objective(Network().double(), targets), Forgetful(images), [schedule])
    assert maps[0].maps.shape == images.shape  # on a CPU it does no harm
    place = r"aten\.mul\.Tensor at .*test_device\.py:\d+, in estimators/passes\.py:\d+: .* \(2, 1, 1, 1\)"
    with emulated_cuda():
        objective = ro.Objective(Network().double().to("cuda"), targets.to("cuda"))
        with pytest.raises(RuntimeError, match=place):
            ro.integrate_path(objective, Forgetful(images.to("cuda")), [schedule])


def test_a_model_on_the_other_device_is_named() -> None:
    images, targets = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    with emulated_cuda():
        there = images.to("cuda"), targets.to("cuda")
        with pytest.raises(RuntimeError, match=r"aten\.convolution\.default at .*, in objective\.py"):
            ro.integrated_gradients(Network(), *there, linear_schedule(4))
        with pytest.raises(ValueError, match=r"baselines: .*cuda:0"):
            ro.integrated_gradients(Network(), *there, linear_schedule(4), baselines=torch.zeros_like(images))
        with pytest.raises(TypeError, match="no array"):
            there[0].numpy()


HERE = torch.arange(4.0)
READS: dict[str, tuple[str, Callable[[Tensor], object]]] = {
    "item": ("aten._local_scalar_dense", lambda x: x[0].item()),
    "bool": ("aten._local_scalar_dense", lambda x: bool(x.any())),
    "tolist": ("tolist", Tensor.tolist),
    "cpu": ("copy to the host", Tensor.cpu),
    "copy_": ("copy to the host", lambda x: torch.empty(4).copy_(x)),
    "nonzero": ("aten.nonzero", torch.nonzero),
    "mask": ("boolean index", lambda x: x[x > 1]),
    "list": ("index from the host", lambda x: x[[0, 2]]),
    "array": ("index from the host", lambda x: x[np.array([0, 2])]),
    "tensor": ("copy to the device", lambda x: torch.tensor([1.0], device=x.device)),
    "to": ("copy to the device", lambda x: HERE.to(x)),
    "new_tensor": ("copy to the device", lambda x: x.new_tensor([1.0, 2.0])),
}
FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "made there": lambda x: torch.arange(4.0, device=x.device) + x,
    "filled": lambda x: x.masked_fill(x > 1, 0.0),
    "single number": lambda x: x * torch.tensor(2.0),
    "pinned": lambda x: HERE.pin_memory().to(x.device, non_blocking=True) + x,
    "one-hot": lambda x: functional.one_hot(x.long(), 4),
    "index": lambda x: x[x.long()],
    "gradient": lambda x: torch.autograd.grad(x.requires_grad_().square().sum(), x)[0],
}


@pytest.mark.parametrize("name", READS)
def test_what_waits_is_counted(name: str) -> None:
    what, read = READS[name]
    with emulated_cuda() as waits:
        x = HERE.to("cuda")
        waits.clear()
        read(x)
        assert {wait.what: times for wait, times in waits.items()} == {what: 1}


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_wait_is_not(name: str) -> None:
    with emulated_cuda() as waits:
        x = HERE.to("cuda")
        waits.clear()
        result = FREE[name](x)
        assert result.is_cuda
        assert result.device == DEVICE
        assert not waits
        back = result.detach().cpu()
        assert not back.is_cuda
    assert result.device.type == "cpu"
    torch.testing.assert_close(back, result.detach(), rtol=0, atol=0)


def test_numbers_are_waited_for_where_they_are_taken() -> None:
    with emulated_cuda() as waits:
        numbers = on_host(HERE.to("cuda"))
        waits.clear()
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(numbers).result().tolist() == [0.0, 1.0, 2.0, 3.0]
        assert not waits
        assert numbers().tolist() == [0.0, 1.0, 2.0, 3.0]
        assert {wait.what: times for wait, times in waits.items()} == {"event": 1}
    assert on_host(HERE)().tolist() == [0.0, 1.0, 2.0, 3.0]


def print_waits() -> None:
    """The table, with the places."""
    copy_constants()
    for name in CALLS:
        coarse, fine = coarse_and_fine(name)
        print(f"{name}: {coarse.waits.total()}, {fine.waits.total() - coarse.waits.total():+} with half")
        for wait in sorted(coarse.waits | fine.waits):
            times, more = coarse.waits[wait], fine.waits[wait] - coarse.waits[wait]
            print(f"    {wait.place:36} {wait.what:26} {times:3} {more:+}")


if __name__ == "__main__":
    print_waits()

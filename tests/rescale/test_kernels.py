"""The one kernel of a ramp: its values, when it is made, and what there is without it."""

import logging
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.rescale import kernels, ramp
from riemannopt_dist.rescale.kernels import Kernel, Kernels, compiled
from riemannopt_dist.rescale.slopes import slope_products

CPU = torch.device("cpu")
COMPILER = any(map(shutil.which, ("c++", "g++", "clang++")))


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    if not COMPILER:
        pytest.skip("there is no C++ compiler: ramps take several passes")
    made = compiled(CPU, 0.0, 6.0)
    assert made is not None
    return made


@pytest.mark.parametrize("count", [2, 17, 4096, 100_003])
def test_a_kernel_has_the_values_of_the_passes_to_the_last_bit(kernel: Kernel, count: int) -> None:
    """Of neighbouring rows of one tensor, as a micro-batch has them, zeros and equal ends among them."""
    generator = torch.Generator().manual_seed(count)
    x = 4 * torch.randn(2 * count, generator=generator)
    x[: count // 2] = 0.0
    x[count : count + count // 3] = x[: count // 3]
    grad = torch.randn(count, generator=generator)
    expected, found = torch.full_like(grad, torch.nan), torch.full_like(grad, torch.nan)
    slope_products(x[:count], x[count:], grad, expected, 0.0, 6.0)
    kernel(x[:count], x[count:], grad, found)
    assert torch.equal(found, expected)


def test_maps_are_the_same_with_kernels(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.rand(2, 3, 16, 16)
        for layer in (layers[0], layers[-1]):
            nn.init.normal_(layer.weight)
    objective = ro.Objective(nn.Sequential(*layers).eval(), torch.tensor([0, 3]), output="logit")
    path, schedule = ro.StraightPath.from_black(images), ro.linear_schedule(5)
    passes = ro.rescale_attribution(objective, path, schedule)
    met: list[int] = []

    def counted(*tensors: Tensor) -> None:
        met.append(len(tensors[0]))
        kernel(*tensors)

    monkeypatch.setattr(kernels, "compiled", lambda *kind: counted)
    monkeypatch.setattr(ramp, "KERNELS", Kernels({"cpu": 0}))
    found = ro.rescale_attribution(objective, path, schedule)
    assert met
    assert torch.equal(found.maps, passes.maps)


def test_a_kernel_is_made_once_and_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(kernels, "compiled", lambda *kind: made.append(kind))
    some = Kernels({"cpu": 100})
    x = torch.zeros(60)
    for _ in range(3):
        some.of(x, 0.0, 6.0)
        some.of(x.double(), 0.0, 6.0)
    some.of(x, 0.0, torch.inf)
    assert made == [(CPU, 0.0, 6.0)]


def refuses(*arguments: Any, **options: Any) -> Kernel:
    raise RuntimeError("no compiler\nand more lines")


def computes_zeros(*arguments: Any, **options: Any) -> Callable[..., None]:
    return lambda before, after, grad, result: result.zero_()


@pytest.mark.parametrize(("compile", "told"), [(refuses, "no compiler"), (computes_zeros, "Tensor-likes")])
def test_without_a_right_kernel_ramps_take_their_passes(
    compile: Callable[..., Any], told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", compile)
    with caplog.at_level(logging.WARNING):
        assert compiled(CPU, 0.0, 6.0) is None
    (line,) = caplog.messages
    assert line.startswith("ramps on cpu take several passes, since no kernel could be made: ")
    assert told in line
    assert "\n" not in line

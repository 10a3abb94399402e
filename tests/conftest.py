"""Fixtures shared by the tests, all seeded: small float64 networks, random images, a real one, photos."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from hypothesis import settings
from skimage import data
from torch import Tensor, nn

from riemannopt_dist.models.loading import load_model
from riemannopt_dist.testing.s3_server import Bucket, serving

# Every Ray of the tests is their own: without tokens, and without a warning of what a later one will do.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# And without processes that are started before an actor asks for one.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")

settings.register_profile("repeatable", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("repeatable")

SESSION = pytest.StashKey[pytest.Session]()

NAMESPACE = "ray_here"
"""Of the Ray that tests share, which tells it from one that a module has started itself."""
CLASSES = 5
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[SESSION] = session


LONG = ("run", "test_readme.py", "commands")
"""Where the tests are that take longest, below this folder."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests share a Ray, which so is started once; then those that take longest.

    What is short comes last: several processes then end at nearly the same time.
    """
    here = Path(__file__).parent
    sharing = Counter(item.path for item in items if _asks_for_ray(item))
    tests = Counter(item.path for item in items)

    def rank(item: pytest.Item) -> tuple[float, bool]:
        return -sharing[item.path] / tests[item.path], item.path.relative_to(here).parts[0] not in LONG

    items.sort(key=rank)


def pytest_sessionfinish() -> None:
    ray.shutdown()  # of the last modules


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once when all is reported: what libraries destroy at exit, threads that Ray leaves still use.

    A process that crashes then would be taken for a test that failed. Ray's workers end the same way. Where
    tests are divided among processes, those end with the one that reports.
    """
    if SESSION in config.stash and not hasattr(config, "workerinput"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[SESSION].exitstatus)


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Three random images (3, 3, 6, 6), float64 in [0, 1]."""
    return torch.rand(3, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def targets() -> Tensor:
    return torch.tensor([4, 0, 2])


@pytest.fixture(scope="session")
def smooth_net() -> nn.Module:
    """An infinitely differentiable float64 network, (B, 3, 6, 6) → (B, CLASSES)."""
    layers = (
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )
    return _seeded(nn.Sequential(*layers), scale=0.5)


@pytest.fixture(scope="session")
def linear_net() -> nn.Module:
    """Logits that are linear in the image, float64, (B, 3, 6, 6) → (B, CLASSES)."""
    return _seeded(nn.Sequential(nn.Flatten(), nn.Linear(108, CLASSES)), scale=0.2)


@pytest.fixture(scope="session")
def classifier() -> nn.Module:
    """A real network with its ImageNet weights, on [0, 1] RGB images of 224 × 224 pixels."""
    return load_model("efficientnet_lite0")


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """Photos (4, 3, 224, 224), float32 in [0, 1]: their central squares."""
    return torch.stack([_central_square(getattr(data, name)(), 224) for name in PHOTOS])


@pytest.fixture(scope="session")
def predictions(classifier: nn.Module, photos: Tensor) -> Tensor:
    """The classes that the classifier sees in the photos, (4,)."""
    with torch.no_grad():
        return classifier(photos).argmax(dim=1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that asks for `ray_here` has a Ray, new or an earlier test's; from another test it is taken."""
    if _asks_for_ray(item):
        _start_ray()
    elif ray.is_initialized() and ray.get_runtime_context().namespace == NAMESPACE:
        ray.shutdown()


@pytest.fixture(scope="module")
def ray_here() -> None:
    """A Ray of two CPUs. It stays for the next test, if that asks for one too."""
    _start_ray()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """An S3 server with a bucket called bucket."""
    with serving() as server:
        yield server


def _asks_for_ray(item: pytest.Item) -> bool:
    return "ray_here" in getattr(item, "fixturenames", ())


def _start_ray() -> None:
    if not ray.is_initialized():
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        ray.init("local", num_cpus=2, namespace=NAMESPACE, **options)


def _seeded(network: nn.Module, scale: float) -> nn.Module:
    """`network` in float64 and eval mode, every parameter normal with standard deviation `scale`."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.double().eval().parameters():
        nn.init.normal_(parameter, std=scale, generator=generator)
    return network


def _central_square(photo: np.ndarray, size: int) -> Tensor:
    """The central square of a photo (H, W, 3) in bytes, as (3, size, size) in [0, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).float() / 255
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, start = (height - side) // 2, (width - side) // 2
    square = pixels[None, :, top : top + side, start : start + side]
    resized = nn.functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
    return resized[0].clamp(0, 1)

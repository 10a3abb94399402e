"""Peak memory is bounded by the micro-batch, not by samples × images."""

import subprocess
import sys

import pytest
import torch

from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import Objective
from riemannopt_dist.run import memory
from riemannopt_dist.run.memory import CPU_BATCH, LARGEST, measured_batch_size

# A process of its own, because a process's peak never falls. 8 images of 3 × 64 × 64 at 24 samples are 192
# gradients; at once they would need over 1 GB for EfficientNet-Lite0's activations.
SCRIPT = """
import re
from pathlib import Path

import torch
from riemannopt_dist.methods import blur_ig
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.quadrature.rules import linear_schedule

def peak():
    # Not getrusage: it starts from the peak of the process that this one was forked from.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

torch.set_num_threads(1)
model = load_model("efficientnet_lite0")
images = torch.rand(8, 3, 64, 64)
targets = torch.arange(8)
def run(samples, images, batch):
    blur_ig(model, images, targets, linear_schedule(samples), internal_batch_size=batch)
run(2, images, 8)
small = peak()
run(24, images, 8)
print(small, peak())
model(images.repeat(16, 1, 1, 1).requires_grad_()).sum().backward()
print(peak())
"""

LIMIT_MIB = 60


def test_24_samples_of_8_images_need_no_more_than_two_samples() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    few, many, at_once = (float(word) for word in ended.stdout.split())
    assert many - few < LIMIT_MIB
    # The measure would see it: 128 images at once, two thirds of all, take more than the limit.
    assert at_once - few > 2 * LIMIT_MIB


def test_a_number_is_taken_as_it_is_and_a_cpu_needs_few() -> None:
    model = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    assert measured_batch_size(model, torch.device("cpu"), 7) == 7
    assert measured_batch_size(model, torch.device("cpu"), "auto") == CPU_BATCH


@pytest.mark.parametrize(("gpus", "size"), [(1.0, 64), (0.5, 32), (0.25, 16), (2.0, 64)])
def test_workers_that_share_a_gpu_share_its_memory(
    monkeypatch: pytest.MonkeyPatch, gpus: float, size: int
) -> None:
    """Of 1,000 MB free, with 6 MB a gradient."""
    monkeypatch.setattr(memory, "_peak", lambda model, device, count: count * 6_000_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000_000, 2_000_000_000))
    model = load_model("riemannopt_dist.testing.small_world:tiny_classifier")
    assert measured_batch_size(model, torch.device("cuda"), "auto", gpus) == size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_is_given_fits(photos: torch.Tensor) -> None:
    device = torch.device("cuda")
    model = load_model("efficientnet_lite0").to(device)
    size = measured_batch_size(model, device, "auto")
    assert 1 <= size <= LARGEST
    images = photos[:1].to(device).expand(size, -1, -1, -1)
    targets = torch.zeros(size, dtype=torch.int64, device=device)
    Objective(model, targets, internal_batch_size=size).gradients(images)
    assert torch.cuda.max_memory_allocated() < torch.cuda.get_device_properties(device).total_memory

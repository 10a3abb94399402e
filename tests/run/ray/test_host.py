"""What a worker's host lacks is told before the worker computes anything."""

import platform
import re
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from riemannopt_dist.data.files import LocalFiles
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.state import model_state
from riemannopt_dist.run.directory import RUN
from riemannopt_dist.run.origin import Origin
from riemannopt_dist.run.ray.host import check_output, promised_device
from riemannopt_dist.run.ray.worker import Payload, ShardWorker
from riemannopt_dist.storage.base import Storage

MODEL = "riemannopt_dist.testing.small_world:tiny_classifier"
ORIGIN = Origin("the run", "", "", "", {}, 0)
HOST, TORCH = re.escape(platform.node()), re.escape(torch.__version__)

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine whose GPU does not work")


def written(folder: Path, content: bytes) -> Storage:
    storage = Storage(folder)
    storage.write_bytes(RUN, content)
    return storage


def test_a_worker_without_gpus_is_on_the_cpu() -> None:
    assert promised_device(0.0) == torch.device("cpu")


@without_gpu
@pytest.mark.parametrize("gpus", [0.25, 1.0])
def test_a_gpu_that_does_not_work_is_one_line(gpus: float) -> None:
    message = (
        rf"^{HOST}: torch cannot use the GPU that this worker was promised \(torch {TORCH}, "
        r"CUDA [^\n]+\): mend [^\n]*It says: [^\n]+$"
    )
    with pytest.raises(RuntimeError, match=message):
        promised_device(gpus)


@pytest.mark.parametrize("content", [None, b'{"id": "another run"}', b"[]"], ids=["empty", "another", "none"])
def test_a_folder_that_is_not_the_drivers_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    storage = Storage(tmp_path) if content is None else written(tmp_path, content)
    message = rf"^output: {re.escape(str(tmp_path))} on {HOST} is not the driver's: expected a folder "
    with pytest.raises(ValueError, match=message):
        check_output(storage, ORIGIN)


def test_the_drivers_own_is_accepted_and_what_does_not_answer_left_to_the_calls(
    tmp_path: Path,
) -> None:
    check_output(written(tmp_path / "run", b'{"id": "the run"}'), ORIGIN)
    (tmp_path / "away" / RUN).mkdir(parents=True)
    check_output(Storage(tmp_path / "away"), ORIGIN)


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [
        (0.0, f"output: .* on {HOST} is not the driver's"),
        pytest.param(1.0, f"^{HOST}: torch cannot use the GPU", marks=without_gpu),
    ],
)
def test_a_worker_does_not_start_there(tmp_path: Path, ray_here: None, gpus: float, reason: str) -> None:
    """On a node with a disk of its own every worker sees another folder than the driver."""
    storage = written(tmp_path / "run", b'{"id": "the run"}')
    origin = ORIGIN if gpus else replace(ORIGIN, run="one begun on another disk")
    payload = Payload(MODEL, model_state(load_model(MODEL)), storage, LocalFiles(), 1, gpus, 8, origin)
    with pytest.raises(RuntimeError if gpus else ValueError, match=reason):
        ShardWorker([ray.put(payload)])
    assert storage.list() == [RUN]

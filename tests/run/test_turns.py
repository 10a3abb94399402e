"""A device shared by threads: one at a time has it, and its time is told of it alone."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.run.device_clock import DeviceClock
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.run.stages.turn import Turn
from riemannopt_dist.testing.cuda import emulated_cuda

PAUSE = 0.01


def test_the_first_batch_is_read_before_the_turn_and_no_second_is_counted_twice() -> None:
    turn: Turn[Tally] = Turn()
    read, computed = threading.Event(), []
    start = time.perf_counter()

    def second_batches() -> Iterator[str]:
        read.set()
        yield "second"

    def second() -> None:
        with later:
            computed.extend(later.awaited(second_batches()))

    earlier, later = Tally(turn), Tally(turn)
    thread = threading.Thread(target=second)
    with earlier:
        for batch in earlier.awaited(["first"]):
            thread.start()
            assert read.wait(60)
            time.sleep(PAUSE)
            computed.append(batch)
            assert turn.holder is earlier
    thread.join()
    assert computed == ["first", "second"]
    assert turn.holder is None
    spent = [tally.timings([]).seconds for tally in (earlier, later)]
    assert spent[0] >= PAUSE
    assert sum(spent) <= time.perf_counter() - start


def test_a_turn_ends_with_an_error() -> None:
    turn: Turn[Tally] = Turn()

    def refused(tally: Tally) -> None:
        for batch in tally.awaited(["first"]):
            raise ValueError(batch)

    with pytest.raises(ValueError, match="first"), Tally(turn) as tally:
        refused(tally)
    with Tally(turn) as tally:
        assert [*tally.awaited([])] == []
    assert turn.holder is None


class Paused(nn.Module):
    """A small network that sleeps in each pass forward, and for each gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 5)."""
        self.calls += 1
        time.sleep(PAUSE)
        logits: Tensor = self.network(images)
        if logits.requires_grad:
            logits.register_hook(lambda _: time.sleep(PAUSE))
        return logits


@pytest.mark.parametrize("estimator", ["left", "rescale", None])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_clock_runs_in_the_model_alone(kind: str, estimator: str | None) -> None:
    """Forward, and back where there is a gradient; whatever the time between."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, images = Paused().eval().requires_grad_(False), torch.rand(2, 3, 8, 8)
    with emulated_cuda():
        clock = DeviceClock(model, torch.device(kind))
        model, images, targets = model.to(kind), images.to(kind), torch.zeros(2, dtype=torch.int64).to(kind)
        start = time.perf_counter()
        if estimator is None:
            ro.Objective(model, targets, internal_batch_size=1).values(images)
        else:
            ro.attribute(model, images, targets, estimator=estimator, samples=4, internal_batch_size=4)
        elapsed, taken = time.perf_counter() - start, clock.taken()
        assert model.calls * PAUSE <= taken <= elapsed
        assert estimator is None or taken >= (model.calls + 2) * PAUSE
        assert clock.taken() == 0

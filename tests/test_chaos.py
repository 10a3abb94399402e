"""A run whose workers, nodes and driver die: a short form of benchmarks/chaos.py."""

from pathlib import Path

from benchmarks.chaos import disturbed_run


def test_nothing_is_lost_doubled_or_changed(tmp_path: Path) -> None:
    found = disturbed_run(tmp_path, kills=3, nodes=2, pictures=40, seed=1)
    assert found.kills == {"worker": 1, "node": 1, "driver": 1}
    assert found.problems == []
    assert found.failures == 0
    assert found.equal
    assert found.repeated_a_kill <= 0.05

"""A run one of whose nodes dies. test_job.py, which is shorter, kills a driver and a worker."""

from pathlib import Path

import pytest

from benchmarks.chaos import disturbed_run


@pytest.mark.long
def test_nothing_is_lost_doubled_changed_or_left_out(tmp_path: Path) -> None:
    kinds = ("node",)
    found = disturbed_run(tmp_path, faults=len(kinds), nodes=2, pictures=24, seed=1, kinds=kinds)
    assert set(found.faults) == set(kinds)
    assert (found.lost, found.doubled, found.wrong, found.left_out) == (0, 0, 0, 0)
    assert found.problems == []
    assert found.silent == []
    assert found.repeated_a_kill <= 0.05

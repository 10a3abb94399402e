"""A run one of whose nodes dies: a short form of benchmarks/chaos.py. test_job.py kills a driver."""

from pathlib import Path

from benchmarks.chaos import disturbed_run


def test_nothing_is_lost_doubled_changed_or_left_out(tmp_path: Path) -> None:
    kinds = ("node",)
    found = disturbed_run(tmp_path, faults=len(kinds), nodes=2, pictures=24, seed=1, kinds=kinds)
    assert set(found.faults) == set(kinds)
    assert (found.lost, found.doubled, found.wrong, found.left_out) == (0, 0, 0, 0)
    assert found.problems == []
    assert found.silent == []
    assert found.repeated_a_kill <= 0.05

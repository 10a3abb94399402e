"""The journal of workers: which shard is where, since when; told as long as it is left to do."""

import json
from pathlib import Path

import pytest

from riemannopt_dist.run import journal
from riemannopt_dist.run.journal import WorkerJournal, in_flight, read_journals
from riemannopt_dist.storage.base import Storage


def test_what_was_begun_and_not_ended_is_in_flight(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first, second = WorkerJournal(storage, "node-a"), WorkerJournal(storage, "node-b")
    assert first.worker != second.worker
    first.began("results", "shard-00000", 8)
    first.ended("results", "shard-00000", 8)
    first.began("results", "shard-00001", 8)
    second.began("results", "shard-00002", 5)
    assert [(e.shard, e.worker, e.node, e.images) for e in in_flight(storage)] == [
        ("shard-00001", first.worker, "node-a", 8),
        ("shard-00002", second.worker, "node-b", 5),
    ]
    # The first one is lost; another worker does its shard.
    second.ended("results", "shard-00002", 5)
    second.began("results", "shard-00001", 8)
    assert [(e.shard, e.worker) for e in in_flight(storage)] == [("shard-00001", second.worker)]
    second.ended("results", "shard-00001", 8)
    assert in_flight(storage) == []
    ends = [event for event in read_journals(storage) if event.event == "end"]
    assert sorted(event.shard for event in ends) == ["shard-00000", "shard-00001", "shard-00002"]
    assert all(0 <= event.seconds < 60 for event in ends)


def test_a_long_journal_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT", 4)
    storage = Storage(tmp_path)
    worker = WorkerJournal(storage, "node")
    for n in range(5):
        worker.began("fit", f"shard-{n:05}", 1)
        worker.ended("fit", f"shard-{n:05}", 1)
    files = sorted((tmp_path / "workers" / worker.worker).iterdir())
    assert [len(file.read_text().splitlines()) for file in files] == [4, 4, 2]
    assert len([*read_journals(storage)]) == 10


def test_what_is_no_event_is_left_out_and_a_full_disk_costs_no_work(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    worker = WorkerJournal(storage, "node")
    worker.began("fit", "shard-00000", 1)
    (file,) = (tmp_path / "workers" / worker.worker).iterdir()
    whole = file.read_text()
    file.write_text(f"{whole}{whole[: len(whole) // 2]}\n[1]\n{json.dumps({'event': 'start'})}\n")
    assert [event.shard for event in in_flight(storage)] == ["shard-00000"]
    file.unlink()
    file.mkdir()  # in the way
    worker.ended("fit", "shard-00000", 1)

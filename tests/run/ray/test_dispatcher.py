"""The dispatcher on real Ray: a small cluster whose actors, constructors and nodes do fail."""

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.actor import ActorHandle
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value
from ray.cluster_utils import Cluster
from ray.exceptions import RayTaskError

from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.run.errors import StartError
from riemannopt_dist.run.ray.dispatcher import Event, Limits, Lost, PoolState, Slow, Waiting, _loss, dispatch
from riemannopt_dist.run.ray.pool import Pool
from riemannopt_dist.run.ray.task_tracker import Done, Failed, PassedAlone, Task, TaskTracker
from riemannopt_dist.storage.errors import StorageError

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # today's default warns that it will change
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",  # a node killed is noticed in 1.5 s, one that stalls in 30 s
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        head: dict[str, Any] = {
            "num_cpus": 2,
            "object_store_memory": 10**8,
            "include_dashboard": False,
            "dashboard_port": None,  # any free one: where the usual one is taken, Ray leaks a socket
            "resources": {"head": 8},
        }
        nodes = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=nodes.address, log_to_driver=False)
        register_pickle_by_value(sys.modules[__name__])  # the actors' processes cannot import a test
        yield nodes
        unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()
        nodes.shutdown()


class Worker:
    """Commits to a folder, one line a commit; an item says what befalls the worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def process(self, key: str, items: tuple[str, ...]) -> dict[str, int]:
        self.probe(key, items)
        with (self.folder / key).open("a") as file:
            file.write(" ".join(items) + "\n")
        return {"items": len(items), "pid": os.getpid()}

    def probe(self, key: str, items: tuple[str, ...]) -> None:
        with (self.folder / f"{key}.seen").open("a") as file:
            file.write(" ".join(items) + "\n")
        for item in items:
            match item:
                case "exit":
                    os._exit(1)
                case "hang":
                    time.sleep(1000)
                case "raise":
                    raise OSError("not an image:\ntruncated")
                case "slow":
                    time.sleep(0.5)
                case "no answer" if not (self.folder / "answers").exists():
                    (self.folder / "answers").touch()
                    raise StorageError("no answer")
                case "unreadable":
                    raise UnreadableImage("damaged")
                case "sick" if not (self.folder / "sick").exists():
                    (self.folder / "sick").touch()
                    from torch import AcceleratorError  # which takes seconds: no other actor needs it

                    raise AcceleratorError("CUDA error: uncorrectable ECC error encountered")
                case "once" if not (self.folder / "flag").exists():
                    (self.folder / "flag").touch()
                    os._exit(1)


def spawner(folder: Path, **options: Any) -> Callable[[], ActorHandle[Any]]:
    actor_class = ray.remote(num_cpus=0, **options)(Worker)
    return lambda: actor_class.remote(folder)


def outcomes(events: Iterator[Event]) -> tuple[dict[str, Done], list[Failed], list[Lost]]:
    """Done by key, and what failed and was lost; no task is done twice."""
    seen = list(events)
    done = [event for event in seen if isinstance(event, Done)]
    assert len({event.task.key for event in done}) == len(done)
    failed = [event for event in seen if isinstance(event, Failed)]
    return {e.task.key: e for e in done}, failed, [e for e in seen if isinstance(e, Lost)]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_slow_task_is_told_of_once(cluster: Cluster, tmp_path: Path) -> None:
    """Half a second, where others take far less than a twentieth of that."""
    tasks = [*(Task(f"task-{n}", ("quick",)) for n in range(8)), Task("last", ("slow", "slow", "slow"))]
    events = list(dispatch(iter(tasks), Pool(spawner(tmp_path), 1), heartbeat=0.1))
    slow = [event for event in events if isinstance(event, Slow)]
    assert [event.task.key for event in slow] == ["last"]
    assert slow[0].seconds > 10 * slow[0].median


def test_every_task_is_done_once(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [Task(f"task-{n}", (f"a{n}", f"b{n}")) for n in range(60)]
    done, failed, lost = outcomes(dispatch(iter(tasks), Pool(spawner(tmp_path), 2)))
    assert (failed, lost) == ([], [])
    for task in tasks:
        assert lines(tmp_path / task.key) == [" ".join(task.items)]
        assert done[task.key].items == task.items
        assert done[task.key].result["items"] == 2


@pytest.mark.parametrize("poison", ["exit", "hang", "raise"])
def test_a_poisonous_item_is_isolated_and_its_neighbours_are_kept(
    cluster: Cluster, tmp_path: Path, poison: str
) -> None:
    tasks = [Task("good", ("x", "y")), Task("bad", ("a", poison, "b")), Task("alone", (poison,))]
    budget = 2 if poison == "exit" else 1
    time_limit = 1.0 if poison == "hang" else 60.0
    events = dispatch(tasks, Pool(spawner(tmp_path), 2), limits=Limits(budget, time_limit))
    done, failed, lost = outcomes(events)
    assert set(done) == {"good", "bad"}
    assert done["bad"].items == ("a", "b")
    assert lines(tmp_path / "bad") == ["a b"]
    assert sorted((event.task.key, event.items) for event in failed) == [
        ("alone", (poison,)),
        ("bad", (poison,)),
    ]
    attempts = {event.task.key: event.attempts for event in failed}
    assert attempts == {"bad": 2 * budget, "alone": budget}  # "bad": as a task, then as a probe
    assert len(lost) >= sum(attempts.values())  # calls that died together are not charged
    reason = {
        "exit": "The actor is dead because its worker process has died",
        "hang": "time limit of 1 s exceeded",
        "raise": "OSError: not an image: truncated",
    }[poison]
    assert all(event.reason.startswith(reason) and "\n" not in event.reason for event in failed)


def test_a_passing_loss_is_retried(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [Task("first", ("slow", "once")), *(Task(f"next-{n}", ("x",)) for n in range(3))]
    done, failed, lost = outcomes(dispatch(tasks, Pool(spawner(tmp_path), 1), limits=Limits(attempts=2)))
    assert set(done) == {task.key for task in tasks}
    assert failed == []
    assert [(event.task, event.node) for event in lost] == [(tasks[0], ray.util.get_node_ip_address())]
    assert lines(tmp_path / "first.seen") == ["slow once", "slow once"]


def test_an_error_of_the_device_is_no_fault_of_the_item(cluster: Cluster, tmp_path: Path) -> None:
    events = dispatch([Task("t", ("sick",))], Pool(spawner(tmp_path), 1), limits=Limits(attempts=2))
    done, failed, lost = outcomes(events)
    assert (set(done), failed) == ({"t"}, [])
    reason = "AcceleratorError: CUDA error: uncorrectable ECC error encountered"
    assert [(event.reason, event.node) for event in lost] == [(reason, ray.util.get_node_ip_address())]


@pytest.mark.parametrize(
    ("cause", "loss"),
    [
        (torch.AcceleratorError("an illegal memory access"), "died"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), "died"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), "died"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "raised"),
        (ValueError("CUDA error: says a model"), "raised"),
        (StorageError("CUDA error: is the name of a file"), "unanswered"),
    ],
)
def test_whose_an_exception_is(cause: Exception, loss: str) -> None:
    assert _loss(RayTaskError("process", "a traceback", cause).as_instanceof_cause()) == loss


def test_a_storage_that_does_not_answer_and_a_damaged_image_cost_no_actor(
    cluster: Cluster, tmp_path: Path
) -> None:
    tasks = [Task("rests", ("no answer",)), Task("bad", ("a", "unreadable")), Task("good", ("x",))]
    seen = list(dispatch(tasks, Pool(spawner(tmp_path), 1), limits=Limits(patience=4.0)))
    (waiting,) = (event for event in seen if isinstance(event, Waiting))
    assert (waiting.task, waiting.reason) == (tasks[0], "StorageError: no answer")
    done, failed, lost = outcomes(iter(seen))
    assert lost == []
    assert {key: event.items for key, event in done.items()} == {
        "rests": ("no answer",),
        "bad": ("a",),
        "good": ("x",),
    }
    assert len({event.result["pid"] for event in done.values()}) == 1
    assert [(event.items, event.reason) for event in failed] == [
        (("unreadable",), "UnreadableImage: damaged")
    ]


def test_a_killed_actor_is_replaced_and_its_task_done_by_another(cluster: Cluster, tmp_path: Path) -> None:
    actors: list[ActorHandle[Any]] = []
    spawn = spawner(tmp_path)

    def spawn_and_keep() -> ActorHandle[Any]:
        actors.append(spawn())
        return actors[-1]

    events = dispatch([Task("t", ("slow", "slow", "slow"))], Pool(spawn_and_keep, 1), heartbeat=0.1)
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if isinstance(event, PoolState) and event.in_flight and len(actors) == 1:
            ray.kill(actors[0])
    assert [type(event) for event in seen if not isinstance(event, PoolState)] == [Lost, Done]
    assert len(actors) == 2


def test_constructors_that_keep_failing_end_the_run_with_their_reason(cluster: Cluster) -> None:
    class Broken:
        def __init__(self) -> None:
            raise ValueError("no such model:\nresnet-1")

    actor_class = ray.remote(num_cpus=0)(Broken)
    tasks = (Task(str(n), ("x",)) for n in itertools.count())
    events = dispatch(tasks, Pool(actor_class.remote, 2, start_attempts=2))
    with pytest.raises(StartError, match=r"^no worker .* in 2 rounds: ValueError: no such model: resnet-1$"):
        list(events)


def test_actors_waiting_for_resources_hold_nothing_back(cluster: Cluster, tmp_path: Path) -> None:
    """Room for two of four workers: all is done by those, and the others are seen waiting."""
    spawn = spawner(tmp_path)
    count = itertools.count()
    scarce = ray.remote(num_cpus=0, resources={"absent": 1})(Worker)
    events = dispatch(
        (Task(str(n), ("slow",)) for n in range(8)),
        Pool(lambda: spawn() if next(count) < 2 else scarce.remote(tmp_path), 4),
        heartbeat=0.2,
    )
    seen = list(events)
    assert {event.task.key for event in seen if isinstance(event, Done)} == {str(n) for n in range(8)}
    states = [event for event in seen if isinstance(event, PoolState)]
    assert any(state.alive == 2 and state.starting == 2 for state in states)
    assert not any(isinstance(event, Lost) for event in seen)


def test_tasks_are_drawn_lazily_and_closing_kills_the_actors(cluster: Cluster, tmp_path: Path) -> None:
    drawn = []

    def endless() -> Iterator[Task]:
        for number in itertools.count():
            drawn.append(number)
            yield Task(str(number), ("x",))

    events = dispatch(endless(), Pool(spawner(tmp_path), 2))
    pids = {event.result["pid"] for event in itertools.islice(events, 20) if isinstance(event, Done)}
    assert len(drawn) <= 20 + 2 * 2 + 2  # done, in flight, and two ahead
    events.close()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_stop_lets_running_tasks_finish_and_starts_no_other(cluster: Cluster, tmp_path: Path) -> None:
    tasks = (Task(str(n), ("slow",)) for n in itertools.count())
    done: list[Done] = []
    for event in dispatch(tasks, Pool(spawner(tmp_path), 2), stop=lambda: len(done) >= 1):
        if isinstance(event, Done):
            done.append(event)
    started = {path.stem for path in tmp_path.glob("*.seen")}
    assert started == {event.task.key for event in done}
    assert len(done) <= 1 + 2 * 2


def test_a_lost_node_loses_no_task(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=10**8)
    cluster.wait_for_nodes()
    places = itertools.chain([{"spot": 1}], itertools.repeat({"head": 1}))

    def spawn() -> ActorHandle[Any]:
        return ray.remote(num_cpus=0, resources=next(places))(Worker).remote(tmp_path)

    drawn: list[str] = []
    removed = False
    deadline = time.monotonic() + 240  # a machine that is busy takes long to start an actor

    def work() -> Iterator[Task]:
        while (not removed or len(drawn) % 8) and time.monotonic() < deadline:
            drawn.append(str(len(drawn)))
            yield Task(drawn[-1], ("slow",))

    done: Counter[str] = Counter()
    lost = []
    for event in dispatch(work(), Pool(spawn, 2), limits=Limits(time_limit=60.0), heartbeat=0.2):
        if isinstance(event, Done):
            done[event.task.key] += 1
        elif isinstance(event, Lost):
            lost.append(event.task)
        elif isinstance(event, PoolState) and event.alive == 2 and event.in_flight == 4 and not removed:
            removed = True
            cluster.remove_node(node, allow_graceful=False)
    assert removed
    assert done == Counter(drawn)
    assert len(lost) == 1


@pytest.mark.parametrize(
    ("argument", "value"),
    [("attempts", 0), ("in_flight", 1.5), ("time_limit", 0.0), ("patience", -1.0)],
)
def test_bad_arguments_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        Limits(**{argument: value})


def test_a_bad_heartbeat_is_named() -> None:
    with pytest.raises(ValueError, match=r"^heartbeat: expected"):
        dispatch([], Pool(lambda: None, 1), heartbeat=-1.0)


def test_a_pool_needs_workers() -> None:
    with pytest.raises(ValueError, match=r"^workers: expected"):
        Pool(lambda: None, 0)
    with pytest.raises(ValueError, match=r"^start_attempts: expected"):
        Pool(lambda: None, 1, start_attempts=0)


def test_a_pool_serves_one_dispatch_after_another_with_the_same_actors(
    cluster: Cluster, tmp_path: Path
) -> None:
    with Pool(spawner(tmp_path), 2) as pool:
        pids = []
        for stage in ("first", "second"):
            tasks = [Task(f"{stage}-{n}", ("slow",)) for n in range(4)]
            done, failed, lost = outcomes(dispatch(tasks, pool, release=False))
            assert (len(done), failed, lost) == (4, [], [])
            pids.append({event.result["pid"] for event in done.values()})
        assert pids[0] == pids[1]
    assert not pool.alive


def test_arguments_come_before_key_and_items(cluster: Cluster) -> None:
    class Adder:
        def process(self, summand: int, key: str, items: tuple[int, ...]) -> int:
            return summand + sum(items)

    with Pool(ray.remote(num_cpus=0)(Adder).remote, 1) as pool:
        events = dispatch([Task("t", (1, 2))], pool, arguments=(ray.put(10),))
        assert [event.result for event in events if isinstance(event, Done)] == [13]


def test_a_task_needs_items() -> None:
    with pytest.raises(ValueError, match=r"items of task 'k': expected a tuple of at least one"):
        Task("k", ())


def test_ledger_gives_calls_to_the_least_loaded_and_none_in_advance_at_the_end() -> None:
    tracker = TaskTracker((Task(str(n), ("x",)) for n in range(5)), lookahead=2, attempts=1, in_flight=2)
    tracker.add_worker(0)
    tracker.add_worker(1)
    given = [(worker, call.task.key) for worker, call in tracker.hand_out(0.0)]
    # Once task 4 is known to be the last, nobody takes it in advance.
    assert given == [(0, "0"), (1, "1"), (0, "2"), (1, "3")]
    assert tracker.useful_workers(8) == 5
    assert tracker.succeeded(0, None, 3.0) == [Done(Task("0", ("x",)), ("x",), None, 3.0)]
    assert list(tracker.hand_out(3.0)) == []
    assert tracker.overdue(4.5, 2.0) == [1]
    tracker.succeeded(0, None, 5.0)
    assert [(worker, call.task.key) for worker, call in tracker.hand_out(5.0)] == [(0, "4")]


def test_a_task_whose_probes_all_pass_is_tried_once_more_whole() -> None:
    """A batch can fail where its items do not (memory): the task is done if it then works, or fails whole."""
    task = Task("t", ("a", "b"))
    for second_works in (True, False):
        tracker = TaskTracker([task], lookahead=1, attempts=1, in_flight=1)
        tracker.add_worker(0)
        ((_, call),) = tracker.hand_out(0.0)
        assert (call.method, call.items) == ("process", ("a", "b"))
        assert tracker.lost(0, "out of memory", "raised", 1.0) == []
        tracker.add_worker(1)
        for item in ("a", "b"):
            ((_, call),) = tracker.hand_out(0.0)
            assert (call.method, call.items) == ("probe", (item,))
            assert tracker.succeeded(1, None, 1.0) == [PassedAlone(task, (item,))]
        ((_, call),) = tracker.hand_out(2.0)
        assert (call.method, call.items) == ("process", ("a", "b"))
        if second_works:
            assert tracker.succeeded(1, "result", 5.0) == [Done(task, ("a", "b"), "result", 3.0)]
        else:
            failed = Failed(task, ("a", "b"), "out of memory", 1, "raised")
            assert tracker.lost(1, "out of memory", "raised", 5.0) == [failed]
        assert tracker.finished


def test_calls_that_die_together_are_not_charged_and_go_alone() -> None:
    tasks = [Task(str(n), ("x",)) for n in range(6)]
    tracker = TaskTracker(tasks, lookahead=2, attempts=1, in_flight=2)
    tracker.add_worker(0)
    assert [call.task.key for _, call in tracker.hand_out(0.0)] == ["0", "1"]
    assert tracker.lost(0, "crash", "died", 1.0) == []
    tracker.add_worker(1)
    assert [call.task.key for _, call in tracker.hand_out(1.0)] == ["0"]
    assert tracker.succeeded(1, None, 2.0) == [Done(tasks[0], ("x",), None, 1.0)]
    assert [call.task.key for _, call in tracker.hand_out(2.0)] == ["1"]
    assert tracker.lost(1, "crash", "died", 2.5) == [Failed(tasks[1], ("x",), "crash", 1, "died")]
    tracker.add_worker(2)
    assert [call.task.key for _, call in tracker.hand_out(3.0)] == ["2", "3"]
    # A time limit tells which call ran: that one is charged, the one behind goes back unharmed.
    failed = Failed(tasks[2], ("x",), "too long", 1, "overdue")
    assert tracker.lost(2, "too long", "overdue", 8.0) == [failed]
    tracker.add_worker(3)
    assert [call.task.key for _, call in tracker.hand_out(9.0)] == ["3", "4"]


def test_items_that_were_each_within_the_time_limit_have_as_many_together() -> None:
    tracker = TaskTracker([Task("t", ("a", "b", "c"))], lookahead=1, attempts=1, in_flight=1)
    tracker.add_worker(0)
    list(tracker.hand_out(0.0))
    assert tracker.overdue(10.5, 10.0) == [0]
    assert tracker.lost(0, "too long", "overdue", 10.5) == []
    tracker.add_worker(1)
    for probe in range(3):
        list(tracker.hand_out(20.0 * probe))
        assert tracker.overdue(20.0 * probe + 10.5, 10.0) == [1]
        tracker.succeeded(1, None, 20.0 * probe + 5.0)
    ((_, call),) = tracker.hand_out(100.0)
    assert call.items == ("a", "b", "c")
    assert tracker.overdue(129.0, 10.0) == []
    assert tracker.overdue(131.0, 10.0) == [1]


def test_a_storage_that_does_not_answer_is_no_fault_of_the_items_nor_of_the_worker() -> None:
    task = Task("t", ("a", "b"))
    tracker = TaskTracker([task], lookahead=1, attempts=1, in_flight=1, patience=80.0)
    tracker.add_worker(0)
    for attempt in range(3):
        # A rest is a fortieth of the patience: 2 seconds.
        assert attempt == 0 or list(tracker.hand_out(3.0 * attempt - 1.5)) == []
        ((_, call),) = tracker.hand_out(3.0 * attempt)
        assert (call.method, call.items) == ("process", ("a", "b"))
        assert tracker.returned(0, "no answer", "unanswered", 3.0 * attempt) == []
        assert (tracker.queued, tracker.finished, tracker.idle_workers()) == (1, False, [0])
    ((_, call),) = tracker.hand_out(70.0)
    # Its one attempt is still its own.
    assert tracker.lost(0, "crash", "raised", 71.0) == []
    tracker.add_worker(1)
    ((_, call),) = tracker.hand_out(72.0)
    assert (call.method, call.items) == ("probe", ("a",))


def test_a_storage_that_never_answers_ends_the_patience_and_rests_end_with_a_stop() -> None:
    task = Task("t", ("a", "b"))
    tracker = TaskTracker([task], lookahead=1, attempts=9, in_flight=1, patience=80.0)
    tracker.add_worker(0)
    for now in (0.0, 79.0):
        list(tracker.hand_out(now))
        assert tracker.returned(0, "no answer", "unanswered", now) == []
    list(tracker.hand_out(90.0))
    failed = Failed(task, ("a", "b"), "no answer", 3, "unanswered")
    assert tracker.returned(0, "no answer", "unanswered", 90.0) == [failed]
    assert tracker.finished
    tracker = TaskTracker([task], lookahead=1, attempts=9, in_flight=1)
    tracker.add_worker(0)
    list(tracker.hand_out(0.0))
    assert tracker.returned(0, "no answer", "unanswered", 0.0) == []
    tracker.drain()
    assert tracker.finished


def test_an_image_that_stays_out_of_reach_is_given_up_on_alone() -> None:
    """It rests as long as the patience lasts; then it costs one probe, and the others are done."""
    task = Task("t", ("a", "gone", "b"))
    tracker = TaskTracker([task], lookahead=1, attempts=3, in_flight=1, patience=80.0)
    tracker.add_worker(0)
    for now in (0.0, 50.0, 81.0):
        list(tracker.hand_out(now))
        assert tracker.returned(0, "gone", "unreachable", now) == []
    seen: list[Any] = []
    for now in (82.0, 83.0, 84.0):
        ((_, call),) = tracker.hand_out(now)
        assert call.method == "probe"
        away = call.items == ("gone",)
        seen += tracker.returned(0, "gone", "unreachable", now) if away else tracker.succeeded(0, None, now)
    assert seen == [
        PassedAlone(task, ("a",)),
        Failed(task, ("gone",), "gone", 1, "unreachable"),
        PassedAlone(task, ("b",)),
    ]
    ((_, call),) = tracker.hand_out(85.0)
    assert tracker.succeeded(0, "result", 86.0) == [Done(task, ("a", "b"), "result", 1.0)]
    assert tracker.finished


def test_while_nothing_is_answered_no_other_calls_are_made() -> None:
    tracker = TaskTracker(
        (Task(str(n), ("x",)) for n in range(1000)), lookahead=1, attempts=1, in_flight=1, patience=80.0
    )
    tracker.add_worker(0)
    made = 0
    for tick in range(80):  # 20 seconds, ten rests
        for worker, _ in list(tracker.hand_out(tick / 4)):
            made += 1
            tracker.returned(worker, "no answer", "unreachable", tick / 4)
    assert made <= 25
    # With the first answer all goes on: what rested comes back in its turn.
    for tick in range(80, 120):
        for worker, _ in list(tracker.hand_out(tick / 4)):
            tracker.succeeded(worker, None, tick / 4)
    assert tracker.queued <= 2


def test_what_hangs_costs_two_time_limits() -> None:
    """As a task and as a probe, or twice where it is alone: whatever the number of attempts."""
    for items in (("a", "hang"), ("hang",)):
        tracker = TaskTracker([Task("t", items)], lookahead=1, attempts=9, in_flight=1)
        overdue, now = 0, 0.0
        for worker in range(20):
            tracker.add_worker(worker)
            for _, call in list(tracker.hand_out(now)):
                if "hang" not in call.items:
                    tracker.succeeded(worker, None, now)
                    tracker.remove_worker(worker)
                else:
                    overdue += 1
                    tracker.lost(worker, "too long", "overdue", now)
            if tracker.finished:
                break
        assert tracker.finished
        assert overdue == 2

"""How a run ends before its end: as whose doing, and with which exit code."""

from pathlib import Path

import pytest
import typer

from riemannopt_dist.commands import app
from riemannopt_dist.commands.console import errors
from riemannopt_dist.run.errors import Interrupted, StartError, Stopped
from riemannopt_dist.run.lock import LOCK, InUse, TakenOver, hold
from riemannopt_dist.run.ray.driver import _stops
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.storage.errors import DamagedFile, DeniedError, StorageError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InUse("x"), 1),
        (StartError("x"), 1),
        (ValueError("x"), 2),
        (StorageError("x"), 2),
        (Stopped("x"), 3),
        (Interrupted("x"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_tell_a_signal_from_a_stop(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    context = typer.Context(typer.main.get_command(app))
    with pytest.raises(typer.Exit) as ended, errors(context):
        raise error
    assert ended.value.exit_code == code
    goes_on = capsys.readouterr().err.endswith("x; the same command goes on from here\n")
    assert goes_on == isinstance(error, Stopped)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StorageError("s3://bucket/run: timed out (5 attempts)"), Stopped),
        (DeniedError("s3://bucket/run: denied (1 attempt)"), Stopped),
        (Stopped("no answer"), Stopped),
        (Interrupted("stopped with 3 of 8"), Interrupted),
        (DamagedFile("images.parquet: damaged"), DamagedFile),  # the same command would meet it again
        (ValueError("bad input"), ValueError),
    ],
)
def test_what_the_same_command_goes_on_from_is_a_stop(
    tmp_path: Path, error: Exception, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as raised, hold(Storage(tmp_path)) as lock, _stops(lock):
        raise error
    assert type(raised.value) is kind
    assert str(error) in str(raised.value)


def test_who_stops_since_the_lock_is_lost_says_so(tmp_path: Path) -> None:
    storage = Storage(tmp_path)

    def go_on_after_the_loss() -> None:
        with hold(storage) as lock, _stops(lock):
            storage.delete(LOCK)
            with pytest.raises(TakenOver):
                lock.check()
            raise Interrupted("stopped with 3 of 8")

    with pytest.raises(TakenOver, match="another took the run over"):
        go_on_after_the_loss()

"""RAY_ADDRESS: what is no address, or not Ray's, is told in seconds and in one line."""

import json
import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray
from ray._private.utils import check_version_info
from ray.exceptions import AuthenticationError
from typer.testing import CliRunner

from riemannopt_dist.commands import app
from riemannopt_dist.run.ray.cluster import check_cluster, one_line_of
from riemannopt_dist.testing.small_world import make_pictures, small_fields


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """The port of a service that says `answer` and closes the connection; nothing, and keeps it, for None."""
    with closing(socket.create_server(("0.0.0.0", 0))) as server:
        held = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(1000)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a web server."""
    with HTTPServer(("0.0.0.0", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "address",
    [
        *("nonsense", "127.0.0.1", "head:99999", "head:", ":6379", "a b:6379", "::1:6379"),
        *("ray://head", "http://head:8265"),
    ],
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="RAY_ADDRESS: expected host:port, ray://host:port, auto or local"):
        check_cluster(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens_it_says_so(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("0.0.0.0", 0))) as server:
        port = server.getsockname()[1]
    caplog.set_level("INFO")
    address = f"{scheme}127.0.0.1:{port}"
    with pytest.raises(ConnectionError, match=rf"RAY_ADDRESS {address}: no answer \(Connection refused\)"):
        check_cluster(address, patience=0.7)
    assert caplog.messages == [f"RAY_ADDRESS {address}: waiting for an answer, 1 s at most"]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (None, "no answer (timed out)"),
        (b"", "no answer (the connection is closed)"),
        (b"-ERR\r\n", "what answers there is not Ray"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers there is not Ray"),
    ],
    ids=["silent", "closing", "short", "ssh"],
)
def test_a_service_that_is_not_ray_is_told_apart(answer: bytes | None, named: str) -> None:
    with listening(answer) as port, pytest.raises(ConnectionError) as error:
        check_cluster(f"ray://127.0.0.1:{port}", patience=0.7)
    assert named in str(error.value)


def test_a_web_server_is_one_line_before_anything_is_written(
    web: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(small_fields(make_pictures(tmp_path / "pictures", 1), tmp_path / "run")))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{web}")
    ended = CliRunner().invoke(app, ["evaluate", "-c", str(config)])
    assert ended.exit_code == 2
    assert ended.output.splitlines()[-1] == (
        f"error: RAY_ADDRESS 127.0.0.1:{web}: what answers there is not Ray; give the head's host:port, or "
        "unset RAY_ADDRESS to use this machine alone"
    )
    assert not (tmp_path / "run").exists()


def test_other_versions_than_the_clusters_are_named_in_one_line() -> None:
    with pytest.raises(ConnectionError) as error, one_line_of("RAY_ADDRESS head:6379"):
        check_version_info({"ray_version": "2.40.0", "python_version": "3.11.7"}, "10.0.0.2")
    mine = f"Ray: {ray.__version__} Python: {platform.python_version()}"
    assert str(error.value) == (
        "RAY_ADDRESS head:6379: Version mismatch: The cluster was started with: Ray: 2.40.0 Python: 3.11.7 "
        f"This process on 10.0.0.2 was started with: {mine}"
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("tried it\n\n  and failed: why\n"), "head: and failed: why"),
        (OSError(), "head: OSError"),
        (AuthenticationError("no token"), "head: no token. "),
    ],
)
def test_what_ray_raises_is_one_line(error: Exception, told: str) -> None:
    with pytest.raises(ConnectionError) as raised, one_line_of("head"):
        raise error
    assert str(raised.value).startswith(told)
    assert "\n" not in str(raised.value)


def test_ray_is_taken_for_ray(ray_here: None) -> None:
    check_cluster(ray.get_runtime_context().gcs_address)

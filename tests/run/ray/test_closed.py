"""A run on one machine: who else is in the network runs nothing in its Ray."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

RUN = """
import json, os, sys
import ray
from riemannopt_dist.run.ray.driver import ray_session
with ray_session():
    print(json.dumps({"address": ray.get_runtime_context().gcs_address}), flush=True)
    sys.stdin.readline()
"""

STRANGER = """
import sys
import ray
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
print("ran:", ray.get(ray.remote(lambda: 1).remote()))
"""

LOCKED_OUT = """
import os
from riemannopt_dist.run.ray.driver import ray_session

def attempt():
    try:
        with ray_session():
            print("ran")
    except ConnectionError as error:
        print(error)

attempt()
os.environ |= {"RAY_ADDRESS": "local", "RAY_AUTH_TOKEN_PATH": "/nowhere"}
attempt()
"""

CHOICES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of somebody who has chosen nothing about Ray, and has no token."""
    home = str(tmp_path_factory.mktemp("home"))
    return {k: v for k, v in os.environ.items() if k not in CHOICES} | {"HOME": home}


@pytest.fixture(scope="module")
def run(environment: dict[str, str]) -> Iterator[tuple[psutil.Process, dict[str, Any]]]:
    """A process with the Ray of a run, and what it tells of it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", RUN], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        yield psutil.Process(process.pid), json.loads(process.stdout.readline())
        _, errors = process.communicate("\n")
    assert (process.returncode, errors) == (0, "")


def test_it_listens_on_the_loopback_interface_alone(run: tuple[psutil.Process, dict[str, Any]]) -> None:
    process, told = run
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for one in (process, *process.children(recursive=True))
        for connection in one.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    port = int(told["address"].rsplit(":", 1)[1])
    others = {
        a.address for found in psutil.net_if_addrs().values() for a in found if a.family == socket.AF_INET
    }
    for address in others - {"127.0.0.1"}:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=5)


def test_without_its_token_nothing_runs_in_it(
    run: tuple[psutil.Process, dict[str, Any]], environment: dict[str, str]
) -> None:
    _, told = run
    # The second one lets Ray take the loopback address as it is given.
    stranger = {**environment, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    command = [sys.executable, "-c", STRANGER, told["address"]]
    done = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert "AuthenticationError" in done.stderr


def test_no_token_is_left_for_later_clusters_to_insist_on(
    run: tuple[psutil.Process, dict[str, Any]], environment: dict[str, str]
) -> None:
    assert not Path(environment["HOME"], ".ray").exists()


def test_who_lacks_a_token_is_told_so_in_one_line(
    run: tuple[psutil.Process, dict[str, Any]], environment: dict[str, str]
) -> None:
    """In a cluster that has one, and on this machine where the file that is to hold it is not there."""
    address = run[1]["address"]
    outsider = {**environment, "RAY_AUTH_MODE": "token", "RAY_ADDRESS": address}
    outsider["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    command = [sys.executable, "-c", LOCKED_OUT]
    done = subprocess.run(command, env=outsider, capture_output=True, text=True, timeout=60, check=True)
    of_cluster, of_machine = done.stdout.splitlines()
    assert of_cluster.startswith(f"RAY_ADDRESS {address}: Token authentication is enabled but no ")
    assert of_machine.startswith("Ray on this machine: RAY_AUTH_TOKEN_PATH is set but file cannot be opened ")

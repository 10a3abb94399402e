"""Ray for the time of a run: a cluster that answers, or this machine alone, closed to others.

Ray itself tries a dead address for minutes, in silence.
"""

import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from riemannopt_dist.run.scaling import Node

logger = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds in which an answer is expected."""
PAUSE = 0.5
"""Seconds between two attempts."""

# Ray's services speak HTTP/2. Both sides begin a connection with a frame of type 4, SETTINGS, of stream 0,
# and the client with a line before it (RFC 9113, sections 3.4, 4.1 and 6.5).
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS

_AUTHENTICATION = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}

_PLACE = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^][:/@?\s]+):([0-9]{1,5})/?")
_DASHBOARD = ("http", "https")
"""Schemes of the address that `ray job submit` takes."""
_MEND = "give the head's host:port, or unset RAY_ADDRESS to use this machine alone"


def check_cluster(address: str, patience: float = PATIENCE) -> None:
    """Wait until something that may be Ray answers at `address`, a value of RAY_ADDRESS, and say so first.

    Raises ValueError for what is no address, and ConnectionError where nothing answers in `patience` seconds,
    where something else than Ray does, and for "auto" where no Ray is known on this machine.
    """
    place = _host_and_port(address)
    if place is None:
        return
    logger.info("RAY_ADDRESS %s: waiting for an answer, %.0f s at most", address, patience)
    deadline = time.monotonic() + patience
    while True:
        try:
            speaks = _speaks_http2(*place, timeout=max(PAUSE, deadline - time.monotonic()))
            break
        except OSError as error:
            if deadline - time.monotonic() < PAUSE:
                reason = error.strerror or error
                raise ConnectionError(f"RAY_ADDRESS {address}: no answer ({reason}); {_MEND}") from None
        time.sleep(PAUSE)
    if not speaks:
        raise ConnectionError(f"RAY_ADDRESS {address}: what answers there is not Ray; {_MEND}")


def start_alone() -> None:
    """Start Ray on this machine alone: it listens on the loopback interface, to those who know its token.

    The token is this process's own, unless RAY_AUTH_MODE, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is set.
    """
    import ray
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]

    if not _AUTHENTICATION & os.environ.keys():
        # Without one Ray would write a token into the home folder, and later head nodes would insist on it.
        # Before 2.59 it asks for a token only where the mode is said.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        Config.initialize("")  # Ray has read the environment when it was imported
    # The workers are actors with an environment of their own: no process started before would be theirs.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it tells that there are tokens
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        # "local": some other Ray of this machine, which may end at any time, is not joined by accident.
        ray.init(
            "local",
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            configure_logging=False,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def alive_nodes() -> list[Node]:
    """What each machine of the cluster has that is there now, whoever uses it."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


@contextmanager
def one_line_of(place: str) -> Iterator[None]:
    """What Ray raises while it is started or joined at `place`, as a ConnectionError of one line."""
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, RayError) as error:
        raise ConnectionError(f"{place}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What an error of Ray's says: of a long one that is its last line, unless it compares versions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines) if lines[0].startswith("Version mismatch") else lines[-1]


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Where Ray is to be; None for the address of another provider, which Ray asks itself."""
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "ray", *_DASHBOARD):
        return None
    place = _PLACE.fullmatch(rest)
    if address != "auto" and (scheme in _DASHBOARD or place is None or int(place[1]) > 65535):
        raise ValueError(f"RAY_ADDRESS: expected host:port, ray://host:port, auto or local, got {address!r}")
    host, port = (rest if scheme else _as_ray_takes_it(address)).rsplit(":", 1)
    return host.strip("[]"), int(port.rstrip("/"))


def _as_ray_takes_it(address: str) -> str:
    """The host:port for "auto", and for this machine that under which others know it."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address(address))
    except ConnectionError:
        raise ConnectionError(f"RAY_ADDRESS {address}: no Ray runs on this machine; {_MEND}") from None


def _speaks_http2(host: str, port: int, timeout: float) -> bool:
    """Whether a frame of settings answers ours. Raises OSError where nothing does in `timeout` seconds."""
    with socket.create_connection((host, port), timeout) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return True  # Ray makes the certificates its own affair
        connection.sendall(_OPENING)
        connection.settimeout(timeout)
        answer = b""
        while len(answer) < len(_SETTINGS):
            received = connection.recv(len(_SETTINGS) - len(answer))
            if not received:
                break
            answer += received
    if not answer:
        raise ConnectionError("the connection is closed")
    return answer[3:4] == _SETTINGS[3:4] and answer[5:] == _SETTINGS[5:]

"""A file on a web server, read by ranges; no more than was asked for, and not for ever."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from riemannopt_dist.storage.ranged_file import RangedFile

SECONDS = 60.0
"""How long a server may be silent, or take for anything but bytes."""
SLOWEST = 16 << 10
"""Bytes that it sends in a second, at least."""


class WebFile(RangedFile):
    """The file at an http:// or https:// address, which may hold a user and a password.

    Raises OSError from any method: FileNotFoundError for 404 and 410, PermissionError for 401 and 403.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._adapter = _Connections()
        self._session = _Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        self._size: int | None = None

    def size(self) -> int:
        """Bytes in the file."""
        if self._size is None:
            with self._answer({"Range": "bytes=0-0"}, 0) as answer:
                # Content-Range: bytes 0-0/146515
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if answer.status_code == 416:
                    total = "0"
                if not total.isdecimal():
                    raise OSError("the server does not answer requests for a range of bytes")
                self._size = int(total)
        return self._size

    def _range(self, start: int, count: int) -> bytes:
        with self._answer({"Range": f"bytes={start}-{start + count - 1}"}, count) as answer:
            if answer.status_code != 206:
                raise OSError("the server does not answer requests for a range of bytes")
            data: bytes = answer.raw.read(count + 1, decode_content=False)
            if len(data) > count:
                raise OSError(f"the server sends more than the {count} bytes asked for")
            if len(data) < count:  # or this side ended it: the context knows
                raise OSError(f"{len(data)} bytes of {count}: cut short")
        return data

    def close(self) -> None:
        """Give the connection back."""
        self._session.close()
        super().close()

    @contextmanager
    def _answer(self, headers: dict[str, str], size: int) -> Iterator[requests.Response]:
        """The answer to a request for `size` bytes, which ends where it takes too long."""
        # Ranges are of the file as it is, not of a compressed form.
        headers = {"Accept-Encoding": "identity", **headers}
        seconds = SECONDS + size / SLOWEST
        late = threading.Event()

        def cut() -> None:
            late.set()
            self._adapter.cut()

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            with self._checked(headers) as answer:
                yield answer
        except (OSError, HTTPError) as error:
            if late.is_set():
                raise OSError(f"the server took more than {seconds:.3g} s for {size} bytes") from error
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        finally:
            timer.cancel()

    @contextmanager
    def _checked(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        with self._session.get(self._address, headers=headers, timeout=SECONDS, stream=True) as answer:
            if answer.status_code in (404, 410):
                raise FileNotFoundError("no such file")
            if answer.status_code in (401, 403):
                raise PermissionError(f"{answer.status_code} {answer.reason}")
            if answer.status_code >= 400 and answer.status_code != 416:
                raise OSError(f"{answer.status_code} {answer.reason}")
            yield answer


class _Session(requests.Session):
    """One that does not read what comes with a redirection, which may have no end."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where an answer points to."""
        target: str | None = super().get_redirect_target(resp)
        if target is not None:
            resp.close()
        return target


class _Connections(HTTPAdapter):
    """Connections that can be cut while somebody waits for their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._sockets: list[socket.socket] = []

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        """The pool of a host's connections, whose sockets are noted."""
        pool = super().get_connection_with_tls_context(*arguments, **options)
        sockets, kind = self._sockets, type(pool).ConnectionCls

        class Noted(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        pool.ConnectionCls = Noted
        return pool

    def cut(self) -> None:
        """End whatever is sent or received."""
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

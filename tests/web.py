"""A web server for tests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from werkzeug.serving import make_server
from werkzeug.wrappers import Response


class Web:
    """A web server for one folder: a token is needed, and the next `failures` requests fail."""

    def __init__(self, folder: Path) -> None:
        self.failures = 0
        self.asked = 0
        self._folder = folder
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked += 1
        if self.failures > 0:
            self.failures -= 1
            start_response("503 Service Unavailable", [])
            return [b"injected"]
        if environ["QUERY_STRING"] != "token=swordfish":
            start_response("403 Forbidden", [])
            return [b""]
        path = self._folder / environ["PATH_INFO"].lstrip("/")
        if not path.is_file():
            start_response("404 Not Found", [])
            return [b""]
        data = path.read_bytes()
        part = Response(data).make_conditional(environ, accept_ranges=True, complete_length=len(data))
        answer: Iterable[bytes] = part(environ, start_response)
        return answer

    def address(self, path: str, token: str = "swordfish") -> str:
        return f"http://127.0.0.1:{self.server.port}/{path}?token={token}"

"""A real S3 server in this process, for tests."""

from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Bucket:
    """An S3 server in this process: it fails the next `failures` requests and keeps a log of all."""

    def __init__(self) -> None:
        self.failures = 0
        self.log: list[tuple[str, str]] = []
        self._application = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.log.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.failures > 0:
            self.failures -= 1
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"injected"]
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer

    def uri(self, path: str, secret: str = "swordfish") -> str:
        """The address of a path, with options and credentials in it."""
        options = f"scheme=http&endpoint_override=127.0.0.1:{self.server.port}&region=us-east-1"
        return f"s3://user:{secret}@{path}?{options}"

"""A real S3 server in this process, which can be told to fail and tells what it was asked."""

import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pyarrow import fs
from werkzeug.serving import make_server

STATUS = {"away": "404 Not Found", "denied": "403 Forbidden", "moved": "301 Moved Permanently"}
"""What a server answers where something is wrong."""


class Bucket:
    """An S3 server: it fails the next `failures` requests, and logs all and the ranges asked for.

    With `trouble` n it fails every n-th request, and is slow to answer the one after it. What lies below the
    path `faulty` is "away" (404), "denied" (403), "moved" (301) or "cut" (half of each body) as long as
    `fault` says so. `signers` has the key, the region and the session's token that requests are signed with.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.trouble = 0
        self.fault = self.faulty = ""
        self.log: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.signers: set[tuple[str, str, str]] = set()
        self._application = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """The server's WSGI application."""
        self.log.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if signature := re.search("Credential=([^/]*)/[^/]*/([^/]*)", environ.get("HTTP_AUTHORIZATION", "")):
            self.signers.add((signature[1], signature[2], environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")))
        if environ["REQUEST_METHOD"] == "GET":
            self.ranges.append(environ.get("HTTP_RANGE", ""))
        turn = len(self.log) % self.trouble if self.trouble else -1
        if turn == 1:
            time.sleep(0.3)
        if self.failures > 0 or turn == 0:
            self.failures = max(0, self.failures - 1)
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"injected"]
        if self.fault and environ["PATH_INFO"].startswith(self.faulty):
            return self._faulty_answer(environ, start_response)
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer

    def _faulty_answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self.fault != "cut":
            start_response(STATUS[self.fault], [("Content-Type", "text/plain")])
            return [b""]
        begun: list[Any] = []
        body = b"".join(self._application(environ, lambda *told: begun.extend(told)))
        part = body[: len(body) // 2]
        is_get = environ["REQUEST_METHOD"] == "GET"
        length = [("Content-Length", str(len(part)))] if is_get else []
        headers = [pair for pair in begun[1] if pair[0].lower() != "content-length" or not is_get]
        start_response(begun[0], [*headers, *length])
        return [part] if is_get else [body]

    def uri(self, path: str, secret: str = "swordfish") -> str:
        """The address of a path, with options and credentials in it."""
        options = f"scheme=http&endpoint_override=127.0.0.1:{self.server.port}&region=us-east-1"
        return f"s3://user:{secret}@{path}?{options}"

    def put(self, name: str, data: bytes) -> None:
        """Store an object in the bucket `bucket`."""
        file_system, path = fs.FileSystem.from_uri(self.uri("bucket"))
        with file_system.open_output_stream(f"{path}/{name}") as stream:
            stream.write(data)


@contextmanager
def serving() -> Iterator[Bucket]:
    """A server with a bucket called `bucket`."""
    bucket = Bucket()
    thread = threading.Thread(target=bucket.server.serve_forever)
    thread.start()
    options = "&allow_bucket_creation=true&allow_bucket_deletion=true"
    file_system, _ = fs.FileSystem.from_uri(bucket.uri("bucket") + options)
    file_system.create_dir("bucket")
    try:
        yield bucket
    finally:
        bucket.failures = bucket.trouble = 0
        file_system.delete_dir("bucket")  # moto keeps its buckets for all servers of a process
        bucket.server.shutdown()
        thread.join()
        bucket.server.server_close()

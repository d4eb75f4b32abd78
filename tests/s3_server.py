"""A real S3 server over HTTP on this machine, for tests: set by environment variables, as a person would."""

from __future__ import annotations

import http.client
import logging
import math
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ner_batch.io import storage

BUCKET = "texts"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "only-for-tests", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[tuple[str, Any]]:
    """The endpoint's URL and a boto3 client of it, with one empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    # All servers of a process share what they hold, those that have ended included.
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST"), timeout=30)
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    try:
        yield endpoint, client
    finally:
        server.stop()


def point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """The environment in which ``s3://`` means the server at ``endpoint``."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)


EXPIRED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"""
"""What S3 answers, with status 400, to a token that has run out."""

DENIED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"""
"""What S3 answers, with status 403, to who may not write."""

Fault = Literal["500", "dropped", "cut", "held", "read only"]


class Proxy:
    """A forwarding HTTP server in front of another: logs requests, and fails those it is told to.

    ``log`` has (method, path) of each request, ``signatures`` its Authorization header (None: unsigned), ``url`` is
    where it listens. Requests signed with the key ``expired`` are refused as S3 refuses a token that has run out. ``holding``
    is set while a request is held; each one waits ``delay`` seconds.
    """

    def __init__(self, target: str) -> None:
        self.log: list[tuple[str, str]] = []
        self.signatures: list[str | None] = []
        self.holding, self._released = threading.Event(), threading.Event()
        self.expired: str | None = None
        self.delay = 0.0
        self._faults: list[list[Any]] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = read_body(self)
                time.sleep(proxy.delay)
                proxy.log.append((self.command, self.path))
                proxy.signatures.append(self.headers.get("Authorization"))
                fault = proxy._fault(self.path)
                if proxy.expired and f"Credential={proxy.expired}/" in (proxy.signatures[-1] or ""):
                    content = b"" if self.command == "HEAD" else EXPIRED
                    self._reply(400, {"Content-Length": "0", "Content-Type": "application/xml"}, content)
                elif fault == "read only" and self.command != "GET":
                    self._reply(403, {"Content-Type": "application/xml"}, DENIED)
                elif fault == "500":
                    self._reply(500, {}, b"")
                elif fault == "held" and self.command != "GET":
                    self._hold()
                elif fault == "dropped":
                    self.close_connection = True  # without an answer
                else:
                    status, headers, content = ask(target, self.command, self.path, dict(self.headers), body)
                    self._reply(status, headers, content, cut=fault in {"cut", "held"})
                    if fault == "held":
                        self._hold()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

            def _reply(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
                self.send_response(status)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut else body)
                self.close_connection = self.close_connection or cut

            def _hold(self) -> None:
                proxy.holding.set()
                proxy._released.wait(60)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, mark: str, times: float = math.inf, how: Fault = "500") -> None:
        """Fail the next ``times`` requests whose path contains ``mark``: with status 500, without an answer, with half
        of one, held until the proxy ends (a GET after half of its answer), or with status 403 if they write."""
        self._faults.append([mark, times, how])

    def mend(self) -> None:
        """Fail no more."""
        with self._lock:
            self._faults.clear()

    def _fault(self, path: str) -> str | None:
        with self._lock:
            for fault in self._faults:
                if fault[0] in path and fault[1] > 0:
                    fault[1] -= 1
                    return str(fault[2])
        return None

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


def read_body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    body = b""
    while size := int(request.rfile.readline().split(b";")[0], 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


def ask(target: str, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the server's answer."""
    passed = {k: v for k, v in headers.items() if k.lower() not in ("expect", "transfer-encoding", "content-length")}
    connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=60)
    try:
        connection.request(method, path, body=body if method in ("PUT", "POST") else None, headers=passed)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def written_and_read(number: int) -> bool:
    """For another process or thread: write a file of one's own, and read it and everybody's.

    It stands here because a spawned process imports it by name, and test modules have none.
    """
    uri = f"s3://{BUCKET}/many/{number}"
    storage.write_bytes(uri, bytes([number]) * 1000)
    shared = storage.read_bytes(f"s3://{BUCKET}/many/shared")
    return storage.read_bytes(uri) == bytes([number]) * 1000 and shared == b"shared"

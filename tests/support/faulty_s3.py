"""A real S3 server seen through a proxy that delays its answers, or gives others."""

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

Answer = tuple[int, str, str]
"""HTTP status, code and message of an error of S3."""

Fault = Callable[[str, Mapping[str, str]], Answer | None]
"""(method, headers) -> the error to answer with; None passes the request on."""


class Proxy:
    """A proxy in front of an endpoint. `fault` and `delay`, in seconds, may be changed at any time."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = urlsplit(endpoint).netloc
        self.delay = 0.0
        self.fault: Fault = lambda method, headers: None
        self.requests = 0


@contextmanager
def faulty(endpoint: str) -> Iterator[Proxy]:
    """Have S3 clients that are made inside the block go through a proxy."""
    proxy = Proxy(endpoint)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with patch.dict(os.environ, {"AWS_ENDPOINT_URL": address}):
            yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _handle(self) -> None:
        proxy = self.proxy
        proxy.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(proxy.delay)
        answer = proxy.fault(self.command, {key.lower(): value for key, value in self.headers.items()})
        if answer:
            status, code, message = answer
            content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self._answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(content))}, content)
            return
        connection = http.client.HTTPConnection(proxy.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for key, value in self.headers.items():
                if key.lower() not in ("connection", "expect"):
                    connection.putheader(key, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
            headers = {key: value for key, value in response.getheaders() if key.lower() not in _HOP_BY_HOP}
            length = response.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self._answer(response.status, headers | {"Content-Length": length}, content)
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Write no log."""


_HOP_BY_HOP = ("transfer-encoding", "connection", "content-length")

"""S3 on loopback: moto's server for buckets that work, and small servers that answer as they are told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

SECRET = "planted-secret-4711"
Answer = tuple[int, str]
_numbers = itertools.count(1)


@contextmanager
def moto_server() -> Iterator[str]:
    """Run moto's S3 on a free port and yield its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@contextmanager
def answering(answer: Callable[[str, str], Answer]) -> Iterator[str]:
    """Run a server that answers ``answer(method, path)`` = (status, error code; "" for none), and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, code = answer(self.command, self.path)
            body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET = do_HEAD = _reply  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def point_at(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Let boto3 speak to this address without waiting between its tries, and keep copies in ``cache``."""
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "SAMEWORLD_CACHE": str(cache),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))


def a_bucket() -> str:
    """Make a new bucket at the address that the environment names."""
    name = f"bucket-{next(_numbers)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def fill_bucket(bucket: str, keys: list[str]) -> None:
    """Put empty objects straight into moto's memory, where a thousand requests would only test its patience."""
    account = next(iter(s3_backends.values()))["aws"]
    for key in keys:
        account.put_object(bucket, key, b"")

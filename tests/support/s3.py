"""A real S3 server on a free port of this machine: moto's, in a thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer


class Bucket:
    """A bucket of the server by its `name`; what is put there takes the short way, within the process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._backend = s3_backends["123456789012"]["aws"]
        self._backend.create_bucket(name, "us-east-1")

    def put(self, objects: Mapping[str, bytes]) -> None:
        for key, body in objects.items():
            self._backend.put_object(self.name, key, body)


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server, which the environment names until the end, with keys that it takes."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield
    finally:
        server.stop()

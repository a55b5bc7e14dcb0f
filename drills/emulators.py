"""Object stores of three makers on this machine, started for a while: S3 by moto, Google's and Azure's by emulators."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from moto.server import ThreadedMotoServer

PROGRAMS = Path(__file__).parent / "stores/node_modules/.bin"
BUCKET = "images"
#: What every emulator of Azure's takes.
_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Store:
    """How one is started, on a port and with a folder of its own, and what the environment must say of its URL."""

    scheme: str
    serving: Callable[[int, Path], AbstractContextManager[object]]
    environment: Callable[[str], Mapping[str, str]]
    #: Whether it makes an object only where there is none, when asked so.
    knows_conditions: bool = True

    @property
    def url(self) -> str:
        return f"{self.scheme}://{BUCKET}"


def wait_for(port: int) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"nothing answers on port {port}")


@contextmanager
def _moto(port: int, folder: Path) -> Iterator[None]:
    from moto.s3.models import s3_backends

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=port, verbose=False)
    server.start()
    s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")
    try:
        yield
    finally:
        server.stop()


def _program(*command: str) -> Callable[[int, Path], AbstractContextManager[object]]:
    @contextmanager
    def serving(port: int, folder: Path) -> Iterator[None]:
        words = [word.format(port=port, folder=folder, programs=PROGRAMS) for word in command]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            try:
                yield
            finally:
                running.kill()

    return serving


def _s3(url: str) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _azure(url: str) -> Mapping[str, str]:
    account = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_AZURE_KEY}"
    return {"AZURE_STORAGE_CONNECTION_STRING": f"{account};BlobEndpoint={url}/devstoreaccount1;"}


STORES: dict[str, Store] = {
    "s3": Store("s3", _moto, _s3),
    "gs": Store(
        "gs",
        _program(
            *(sys.executable, "-m", "gcp_storage_emulator", "start", "-M", "-q"),
            *("--host", "127.0.0.1", "--port", "{port}", "--default-bucket", BUCKET),
        ),
        lambda url: {"STORAGE_EMULATOR_HOST": url},
        knows_conditions=False,
    ),
    "az": Store(
        "az",
        _program(
            *("{programs}/azurite-blob", "-l", "{folder}/az", "--blobPort", "{port}"),
            *("--silent", "--skipApiVersionCheck"),
        ),
        _azure,
    ),
}

"""deploy/nginx.conf with nginx itself: callers on one side, the real server on the other."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from clipsrv.config import Config
from tests.support.photos import drawn
from tests.support.photos import photo as photograph
from tests.support.server import ServerProcess
from tests.support.wire import BOUNDARY, form, part

EXAMPLE = Path(__file__).parents[2] / "deploy/nginx.conf"
NAME, KEY = "clip.example.com", "a-key-that-nobody-guesses"
HEADERS = {"Host": NAME, "Authorization": f"Bearer {KEY}"}
#: A caller that is not on the proxy's own address. All of 127.0.0.0/8 is this machine.
ELSEWHERE = "127.0.0.2"
MAIN = """\
daemon off; master_process off; pid nginx.pid; error_log error.log;
events { worker_connections 256; }
http { access_log off; %s include conf.d/*.conf; }
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Answer(NamedTuple):
    status: int
    body: Any


class Proxy:
    """nginx with the example on a port of its own, before a server on another; its block for `streams` left out, as it
    stands there, or put in."""

    def __init__(self, folder: Path, upstream: int, *, streams: bool = False) -> None:
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin:/usr/bin")
        assert program, "nginx is missing: apt install nginx-light, or brew install nginx"
        self._log = folder / "error.log"
        self.port, self._context = free_port(), ssl.create_default_context(cafile=certificate(folder))
        text = EXAMPLE.read_text(encoding="utf-8")
        for said, here in (
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            ("server 127.0.0.1:5000", f"server 127.0.0.1:{upstream}"),
            ("/etc/nginx/clipsrv", f"{folder}/clipsrv"),
        ):
            assert said in text
            text = text.replace(said, here)
        if streams:
            begun = text.index("# location = /embed/batch")
            end = text.index("# }", begun) + len("# }")
            text = text[:begun] + text[begun:end].replace("# ", "") + text[end:]
        (folder / "conf.d").mkdir()
        (folder / "conf.d/clipsrv.conf").write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        (folder / "nginx.conf").write_text(MAIN % " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds))
        self._process = subprocess.Popen(
            [program, "-p", str(folder), "-e", str(self._log), "-c", str(folder / "nginx.conf")]
        )
        limit = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                assert self._process.poll() is None, self.end()
                assert time.monotonic() < limit
                time.sleep(0.05)

    def ask(self, path: str, body: bytes | None = None, *, host: str = NAME, **headers: str) -> Answer:
        """The answer to a request that comes from ELSEWHERE on a connection of its own."""
        connection = self.connect()
        sent = {**HEADERS, "Host": host, "Content-Type": "image/jpeg"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request("GET" if body is None else "POST", path, body, sent)
            response = connection.getresponse()
            said = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return Answer(response.status, json.loads(said) if is_json else said)
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPSConnection:
        """A connection from ELSEWHERE."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=self._context, source_address=(ELSEWHERE, 0), timeout=60
        )
        connection._create_connection = socket.create_connection  # type: ignore[attr-defined]
        return connection

    def end(self) -> str:
        """What nginx had to say."""
        self._process.terminate()
        self._process.wait(30)
        return self._log.read_text()


def certificate(folder: Path) -> Path:
    """A certificate for this machine's address, in the place of a real one for NAME."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1")
    files = ("-keyout", folder / "clipsrv.key", "-out", folder / "clipsrv.crt")
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return folder / "clipsrv.crt"


@pytest.fixture(scope="module")
def server(models_dir: Path) -> Iterator[ServerProcess]:
    """clipsrv with the flags that the example's first lines name, small limits, and a key."""
    flags = re.findall(r"^#   (--.+)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)[0].split()
    flags += ["--max-body-bytes", "4000000", "--max-image-bytes", "4000000", "--auth-failures", "0"]
    running = ServerProcess(
        *("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", free_port()),
        *flags,
        env={"CLIPSRV_API_KEYS": KEY},
    )
    yield running.ready()
    running.close()


@pytest.fixture(scope="module")
def proxy(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    running = Proxy(tmp_path_factory.mktemp("nginx"), server.address[1])
    yield running
    running.end()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return photograph("china.jpg")


def test_an_image_goes_through_and_its_vector_comes_back(server: ServerProcess, proxy: Proxy, photo: bytes) -> None:
    answer = proxy.ask("/embed", photo)
    assert answer.status == 200
    head = f"POST /embed HTTP/1.1\r\nHost: {NAME}\r\nX-API-Key: {KEY}\r\nContent-Length: {len(photo)}\r\n"
    directly = server.ask(f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + photo)
    assert answer.body == json.loads(directly.body)


def test_a_body_as_large_as_the_server_takes_goes_through(proxy: Proxy, photo: bytes) -> None:
    large = photo + bytes(3_900_000 - len(photo))  # past nginx's own limit of a megabyte, and past its memory
    assert proxy.ask("/embed", large).status == 200


def test_a_caller_is_known_by_its_own_address_whatever_it_says(
    server: ServerProcess, proxy: Proxy, photo: bytes
) -> None:
    assert proxy.ask("/embed", photo, X_Forwarded_For="203.0.113.9", X_Request_Id="spoofed-one").status == 200
    assert f"client={ELSEWHERE} " in server.wait_for("request_id=spoofed-one")


def test_a_name_that_is_not_allowed_is_refused(proxy: Proxy, photo: bytes) -> None:
    assert proxy.ask("/health", host="other.example.com").status == 403


@pytest.mark.parametrize(
    ("expected", "code", "headers", "size"),
    [
        (401, "unauthorized", {"Authorization": "Bearer wrong"}, 3_900_000),
        (413, "body_too_large", {}, 9_000_000),
        (415, "unsupported_media_type", {"Content-Type": "text/html"}, 3_900_000),
    ],
)
def test_a_refusal_before_the_body_is_read_reaches_the_caller_whole(
    proxy: Proxy, expected: int, code: str, headers: dict[str, str], size: int
) -> None:
    """The server answers and closes while nginx still sends: never a 502."""
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: proxy.ask("/embed", bytes(size), **headers), range(12)))
    assert {answer.status for answer in answers} == {expected}
    assert {answer.body["error"]["code"] for answer in answers} == {code}


def test_connections_to_the_server_are_used_again(server: ServerProcess, proxy: Proxy, photo: bytes) -> None:
    def open_now() -> set[int]:
        """nginx's ports of the connections that the server holds."""
        return {
            connection.raddr.port
            for connection in psutil.Process(server.process.pid).net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == server.address[1]
        }

    assert proxy.ask("/embed", photo).status == 200
    before = open_now()
    assert before
    for _ in range(20):
        assert proxy.ask("/embed", photo).status == 200
    assert open_now() <= before


def test_nginx_ends_idle_connections_before_the_server_would() -> None:
    (seconds,) = re.findall(r"keepalive_timeout (\d+)s;", EXAMPLE.read_text(encoding="utf-8"))
    assert int(seconds) + 5 <= Config.keep_alive


def test_nginx_lets_the_server_answer_first_when_something_is_too_long_or_too_large() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", text)
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(megabytes) * 2**20 > Config.max_body_bytes
    assert int(seconds) > Config.deadline


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = {"Accept": "application/x-ndjson", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def test_a_stream_comes_line_by_line_through_nginx_where_the_example_is_told_to(
    server: ServerProcess, tmp_path: Path
) -> None:
    image = f"--{BOUNDARY}\r\n".encode() + part(drawn(1), "images") + b"\r\n"
    proxy = Proxy(tmp_path, server.address[1], streams=True)
    connection = proxy.connect()
    try:
        connection.putrequest("POST", "/embed/batch?encoding=base64", skip_host=True)
        for name, value in {**HEADERS, **STREAM, "Transfer-Encoding": "chunked"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(_chunk(2 * image))
        response = connection.getresponse()
        for index in range(5):  # each while the next is still here
            assert json.loads(response.readline())["index"] == index
            connection.send(_chunk(image))
        connection.send(_chunk(f"--{BOUNDARY}--\r\n".encode()) + b"0\r\n\r\n")
        *lines, last = map(json.loads, response.read().splitlines())
        assert (len(lines), last["done"], last["count"]) == (2, True, 7)
    finally:
        connection.close()
        proxy.end()


def test_a_stream_through_the_example_as_it_stands_comes_whole(proxy: Proxy) -> None:
    body = form(*[part(drawn(seed), "images") for seed in range(3)])
    answer = proxy.ask("/embed/batch", body, **{name.replace("-", "_"): value for name, value in STREAM.items()})
    assert answer.status == 200
    *lines, last = map(json.loads, answer.body.splitlines())
    assert {line["index"] for line in lines} == {0, 1, 2}
    assert last["done"] is True


def test_metrics_are_not_for_the_world(proxy: Proxy) -> None:
    assert proxy.ask("/metrics").status == 404


def test_a_server_that_comes_back_is_found_again_without_nginx_knowing(
    models_dir: Path, tmp_path: Path, photo: bytes
) -> None:
    port = free_port()

    def start() -> ServerProcess:
        flags = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", port)
        return ServerProcess(*flags, "--allowed-hosts", NAME).ready()

    first = start()
    proxy = Proxy(tmp_path, port)
    try:
        assert proxy.ask("/embed", photo).status == 200
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
        assert proxy.ask("/embed", photo).status == 502
        first.close()
        first = start()
        assert proxy.ask("/embed", photo).status == 200
    finally:
        first.close()
        proxy.end()

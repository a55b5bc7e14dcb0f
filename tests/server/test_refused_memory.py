"""Whatever is refused or given up leaves no memory behind, even while the cyclic collector does not run."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.photos import drawn
from tests.support.server import ServerProcess
from tests.support.uncollected import BUG, FAILS, MIB, NO_MEMORY, SLOW_TO_COMPUTE, SLOW_TO_READ
from tests.support.wire import BOUNDARY, form, part, request

#: Bytes of each request, how often it is sent, and by how much memory may have grown then: half of what was sent.
SIZE, TIMES, ROOM = 4 * MIB, 6, 12 * MIB
JUNK = np.random.default_rng(0).bytes(SIZE)
GOOD = drawn(1)
NUMBER, NUMBERS = b"<number>", itertools.count()
IMAGE, JSON = "Content-Type: image/png", "Content-Type: application/json"
FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
CHUNKED = "Transfer-Encoding: chunked"


def image(end: bytes) -> bytes:
    """A whole image that the decoder takes, and a long tail that it never looks at."""
    return GOOD + JUNK + NUMBER + end


def another(data: bytes) -> bytes:
    """The same request with an image that has not been sent before: one that has may be known, or being computed."""
    return data.replace(NUMBER, b"%08d" % next(NUMBERS))


def large_jpeg() -> bytes:
    """A JPEG of 2 megapixels, cut in its middle: half of it has been decoded when that shows."""
    blob = drawn(1, size=(1500, 1500), form="JPEG")
    return blob[: len(blob) // 2]


def post(path: str, body: bytes, *headers: str) -> bytes:
    return request("POST", path, body, *headers)


def batch(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return post("/embed/batch", form(*parts, end=end), FORM)


LONG_HEAD = f'Content-Disposition: form-data; name="images"; filename="{"a" * 9000}"'
MANY_HEADS = 'Content-Disposition: form-data; name="images"' + "".join(f"\r\nX-{number}: 1" for number in range(20))
ENCODED = 'Content-Disposition: form-data; name="images"\r\nContent-Encoding: gzip'

REFUSED: dict[str, tuple[bytes, int, str]] = {
    "an image that is cut": (post("/embed", large_jpeg(), IMAGE), 422, "truncated_image"),
    "no image": (post("/embed", JUNK, IMAGE), 422, "not_an_image"),
    "one bad image of two": (batch(part(GOOD, "images"), part(JUNK, "images")), 422, "not_an_image"),
    "a form that never ends": (batch(part(JUNK, "images"), end=b""), 400, "malformed_multipart"),
    "a part with a long header": (batch(part(JUNK, "images"), part(b"", head=LONG_HEAD)), 400, "malformed_multipart"),
    "a part with many headers": (batch(part(JUNK, "images"), part(b"", head=MANY_HEADS)), 400, "malformed_multipart"),
    "a part that is compressed": (
        batch(part(JUNK, "images"), part(b"", head=ENCODED)),
        400,
        "unsupported_part_encoding",
    ),
    "too many parts": (batch(part(JUNK, "images"), *[part(b"x", "other")] * 30), 413, "too_many_parts"),
    "too many images": (batch(*[part(JUNK[: SIZE // 8], "images")] * 9), 413, "too_many_images"),
    "much after the form": (post("/embed", form(part(JUNK)) + bytes(2 * MIB), FORM), 413, "body_too_large"),
    "another field": (post("/embed", form(part(JUNK, "other")), FORM), 400, "unexpected_field"),
    "a field twice": (post("/embed", form(part(JUNK), part(JUNK)), FORM), 400, "duplicate_field"),
    "JSON that is cut": (post("/embed", b'{"image": "' + b"A" * SIZE, JSON), 400, "invalid_json"),
    "base64 that is none": (post("/embed", b'{"image": "' + b"!" * SIZE + b'"}', JSON), 400, "invalid_base64"),
    "base64 of no image": (
        post("/embed", b'{"image": "' + base64.b64encode(JUNK) + b'"}', JSON),
        422,
        "not_an_image",
    ),
    "JSON of another field": (post("/embed", b'{"other": "' + b"A" * SIZE + b'"}', JSON), 400, "missing_image"),
    "a text too long to be read": (
        post("/embed/text", b'{"text": "' + b"A" * SIZE + b'"}', JSON),
        400,
        "invalid_text",
    ),
    "one bad image among texts": (
        post("/v1/embeddings", b'{"input": ["a", {"image": "' + base64.b64encode(JUNK) + b'"}]}', JSON),
        400,
        "not_an_image",
    ),
    "base64 that is none among texts": (
        post("/v1/embeddings", b'{"input": ["a", {"image": "' + b"!" * SIZE + b'"}]}', JSON),
        400,
        "invalid_base64",
    ),
    "token ids": (post("/v1/embeddings", b'{"input": [' + b"1," * SIZE + b"1]}", JSON), 413, "body_too_large"),
    "another type": (post("/embed", JUNK, "Content-Type: text/html"), 415, "unsupported_media_type"),
    "an unknown option": (post("/embed?x=1", JUNK, IMAGE), 400, "unknown_option"),
    "more than a body may be": (
        post("/embed", b"".join(b"%x\r\n%s\r\n" % (SIZE, JUNK) for _ in range(4)) + b"0\r\n\r\n", IMAGE, CHUNKED),
        413,
        "body_too_large",
    ),
    "a body that stalls": (post("/embed", JUNK, IMAGE)[:-10], 408, "request_timeout"),
    "memory that runs out": (post("/embed", image(NO_MEMORY), IMAGE), 503, "out_of_memory"),
    "inference that fails": (post("/embed", image(FAILS), IMAGE), 503, "inference_failed"),
    "what nobody foresaw": (post("/embed", image(BUG), IMAGE), 500, "internal"),
    "a deadline that passes while an image is read": (
        post("/embed", image(SLOW_TO_READ), IMAGE),
        504,
        "deadline_exceeded",
    ),
    "a deadline that passes while a batch is computed": (
        post("/embed", image(SLOW_TO_COMPUTE), IMAGE),
        504,
        "deadline_exceeded",
    ),
}


LINES = "Accept: application/x-ndjson"
ENCODED_JUNK = base64.b64encode(JUNK)


def stream(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return post("/embed/batch", form(*parts, end=end), FORM, LINES)


#: What is told in a line, of an image or the last.
STREAMED: dict[str, tuple[bytes, int, str]] = {
    "an image that is none": (stream(part(GOOD, "images"), part(JUNK, "images")), 422, "not_an_image"),
    "a form that never ends": (stream(part(GOOD, "images"), part(JUNK, "images"), end=b""), 400, "malformed_multipart"),
    "another field": (stream(part(GOOD, "images"), part(JUNK, "images"), part(JUNK)), 400, "unexpected_field"),
    "a form that stalls": (stream(part(GOOD, "images"), part(JUNK, "images"))[:-10], 408, "request_timeout"),
    "JSON that is cut": (
        post("/embed/batch", b'{"images": ["AAAA", "' + ENCODED_JUNK, JSON, LINES),
        400,
        "invalid_json",
    ),
    "base64 that is none": (
        post("/embed/batch", b'{"images": ["' + b"!" * SIZE + b'"]}', JSON, LINES),
        400,
        "invalid_base64",
    ),
    "memory that runs out": (stream(part(image(NO_MEMORY), "images")), 503, "out_of_memory"),
    "inference that fails": (stream(part(image(FAILS), "images")), 503, "inference_failed"),
    "what nobody foresaw": (stream(part(image(BUG), "images")), 500, "internal"),
    "a deadline that passes": (stream(part(image(SLOW_TO_READ), "images")), 504, "deadline_exceeded"),
}


@pytest.fixture(scope="module")
def uncollected() -> Iterator[ServerProcess]:
    # What is freed goes back to the system at once, or the C library's own store would hide what is kept.
    plain = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    server = ServerProcess(command=[sys.executable, "-m", "tests.support.uncollected"], env=plain)
    yield server.ready()
    server.close()


def resident(server: ServerProcess) -> int:
    """Bytes of memory that the server has once nothing is in work."""
    idle = ("clipsrv_inflight 1.0", "slots_in_use 0.0", "queue_images 0.0", "pixels_inflight 0.0")
    limit = time.monotonic() + 30
    while True:
        metrics = server.ask(request("GET", "/metrics", None)).body.decode()
        if all(line in metrics for line in idle):
            break
        assert time.monotonic() < limit, metrics
        time.sleep(0.05)
    time.sleep(0.1)
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def assert_flat(server: ServerProcess, ask: Callable[[], object], times: int = TIMES, *, together: int = 1) -> None:
    """Asks as often to warm up, and once more, `together` at a time where what they wait for is that time passes."""
    with ThreadPoolExecutor(together) as threads:
        list(threads.map(lambda _: ask(), range(max(2, together))))
        before = resident(server)
        list(threads.map(lambda _: ask(), range(times)))
    limit = time.monotonic() + 10
    while (grown := resident(server) - before) >= ROOM and time.monotonic() < limit:
        time.sleep(0.2)  # the last connections are still to be closed; what leaks stays
    assert grown < ROOM


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_no_memory_behind(name: str, uncollected: ServerProcess) -> None:
    data, status, code = REFUSED[name]

    def once() -> None:
        reply = uncollected.ask(another(data))
        assert (reply.status, reply.json["error"]["code"]) == (status, code)

    assert_flat(uncollected, once, together=TIMES if status in {408, 504} else 1)


@pytest.mark.parametrize("name", STREAMED)
def test_what_a_stream_tells_of_leaves_no_memory_behind(name: str, uncollected: ServerProcess) -> None:
    data, status, code = STREAMED[name]

    def once() -> None:
        lines = map(json.loads, uncollected.ask(another(data)).body.splitlines())
        assert (status, code) in {(line["error"]["status"], line["error"]["code"]) for line in lines if "error" in line}

    assert_flat(uncollected, once, together=TIMES if status in {408, 504} else 1)


@pytest.mark.parametrize(
    ("where", "data", "after"),
    [
        ("in the upload of a stream", stream(part(GOOD, "images"), part(JUNK, "images"))[:-10], 0.1),
        ("while an image of a stream is read", stream(part(image(SLOW_TO_READ), "images")), 0.2),
        ("while a batch of a stream is computed", stream(part(image(SLOW_TO_COMPUTE), "images")), 0.2),
        ("in its upload", post("/embed", JUNK, IMAGE)[:-10], 0.1),
        ("in the upload of a form", batch(part(JUNK, "images"))[:-10], 0.1),
        ("in the upload of JSON", post("/embed", b'{"image": "' + JUNK, JSON, "Content-Length: 9000000"), 0.1),
        ("while its image is read", post("/embed", image(SLOW_TO_READ), IMAGE), 0.2),
        ("while its batch is computed", post("/embed", image(SLOW_TO_COMPUTE), IMAGE), 0.2),
    ],
)
def test_a_caller_that_has_gone_leaves_no_memory_behind(
    where: str, data: bytes, after: float, uncollected: ServerProcess
) -> None:
    def once() -> None:
        with socket.create_connection(uncollected.address) as sock:
            sock.sendall(another(data))
            time.sleep(after)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a goodbye

    assert_flat(uncollected, once)


def test_what_finds_the_server_full_or_waits_in_its_queue_in_vain_leaves_no_memory_behind(
    uncollected: ServerProcess,
) -> None:
    held = post("/embed", image(SLOW_TO_COMPUTE), IMAGE)

    def once() -> None:
        each = [another(held) for _ in range(8)]
        holding = [socket.create_connection(uncollected.address, 20) for _ in each]
        for sock, data in zip(holding, each, strict=True):
            sock.sendall(data)
        limit = time.monotonic() + 20
        while b"slots_in_use 8.0" not in uncollected.ask(request("GET", "/metrics", None)).body:
            assert time.monotonic() < limit
        reply = uncollected.ask(post("/embed", JUNK, IMAGE))
        assert (reply.status, reply.code) == (429, "overloaded")
        for sock in holding:
            assert sock.recv(12).endswith((b"504", b"503"))
            sock.close()

    assert_flat(uncollected, once, times=1)  # of nine requests

"""The peak of a server's memory under attack, beside the bound of docs/limits.md.

python -m drills.memory. Large bodies that stall, JSON that takes most, the largest images allowed in every expensive
form, long batches and idle connections, all at once. Exit status 1 if the peak passes the bound.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from io import BytesIO

from PIL import Image

from clipsrv.serving.memory import memory_bound
from clipsrv.settings import JSON_SIGNS_PER_ITEM, json_items
from drills.inputs import IMAGE, JSON
from drills.process import Target
from drills.server import SMALL
from tests.support.model import SIZE
from tests.support.photos import drawn
from tests.support.wire import BOUNDARY, form, part, request

_SECONDS = 20
_GONE = (OSError, TimeoutError, asyncio.IncompleteReadError)


def expensive_images(pixels: int) -> list[bytes]:
    """The largest image allowed in each form whose decoder takes most memory."""
    side = int(pixels**0.5)
    made = []
    for mode, form_of, part_of in (
        ("RGBA", "PNG", 1.0),
        ("RGB", "JPEG", 1.0),
        ("P", "GIF", 0.3),
        ("RGBA", "WEBP", 0.3),
        ("CMYK", "TIFF", 0.8),
    ):
        edge = int(side * part_of)
        file = BytesIO()
        Image.new(mode, (edge, edge)).save(
            file, form_of, **({"compression": "tiff_deflate"} if form_of == "TIFF" else {})
        )
        made.append(file.getvalue())
    return made


def expensive_json() -> list[bytes]:
    """The largest bodies of JSON allowed: base64, characters that take four bytes, as many lists as may be."""
    most, signs = min(SMALL.max_json_bytes, SMALL.max_body_bytes) - 100, JSON_SIGNS_PER_ITEM * json_items(SMALL)
    text = b'{"text":"' + b"a " * 499_000 + "😀".encode() + b'"}'
    bodies = [b'{"image":"' + b"QUJD" * (most // 4) + b'"}', b'{"image":[' + b"[]," * (signs // 2 - 4) + b"0]}"]
    return [request("POST", "/embed", body, JSON) for body in bodies] + [request("POST", "/embed/text", text, JSON)]


async def keep_sending(target: Target, data: bytes, until: float) -> None:
    while time.monotonic() < until:
        try:
            await target.send(data)
        except _GONE:
            await asyncio.sleep(0.1)


async def hold(target: Target, data: bytes, until: float) -> None:
    """Sends and then neither reads nor closes."""
    while time.monotonic() < until:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(data)
            await asyncio.wait_for(writer.drain(), 2)
            await asyncio.sleep(1.5)
            writer.close()
        except _GONE:
            await asyncio.sleep(0.1)


async def run() -> int:
    target = Target("--small")
    await target.start()
    until, idle = time.monotonic() + _SECONDS, target.resident()
    peak = idle
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    batch = request("POST", "/embed/batch", form(*[part(drawn(seed), "images") for seed in range(60)]), kind)
    large = b"x" * (SMALL.max_body_bytes - 1000)
    stalled = request("POST", "/embed", large, IMAGE, f"Content-Length: {SMALL.max_body_bytes}")
    attackers = [
        keep_sending(target, request("POST", "/embed", blob, IMAGE), until)
        for blob in expensive_images(SMALL.max_pixels)
    ]
    attackers += [keep_sending(target, data, until) for data in expensive_json() for _ in range(4)]
    attackers += [hold(target, stalled, until) for _ in range(40)]
    attackers += [keep_sending(target, batch, until) for _ in range(12)]
    attackers += [hold(target, b"GET / HTTP/1.1\r\n", until) for _ in range(100)]
    work = asyncio.gather(*attackers)
    while not work.done():
        peak = max(peak, target.resident())
        await asyncio.sleep(0.02)
    healthy = await target.healthy()
    await target.stop(signal.SIGTERM)
    bound = memory_bound(SMALL, SIZE)
    facts = {
        "idle MiB": idle >> 20,
        "peak beyond idle MiB": (peak - idle) >> 20,
        "bound MiB": bound >> 20,
        "healthy at the end": healthy,
    }
    print(json.dumps(facts))
    return 0 if peak - idle <= bound and healthy else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(run()))

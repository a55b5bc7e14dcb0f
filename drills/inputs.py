"""What a server may be sent: good images with their truth, bad images and requests by kind. All seeded."""

from __future__ import annotations

import struct
import zlib
from random import Random

import numpy as np
from numpy.typing import NDArray

from tests.support.model import truth
from tests.support.photos import drawn
from tests.support.wire import BOUNDARY, form, part, request

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
JSON = "Content-Type: application/json"
IMAGE = "Content-Type: application/octet-stream"


class GoodImages:
    """`count` distinct images in all formats, each with the vector the server must give."""

    def __init__(self, count: int) -> None:
        self.blobs = [drawn(seed, (33 + seed % 50, 40), FORMATS[seed % len(FORMATS)]) for seed in range(count)]
        self.truths: list[NDArray[np.float32]] = [truth(blob) for blob in self.blobs]

    def __len__(self) -> int:
        return len(self.blobs)


def bad_images(random: Random) -> dict[str, bytes]:
    """One bad or doubtful image of every kind."""
    form_of = random.choice(FORMATS)
    blob = drawn(random.randrange(1000), (60, 50), form_of)
    return {
        "cut": blob[: random.randrange(len(blob))],
        "bits flipped": flip(random, blob),
        "piece removed": blob[: (at := random.randrange(len(blob)))] + blob[at + random.randrange(1, 40) :],
        "piece doubled": blob[: (at := random.randrange(len(blob)))] + blob[max(0, at - 30) :],
        "piece zeroed": blob[: (at := random.randrange(len(blob)))] + bytes(20) + blob[at + 20 :],
        "random bytes": random.randbytes(random.randrange(1, 2000)),
        "wrong header": random.choice(
            (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFFxxxxWEBP")
        )
        + random.randbytes(500),
        "text": b"<html><body>502 Bad Gateway</body></html>",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "pixel bomb": png(random.choice((30_000, 2**31 - 1)), random.choice((30_000, 7_000)), b""),
        "thin": png(1, 60_000, bytes(60_000 * 2)),
        "text bomb": png(8, 8, bytes(8 * 9), chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**7)))),
        "canvas bomb": b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b"," + bytes(30),
    }


def bad_requests(random: Random) -> dict[str, bytes]:
    """One request of every malformed kind, as bytes on the wire."""
    blob = drawn(random.randrange(1000))
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    whole = request("POST", "/embed", form(part(blob)), kind)
    head, _, body = whole.partition(b"\r\n\r\n")
    return {
        "head mutated": flip(random, head) + b"\r\n\r\n" + body,
        "form mutated": request("POST", "/embed", flip(random, body), kind),
        "form cut": request("POST", "/embed", body[: random.randrange(len(body))], kind),
        "form spliced": request("POST", "/embed", body[random.randrange(len(body)) :] + body, kind),
        "wrong field": request("POST", "/embed", form(part(blob, "photo")), kind),
        "many parts": request("POST", "/embed", form(*[part(b"", "x")] * 300), kind),
        "no boundary": request("POST", "/embed", body, "Content-Type: multipart/form-data"),
        "JSON": request("POST", "/embed", random.choice((b"{", b"[]", b"[" * 9999, b'{"image": 1}')), JSON),
        "base64": request("POST", "/embed", b'{"image": "%s!"}' % blob.hex().encode(), JSON),
        "gzip": request("POST", "/embed", blob, IMAGE, "Content-Encoding: gzip"),
        "huge length": request("POST", "/embed", b"", IMAGE, f"Content-Length: {random.randrange(2**28, 2**60)}"),
        "two lengths": request("POST", "/embed", b"", "Content-Length: 1", "Content-Length: 2"),
        "chunks": request("POST", "/embed", b"%x\r\n" % random.randrange(2**70), IMAGE, "Transfer-Encoding: chunked"),
        "long line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        "garbage": random.randbytes(300) + b"\r\n\r\n",
        "another method": request(random.choice(("PUT", "FOO", "DELETE")), "/embed", b""),
        "another path": request("GET", "/" + "".join(random.choices("abc/%.", k=20)), None),
        "another host": request("POST", "/embed", blob, IMAGE, "Host: evil.example"),
        "another site": request("POST", "/embed", blob, IMAGE, "Origin: https://evil.example"),
        "unknown option": request("POST", "/embed?normalise=1", blob, IMAGE),
    }  # fmt: skip


def flip(random: Random, data: bytes) -> bytes:
    """`data` with one to eight bytes changed."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 9)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def png(width: int, height: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A greyscale PNG of any claimed size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

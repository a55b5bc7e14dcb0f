"""What is asked of a server: how many callers, how many images a request, of what kind; and the bytes of it."""

from __future__ import annotations

import itertools
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.photos import PhotoKind

SHOP, WEB, PHONE = PhotoKind(1024, 768), PhotoKind(640, 427), PhotoKind(4032, 3024, quality=92)
PNG, WEBP = PhotoKind(1024, 768, "PNG"), PhotoKind(1024, 768, "WEBP", quality=80)

_BOUNDARY = "----clipsrvbench7d1c0a"


@dataclass(frozen=True)
class Load:
    """`callers` connections, each sending its next request of `images` images when the last was answered."""

    name: str
    callers: int
    images: int = 1
    photo: PhotoKind = SHOP

    @property
    def distinct(self) -> int:
        """Images to rotate through."""
        return 12 if self.photo == PHONE else 64 if self.images > 1 or self.callers > 16 else 32


EIGHT = Load("8 callers", 8)
ONE = Load("1 caller", 1)
BATCH = Load("requests of 16", 1, images=16)
PHONES = Load("12 megapixels, 8 callers", 8, photo=PHONE)
LOADS = (
    *(ONE, Load("4 callers", 4), EIGHT, Load("16 callers", 16), Load("64 callers", 64)),
    *(BATCH, Load("requests of 64", 1, images=64)),
    Load("640x427, 8 callers", 8, photo=WEB),
    PHONES,
    Load("PNG, 8 callers", 8, photo=PNG),
    Load("WebP, 8 callers", 8, photo=WEBP),
)


def guide_requests(load: Load, blobs: Sequence[bytes], host: str) -> list[bytes]:
    """Whole HTTP requests as the guide's client sends them (multipart), for clipsrv and the baseline."""
    field, path = ("image", "/embed") if load.images == 1 else ("images", "/embed/batch")
    kind = f"image/{load.photo.format.lower()}"
    return [
        _post(path, host, f"multipart/form-data; boundary={_BOUNDARY}", _form(field, kind, group))
        for group in _rotate(blobs, load.images)
    ]


def infinity_requests(load: Load, blobs: Sequence[bytes], host: str) -> list[bytes]:
    """The same images as infinity takes them: data URIs in JSON."""
    kind = f"image/{load.photo.format.lower()}"
    return [
        _post(
            "/embeddings",
            host,
            "application/json",
            json.dumps(
                {
                    "model": "rival",
                    "modality": "image",
                    "input": [f"data:{kind};base64,{b64encode(blob).decode()}" for blob in group],
                }
            ).encode(),
        )
        for group in _rotate(blobs, load.images)
    ]


def _rotate(blobs: Sequence[bytes], size: int) -> list[list[bytes]]:
    """Groups of `size`, each starting where the last ended; three or more where one takes all."""
    cycle = itertools.cycle(blobs)
    return [list(itertools.islice(cycle, size)) for _ in range(max(3, len(blobs) // size))]


def _post(path: str, host: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _form(field: str, kind: str, blobs: Sequence[bytes]) -> bytes:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{index}.img"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + blob
        + b"\r\n"
        for index, blob in enumerate(blobs)
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()

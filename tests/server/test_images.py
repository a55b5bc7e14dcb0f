"""Images made to hurt, through the whole server: refused by name or embedded, in bounded time and memory."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from drills.inputs import chunk, flip, png
from tests.support.heif import box, container, frame, full, shown
from tests.support.jpegs import progressive, segment, with_segments
from tests.support.serving import assert_as_before, drawn, serving, truth
from tests.support.tiffs import BLACK_IS_ZERO, Kind, Layout, Tags, assemble, tiff

MIB = 2**20


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def animated_webp(width: int, height: int) -> bytes:
    """A WebP of a few bytes that claims a canvas of any size."""
    still = saved(Image.new("RGB", (8, 8)), "WEBP")[12:]
    frame = struct.pack("<I", 0)[:3] * 2 + (7).to_bytes(3, "little") * 2 + bytes(4) + still
    canvas = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + riff(b"VP8X", canvas) + riff(b"ANIM", bytes(6)) + riff(b"ANMF", frame)
    return riff(b"RIFF", body)


def riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def gif(width: int, height: int) -> bytes:
    small = saved(Image.new("P", (1, 1)), "GIF")
    return small[:6] + struct.pack("<HH", width, height) + small[10:]


def one_bit(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def items(brand: bytes, count: int) -> bytes:
    """A container whose list of places is long."""
    places = struct.pack(">H", count) + b"".join(struct.pack(">HHHII", number, 0, 1, 0, 0) for number in range(count))
    head = box(b"ftyp", brand, bytes(4), brand)
    return head + full(b"meta", 0, 0, full(b"pitm", 0, 0, b"\0\1"), full(b"iloc", 0, 0, b"\x44\0", places))


def tiled(tags: Tags) -> bytes:
    samples = np.zeros((64, 64, 1), np.uint8)
    return tiff(samples, Kind(BLACK_IS_ZERO), Layout(tile=(16, 16)), tags)


JPEG = saved(Image.new("RGB", (8, 8)), "JPEG")
TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MIB)))
#: Bytes, or what makes them, and the code they are refused with.
BOMBS: dict[str, tuple[bytes | Callable[[], bytes], str | None]] = {
    "PNG of 30,000 a side": (png(30_000, 30_000, b""), "image_too_large"),
    "PNG of 2^31 a side": (png(2**31 - 1, 2**31 - 1, b""), "image_too_large"),
    "PNG of 2 x 24,999,999": (png(2, 24_999_999, b""), "image_too_large"),
    "PNG of 60 megapixels": (png(8_000, 7_500, b""), "image_too_large"),
    "PNG claiming 7,000 a side with no data": (png(7_000, 7_000, b""), "truncated_image"),
    "PNG of 1 x 10,000": (png(1, 10_000, bytes(20_000)), "aspect_ratio_too_large"),
    "PNG of 16,000 x 1": (png(16_000, 1, bytes(16_001)), "aspect_ratio_too_large"),
    "PNG of no width": (png(0, 64, b""), None),
    "GIF of 7,000 a side": (gif(7_000, 7_000), "image_too_large"),
    "GIF of 65,535 a side": (gif(65_535, 65_535), "image_too_large"),
    "animated WebP of 7,000 a side": (animated_webp(7_000, 7_000), "image_too_large"),
    "16-bit PNG of 26 megapixels": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5_200, 5_000, 16, 6, 0, 0, 0)),
        None,
    ),
    "text of 200 MB": (
        png(8, 8, bytes(72), chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(200 * MIB), 1))),
        "invalid_image",
    ),
    "70 texts of 1 MB": (png(8, 8, bytes(72), TEXT * 70), "invalid_image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_format"),
    "SVGZ": (b"\x1f\x8b" + bytes(30), "unsupported_image_format"),
    "PDF": (b"%PDF-1.7\n", "unsupported_image_format"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_image_format"),
    "Photoshop": (b"8BPS\0\1" + bytes(40), "unsupported_image_format"),
    "HEIC without an image": (b"\0\0\0\x18ftypheic" + bytes(40), "invalid_image"),
    "JPEG of 882 scans": (lambda: progressive(7_000, 7_000, 882), "image_too_complex"),
    "JPEG of 64,000 Exif segments": (
        lambda: with_segments(JPEG, segment(0xE1, b"Exif\0\0" + bytes(280)) * 64_000),
        "image_too_complex",
    ),
    "JPEG of 19 MB of padding": (lambda: with_segments(JPEG, b"\xff" * 19 * MIB), "image_too_complex"),
    "PNG of 10,000 compressed texts": (lambda: png(8, 8, bytes(72), TEXT * 10_000), "image_too_complex"),
    "PNG of 200,000 chunks": (lambda: png(8, 8, bytes(72), chunk(b"abCd", b"") * 200_000), "image_too_complex"),
    "GIF of 200,000 blocks": (b"GIF89a" + bytes(7) + b"!\xfe\0" * 200_000, "image_too_complex"),
    "GIF whose image leaves its screen": (
        b"GIF89a" + bytes(7) + b"," + struct.pack("<HHHHB", 0, 0, 9_000, 9_000, 0),
        "image_too_large",
    ),
    "TIFF of a tile of 40,000 a side": (
        assemble([b"x"], (64, 64, 1), Kind(BLACK_IS_ZERO), Layout(compression="Deflate", tile=(40_000, 40_000))),
        "image_too_large",
    ),
    "TIFF of 70,000 tiles": (lambda: tiled({324: ("I", [8] * 70_000)}), "image_too_complex"),
    "TIFF of 60,000 tags": (lambda: tiled({tag: ("I", [tag]) for tag in range(600, 60_600)}), "image_too_complex"),
    "AVIF whose frame is larger than it claims": (
        lambda: container(shown(frame(Image.new("L", (4_096, 4_096)), speed=10), 64, 64)),
        "image_too_large",
    ),
    "HEIC whose frame is larger than it claims": (
        lambda: container(shown(frame(Image.new("RGB", (1_024, 1_024)), "HEIF"), 64, 64), brand=b"heic"),
        "invalid_image",
    ),
    "AVIF of 60,000 items": (lambda: items(b"avif", 60_000), "image_too_complex"),
    "HEIC of 60,000 items": (lambda: items(b"heic", 60_000), "image_too_complex"),
    "a program": (b"\x7fELF" + bytes(60), "not_an_image"),
    "a web page": (b"<html></html>", "not_an_image"),
    "zeros": (bytes(1000), "not_an_image"),
}


class Peak:
    """The most memory this process had while watched."""

    def __init__(self) -> None:
        self.before = self.most = psutil.Process().memory_info().rss
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def growth(self) -> int:
        self._end.set()
        self._thread.join()
        return self.most - self.before

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.most = max(self.most, psutil.Process().memory_info().rss)


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_refused_by_name_in_a_moment_and_in_little_memory(name: str) -> None:
    made, code = BOMBS[name]
    blob = await asyncio.to_thread(made) if callable(made) else made
    async with serving() as served:
        peak, began = Peak(), time.monotonic()
        reply = await served.post("/embed", blob)
        took = time.monotonic() - began
        assert reply.status == 422
        assert code in {None, reply.code}, reply.code
        assert peak.growth < 150 * MIB
        assert took < 5
        await assert_as_before(served)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
async def test_an_image_cut_anywhere_is_refused_unless_every_pixel_is_there(form: str) -> None:
    blob, refused = drawn(5, (64, 48), form), 0
    async with serving() as served:
        for at in np.linspace(0, len(blob) - 1, 25, dtype=int):
            reply = await served.post("/embed", blob[:at])
            refused += reply.status == 422
            if reply.status != 422:  # only check sums or an end mark are missing
                np.testing.assert_allclose(reply.json["embedding"], truth(blob), atol=1e-6)
        await assert_as_before(served)
    assert refused > 15


HARMLESS = {
    "1 x 1": saved(Image.new("RGB", (1, 1), "red"), "PNG"),
    "trailing garbage": drawn(1, form="JPEG") + b"PK\x03\x04<?php" * 50,
    "10,000 texts": png(8, 8, bytes(72), chunk(b"tEXt", b"a\0b") * 10_000),
    "a broken colour profile": saved(Image.new("RGB", (8, 8)), "PNG", icc_profile=b"junk" * 50),
    "a broken EXIF block": saved(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40)),
    "1-bit": saved(Image.new("1", (20, 20)), "PNG"),
    "CMYK": saved(Image.new("CMYK", (20, 20)), "JPEG"),
    "grey and alpha": saved(Image.new("LA", (20, 20)), "PNG"),
    "16-bit": saved(Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "PNG"),
    "float": saved(Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)), "TIFF"),
    "2,000 frames": saved(
        Image.new("P", (9, 9)), "GIF", save_all=True, append_images=[Image.new("P", (9, 9), k % 9) for k in range(2000)]
    ),
    "pages": saved(Image.new("L", (9, 9)), "TIFF", save_all=True, append_images=[Image.new("L", (9, 9), 5)] * 50),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_a_strange_but_whole_image_has_a_vector(name: str) -> None:
    async with serving() as served:
        reply = await served.post("/embed", HARMLESS[name])
        assert reply.status == 200
        np.testing.assert_allclose(reply.json["embedding"], truth(HARMLESS[name]), atol=1e-6)


async def test_large_images_together_stay_within_the_pixels_allowed_at_once() -> None:
    blob = one_bit(3_000, 3_000)
    limits: dict[str, Any] = {"max_pixels": 10_000_000, "max_pixels_in_flight": 10_000_000, "decode_threads": 8}
    async with serving(**limits) as served:
        asked = asyncio.gather(*(served.post("/embed", blob) for _ in range(8)))
        held = set()
        while not asked.done():
            held.add(served.embedder.workshop.budget.in_use)
            await asyncio.sleep(0.001)
        assert {reply.status for reply in await asked} == {200}
        assert held == {0, 9_000_000}  # each in its turn
        await assert_as_before(served)


async def test_hundreds_of_damaged_images_are_422_or_a_vector_and_never_an_error_of_the_server() -> None:
    random, counts = Random(8), dict.fromkeys((200, 422), 0)
    async with serving() as served:
        for number in range(300):
            blob = drawn(number, (40, 40), ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")[number % 6])
            reply = await served.post("/embed", flip(random, blob))
            counts[reply.status] += 1
            if reply.status == 200:
                assert np.isfinite(reply.json["embedding"]).all()
        await assert_as_before(served)
    assert min(counts.values()) > 10

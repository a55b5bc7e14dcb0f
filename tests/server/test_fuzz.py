"""Mutated files, forms and requests, found by hypothesis: only errors there are names for, and always an answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsrv.errors import ClipsrvError, ImageError
from clipsrv.images.decode import decode_image
from clipsrv.server.wire.forms import read_form
from clipsrv.server.wire.pieces import Blob
from clipsrv.settings import ImageLimits
from drills.inputs import flip
from tests.support.serving import BOUNDARY, assert_as_before, drawn, form, part, request, serving

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
CORPUS = [drawn(seed, (24, 20), form) for seed, form in enumerate(FORMATS)]
CORPUS += [drawn(seed, (24, 20), "PNG", mode) for seed, mode in enumerate(("L", "LA", "RGBA", "P", "1", "I;16"))]
LIMITS = ImageLimits(max_pixels=1_000_000)
KIND = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
WHOLE = request("POST", "/embed", form(part(CORPUS[0])), KIND)


def examples(count: int) -> settings:
    """The same `count` examples each time, however long they take."""
    return settings(max_examples=count, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def mutated(draw: Any, seeds: list[bytes]) -> bytes:
    """One of `seeds` with one to five edits: bytes replaced, cut out, repeated, or put in; or cut short."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(("replace", "remove", "repeat", "insert", "cut")))
        if kind == "replace":
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 50))
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from((b"\0" * 8, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\r\n", b"--")))
        else:
            del data[at:]
    return bytes(data)


@examples(600)
@given(mutated(CORPUS))
def test_a_mutated_image_is_an_image_or_an_image_error(blob: bytes) -> None:
    try:
        image = decode_image(blob, LIMITS)
    except ImageError as error:
        assert "at 0x" not in error.message
    else:
        assert image.mode == "RGB"
        assert image.width * image.height <= LIMITS.max_pixels


@examples(400)
@given(mutated([form(part(CORPUS[0]), part(CORPUS[1])), form(part(b"", head="X: y"))]), st.integers(1, 400))
def test_a_mutated_form_is_read_or_refused_by_name_however_it_is_cut(body: bytes, size: int) -> None:
    async def read(step: int) -> list[Blob] | str:
        async def chunks() -> Any:
            for at in range(0, len(body), step):
                yield body[at : at + step]

        try:
            return await read_form(KIND.partition(" ")[2], chunks(), "image", 5)
        except ClipsrvError as error:
            return error.code

    assert asyncio.run(read(len(body) or 1)) == asyncio.run(read(size))


async def test_mutated_requests_are_answered_without_a_5xx_or_closed() -> None:
    random, answers = Random(4), Counter[str]()
    seeds = [WHOLE, WHOLE.replace(b"POST", b"GET"), b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    async with serving(header_timeout=0.3, body_timeout=0.3) as served:

        async def one(data: bytes) -> None:
            try:
                answers[str((await served.send(data, seconds=60)).status)] += 1
            except ConnectionError:
                answers["closed"] += 1

        for _ in range(10):
            await asyncio.gather(*(one(flip(random, random.choice(seeds))) for _ in range(40)))
        await assert_as_before(served)
    assert not [answer for answer in answers if answer.startswith("5")], answers
    assert answers["400"] > 100

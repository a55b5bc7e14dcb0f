"""Blanks after a boundary are no part of a form: however they are placed and cut, the parts are the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clipsrv.server.wire.boundaries import Unpadded
from tests.support.serving import BOUNDARY, drawn, part, request, serving, truth

MARK = f"--{BOUNDARY}".encode()
PADDINGS = st.sampled_from([b"", b" ", b"\t", b" \t " * 9])
#: Bodies made of what might be taken for a boundary.
BODIES = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"\r\n--", MARK, MARK[:-1], MARK + b" ", b"\r\n" + MARK[:-2], b" ", b"x"]),
    max_size=6,
).map(b"".join)


def unpadded(body: bytes, cuts: list[int]) -> bytes:
    strip, edges = Unpadded(BOUNDARY.encode()), [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return b"".join(strip.feed(body[low:high]) for low, high in pairwise(edges))


@given(
    st.lists(st.tuples(PADDINGS, BODIES), min_size=1, max_size=4),
    PADDINGS,
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_padding_goes_and_every_other_byte_stays(
    parts: list[tuple[bytes, bytes]], last: bytes, cuts: list[int]
) -> None:
    assume(all(b"\r\n" + MARK not in b"\r\n" + body for _, body in parts))
    plain = b"".join(MARK + b"\r\n" + body + b"\r\n" for _, body in parts) + MARK + b"--" + last
    padded = b"".join(MARK + padding + b"\r\n" + body + b"\r\n" for padding, body in parts) + MARK + b"--" + last
    assert unpadded(padded, cuts) == b"\r\n" + plain


def test_nothing_of_a_boundary_line_is_held_back_once_it_is_whole() -> None:
    for cuts in ([], [3], [len(MARK) + 5]):
        assert unpadded(b"body\r\n" + MARK + b" \r\n", cuts) == b"\r\nbody\r\n" + MARK + b"\r\n"


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("first", "second", "last"), [(" ", "", ""), ("", "\t ", ""), ("", "", "  "), (" " * 200,) * 3]
)
async def test_a_form_with_padded_boundaries_is_read(first: str, second: str, last: str, size: int) -> None:
    images = [drawn(1), drawn(2)]
    mark = MARK.decode()
    body = b"".join(
        f"{mark}{padding}\r\n".encode() + part(image, "images") + b"\r\n"
        for padding, image in zip((first, second), images, strict=True)
    )
    whole = request(
        "POST",
        "/embed/batch",
        body + f"{mark}--{last}\r\n".encode(),
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
    )
    async with serving() as served:
        reply = await served.send(*[whole[at : at + size] for at in range(0, len(whole), size)])
    assert reply.status == 200
    np.testing.assert_allclose(reply.json["embeddings"], [truth(image) for image in images], atol=1e-6)


async def test_what_follows_a_boundary_and_is_no_blank_is_refused() -> None:
    body = MARK + b" x\r\n" + part(drawn(1)) + b"\r\n" + MARK + b"--\r\n"
    async with serving() as served:
        for sent in (body, body.replace(b" x", b" " * 1000)):
            reply = await served.post("/embed", sent, f"multipart/form-data; boundary={BOUNDARY}")
            assert (reply.status, reply.code) == (400, "malformed_multipart")

"""A document cut into its images: wherever its chunks end, what comes out is what a parser of the whole would find."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsrv.server.wire.elements import AROUND, Elements
from clipsrv.server.wire.envelope import InvalidRequestError
from clipsrv.server.wire.pieces import Pieces

STRINGS = st.one_of(st.text(max_size=12), st.text('\\"/[]{},: aA\u00e9\U0001f600', max_size=30))
IMAGES = st.one_of(
    STRINGS, st.fixed_dictionaries({"image": STRINGS, "crop": st.lists(st.integers(-(10**6), 10**6), max_size=4)})
)


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(ends)]


def read(chunks: Sequence[bytes], limit: int = 100, most_bytes: int = 10_000) -> tuple[list[Pieces], str | None]:
    """The elements and the model; raises what reading raises, once all before it was yielded."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def run() -> tuple[list[Pieces], str | None]:
        elements = Elements(body(), limit, most_bytes, lambda held: None)  # type: ignore[arg-type]
        return [piece async for piece in elements.read()], elements.model

    return asyncio.run(run())


def values(found: Sequence[Pieces]) -> list[Any]:
    return [orjson.loads(piece.blob())["images"][0] for piece in found]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(IMAGES, min_size=1, max_size=5),
    st.sampled_from(["before", "after", "not"]),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_wherever_the_chunks_end_the_elements_are_those_of_the_document(
    images: list[Any], model: str, indent: int | str | None, ascii: bool, places: list[int]
) -> None:
    document: dict[str, Any] = {"images": images}
    if model != "not":
        document = {"model": "tiny", **document} if model == "before" else {**document, "model": "tiny"}
    body = json.dumps(document, indent=indent, ensure_ascii=ascii).encode("utf-8", "replace")
    for chunks in (cut(body, places), [bytes([byte]) for byte in body]):
        found, named = read(chunks)
        assert values(found) == json.loads(body)["images"]
        assert named == (None if model == "not" else "tiny")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_document_is_refused_unless_a_parser_would_take_it(data: st.DataObject) -> None:
    body = bytearray(json.dumps({"model": "tiny", "images": ["AAAA", {"image": 'a"\\', "crop": [1, 2]}, ""]}).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        del body[at:]
    else:
        body[at] = data.draw(st.sampled_from(b'"\\[]{},: a1\x00\xff'))
    try:
        found = values(read(cut(bytes(body), data.draw(st.lists(st.integers(0, 80)))))[0])
    except (InvalidRequestError, orjson.JSONDecodeError):
        return  # the second is what reading the element itself says
    assert found == orjson.loads(body)["images"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b" \n", "empty_body"),
        (b"[]", "invalid_json"),
        (b"{}", "missing_image"),
        (b'{"model": "tiny"}', "missing_image"),
        (b'{"images": []}', "empty_batch"),
        (b'{"images": "AAAA"}', "invalid_field"),
        (b'{"images": [null]}', "invalid_field"),
        (b'{"images": [1]}', "invalid_field"),
        (b'{"model": 1, "images": ["AAAA"]}', "invalid_field"),
        (b'{"images": ["AAAA"], "images": ["AAAA"]}', "duplicate_field"),
        (b'{"image": "AAAA"}', "unexpected_field"),
        (b'{"images": ["AAAA",]}', "invalid_json"),
        (b'{"images": [,"AAAA"]}', "invalid_json"),
        (b'{"images": ["AAAA" "AAAA"]}', "invalid_json"),
        (b'{"images": ["AAAA"]} more', "invalid_json"),
        (b'{"images": ["AAAA"],}', "invalid_json"),
        (b'{"images": ["AAAA"', "invalid_json"),
        (b'{"images": ["AAAA', "invalid_json"),
        (b'{"images" ["AAAA"]}', "invalid_json"),
        (b"{" + b" " * 70_000, "invalid_json"),
        (b'{"' + b"k" * 10_000 + b'": 1}', "invalid_json"),
        (b'{"images": [' + b"[" * 100, "body_too_large"),
        (b'{"images": ["' + b'\\"' * 100, "body_too_large"),
        (b'{"images": ["AAAA", "AAAA", "AAAA"]}', "too_many_images"),
    ],
)
def test_what_is_wrong_with_a_document_has_its_name(body: bytes, code: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        read(cut(body, range(0, len(body), 7)), limit=2)
    assert raised.value.code == code


def test_of_an_element_larger_than_allowed_no_more_is_kept_than_tells_it() -> None:
    held: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        yield b'{"images": ["'
        for _ in range(100):
            yield b"A" * 1000
        yield b'", "AAAA"]}'

    async def run() -> list[int]:
        elements = Elements(body(), 10, 5_000, held.append)  # type: ignore[arg-type]
        return [len(piece) - AROUND async for piece in elements.read()]

    assert asyncio.run(run()) == [5_001, len(b'"AAAA"')]
    assert max(held) <= 5_001 + AROUND

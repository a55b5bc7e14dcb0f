"""A JSON body is bounded before it is parsed, in bytes and in values, and real requests never notice."""

from __future__ import annotations

import base64
import gc
import json
import mmap
import random
import subprocess
import sys
from collections.abc import Callable
from traceback import walk_tb
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsrv.config import Config
from clipsrv.server.wire.bodies import BodyLimits, BodyReader
from clipsrv.server.wire.documents import DocumentLimits, DocumentReader, LongString, parse
from clipsrv.server.wire.envelope import BodyTooLargeError, InvalidBase64Error, InvalidFieldError, InvalidJsonError
from clipsrv.server.wire.inputs import image_of
from clipsrv.serving.admission import Admission
from clipsrv.serving.memory import JSON_BYTES
from clipsrv.serving.pool import FairPool
from clipsrv.settings import JSON_SIGNS_PER_ITEM, json_items, texts_of_a_request
from tests.support.serving import Reply, Served, assert_as_before, drawn, request, serving

DEFAULTS = Config()
LIMITS = DocumentLimits(DEFAULTS.max_json_bytes, json_items(DEFAULTS))
SIGNS = JSON_SIGNS_PER_ITEM * LIMITS.items
JSON = "application/json"
#: Texts of what might be mistaken: signs, escapes, ends of strings; some of them long.
characters = st.text(',:[{]}\\"/ab\u00e9\u732b\U0001f600\n\x01', max_size=9)
strings = characters | st.tuples(characters, st.integers(1, 90)).map(lambda drawn: (drawn[0] or "x") * drawn[1])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | strings,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(strings, inner, max_size=5),
    max_leaves=30,
)


def expanded(value: Any) -> Any:
    if isinstance(value, LongString):
        return value.text()
    if isinstance(value, dict):
        return {key: expanded(inner) for key, inner in value.items()}
    return list(map(expanded, value)) if isinstance(value, list) else value


@given(st.dictionaries(strings, values, max_size=5), st.booleans())
def test_a_document_without_its_long_strings_and_with_them_back_is_the_document(
    document: dict[str, Any], ascii_only: bool
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only, indent=1 if ascii_only else None).encode()
    mapped = mmap.mmap(-1, len(body))
    mapped[:] = body
    for whole in (body, mapped):
        assert expanded(parse(whole, LIMITS)) == document


def as_php(text: str) -> bytes:
    return json.dumps({"image": text}).replace("/", "\\/").encode()


def as_dotnet(text: str) -> bytes:
    return json.dumps({"image": text}).replace("+", "\\u002B").encode()


@pytest.mark.parametrize("write", [as_php, as_dotnet, lambda text: json.dumps({"image": text}).encode()])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("size", [1_000, 300_000, 1_000_001, 1_000_002])
def test_long_base64_is_decoded_in_pieces_as_other_languages_write_it(
    size: int, prefix: str, write: Callable[[str], bytes]
) -> None:
    image = random.Random(size).randbytes(size)
    for text in (base64.b64encode(image).decode(), base64.b64encode(image).decode().rstrip("=")):
        value = parse(write(prefix + text), LIMITS)["image"]
        assert isinstance(value, LongString)
        assert image_of(value) == image


@pytest.mark.parametrize("place", [0, 1, 2**18 - 1, 2**18, 699_998, 699_999])
@pytest.mark.parametrize("wrong", ["=", "!", " ", "\n", "é", "\\"])
def test_what_is_wrong_anywhere_in_long_base64_is_refused(wrong: str, place: int) -> None:
    text = "QUJD" * 175_000
    value = parse(json.dumps({"image": text[:place] + wrong + text[place + 1 :]}).encode(), LIMITS)["image"]
    if wrong == "=" and place == 699_999:
        assert image_of(value) == b"ABC" * 174_999 + b"AB"
        return
    with pytest.raises(InvalidBase64Error):
        image_of(value)


REFUSED = {
    "empty lists": b'{"images":[' + b"[]," * 3_300_000 + b"[]]}",
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}",
    "objects in objects": b'{"images":[' + b'{"a":{}},' * 100_000 + b"0]}",
    "numbers": b'{"images":[' + b"1," * 300_000 + b"1]}",
    "blanks": b'{"images":[' + b" " * 3_000_000 + b"]}",
    "a long number": b'{"images":' + b"9" * 3_000_000 + b"}",
    "quotes": b'{"image":"' + b'\\"' * 300_000 + b'"}',
    "a long key": b'{"' + b"a" * 3_000_000 + b'":0}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_far_more_than_its_bytes_is_refused_before_it_is_parsed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[object] = []
    monkeypatch.setattr(orjson, "loads", parsed.append)
    with pytest.raises(BodyTooLargeError):
        parse(REFUSED[name], LIMITS)
    assert not parsed


def test_a_hundred_megabytes_of_backslashes_are_one_string() -> None:
    body = b'{"image":"' + b"\\" * 100_000_000 + b'"}'
    assert len(parse(body, LIMITS)["image"]) == 100_000_000


def refuse(document: dict[str, Any]) -> list[Any]:
    if not document["image"]:
        raise InvalidFieldError("Nothing.")
    assert not gc.isenabled()
    return list(document["image"])


@pytest.mark.parametrize("collecting", [True, False])
async def test_a_large_document_is_never_looked_through_for_cycles(collecting: bool) -> None:
    reader = DocumentReader(BodyReader(BodyLimits(1, 1), Admission(1, "bytes")), LIMITS, FairPool(1, "parse"))
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        body = b'{"image":[' + b"[]," * 30_000 + b"[]]}"
        assert len(await reader.translated(body, refuse, None)) == 30_001
        assert gc.isenabled() is collecting
        with pytest.raises(InvalidFieldError) as caught:
            await reader.translated(b'{"image":[],"b":[' + b"[]," * 30_000 + b"[]]}", refuse, None)
        assert gc.isenabled() is collecting
        frames = [frame.f_locals for frame, _ in walk_tb(caught.tb)]
        assert not [value for found in frames for value in found.values() if isinstance(value, dict) and "b" in value]
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(
    "body",
    [b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 9_000, b'{"a": 1}x', b'{"a": "' + b"b" * 2_000_000, b"null", b"[1]"],
)
def test_what_is_no_json_object_is_refused_and_leaves_no_trace(body: bytes) -> None:
    with pytest.raises(InvalidJsonError) as caught:
        parse(body, LIMITS)
    assert caught.value.__context__ is None  # the parser's error holds the whole text


@pytest.mark.parametrize("inside", [b"\xff", b"\x01", b"\\x", b"\\ud800", b"\\u12"])
async def test_a_long_string_is_held_to_the_rules_of_json(inside: bytes) -> None:
    body = b'{"texts":["' + b"a" * 99_000 + inside + b'"]}'
    async with serving() as served:
        reply = await served.post("/embed/text", body, JSON)
        assert (reply.status, reply.code) == (400, "invalid_json")


#: What takes most memory of all that is let through, for each kind of cost.
DEAREST = {
    "base64": """b'{"images":["' + b"QUJD" * 4_000_000 + b'","' + b"QUJD" * 4_000_000 + b'"]}'""",
    "blanks": """b'{"texts":["a"]' + b" " * (beside - 40) + b'}'""",
    "objects": """b'{"texts":[' + b'{"a":{}},' * (signs // 4 - 3) + b"0]}" """,
    "keys": """b"{" + b",".join(b'"%d":0' % number for number in range(signs // 2 - 2)) + b"}" """,
    "lists": """b'{"texts":[' + b"[]," * (signs // 2 - 3) + b"0]}" """,
}
PROGRAM = """
import re
from clipsrv.config import Config
from clipsrv.server.wire.documents import DocumentLimits, parse
from clipsrv.server.wire.inputs import image_of
from clipsrv.settings import JSON_BYTES_PER_ITEM, JSON_SIGNS_PER_ITEM, json_items

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

limits = DocumentLimits(2**27, json_items(Config()))
beside, signs = JSON_BYTES_PER_ITEM * limits.items, JSON_SIGNS_PER_ITEM * limits.items
body = BODY
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forgets the peak of making the body
before = memory("VmRSS")
document = parse(body, limits)
images = [image_of(text) for text in document.get("images", ())]
print(memory("VmHWM") - before, sum(map(len, images)))
"""


@pytest.mark.parametrize("kind", DEAREST)
def test_parsing_takes_no_more_memory_than_the_bound_says(kind: str) -> None:
    program = PROGRAM.replace("BODY", DEAREST[kind])
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    peak, images = map(int, ran.stdout.split())
    assert peak < images + JSON_BYTES * json_items(DEFAULTS)


async def post(served: Served, path: str, document: object) -> Reply:
    body = json.dumps(document, ensure_ascii=False).encode()
    return await served.send(request("POST", path, body, f"Content-Type: {JSON}"), seconds=100)


async def test_64_photos_in_base64_are_no_more_than_a_request_may_hold() -> None:
    photo = base64.b64encode(drawn(1, size=(400, 300), form="BMP")).decode()
    assert len(photo) > 470_000
    async with serving() as served:
        reply = await post(served, "/embed/batch", {"images": [photo] * 64})
        assert (reply.status, reply.json["count"]) == (200, 64)


async def test_2048_texts_full_of_commas_are_accepted_at_default_settings() -> None:
    seed = random.Random(1)
    words = ["red", "blue", "猫", "été", "a [b]", "{c}", "10:30"]
    texts = [", ".join(seed.choices(words, k=40)) for _ in range(2048)]
    async with serving() as served:
        reply = await post(served, "/embed/text", {"texts": texts})
        assert (reply.status, reply.json["count"]) == (200, 2048)
        alone = await post(served, "/embed/text", {"text": texts[-1]})
        assert reply.json["embeddings"][-1] == pytest.approx(alone.json["embedding"], abs=1e-6)
        assert (await post(served, "/embed/text", {"texts": ["a"] * 2049})).code == "too_many_texts"


async def test_texts_are_counted_by_their_own_limit_and_by_what_the_slots_of_a_caller_hold() -> None:
    async with serving(max_images=2) as served:
        assert (await post(served, "/embed/text", {"texts": ["a"] * 3})).status == 200
    settings: dict[str, Any] = {"max_queue": 4, "max_queue_per_caller": 2, "max_images": 2}
    assert texts_of_a_request(Config(**settings)) == 32
    async with serving(**settings) as served:
        assert (await post(served, "/embed/text", {"texts": ["a"] * 32})).status == 200
        refused = await post(served, "/embed/text", {"texts": ["a"] * 33})
        assert (refused.status, refused.code) == (413, "too_many_texts")
        assert refused.json["error"]["details"] == {"limit": 32}


async def test_a_text_of_more_than_a_million_characters_is_refused() -> None:
    async with serving() as served:
        refused = await post(served, "/embed/text", {"texts": ["a", "a " * 500_001]})
        assert (refused.status, refused.code) == (400, "invalid_text")
        assert refused.json["error"]["details"] == {"limit": 1_000_000}
        assert (await post(served, "/embed/text", {"text": "a " * 500_000})).json["truncated"] is True


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_bytes_of_json_have_a_limit_that_its_refusal_names(chunked: bool) -> None:
    async with serving(max_json_bytes=10_000) as served:
        body = b'{"image": "' + b"a" * 10_000 + b'"}'
        headers = [f"Content-Type: {JSON}", "Expect: 100-continue"]
        if chunked:
            headers[1:] = ["Transfer-Encoding: chunked"]
            reply = await served.send(request("POST", "/embed", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), *headers))
        else:  # told before it is sent
            reply = await served.send(request("POST", "/embed", None, *headers, f"Content-Length: {len(body)}"))
        assert (reply.status, reply.code) == (413, "body_too_large")
        assert "--max-json-bytes" in reply.json["error"]["message"]
        assert reply.json["error"]["details"] == {"limit": 10_000}
        form = await served.post("/embed", drawn(1, size=(200, 200), form="BMP"))
        assert form.status == 200, "the limit is that of JSON alone"
        await assert_as_before(served)


async def test_what_texts_take_in_memory_is_held_against_the_bytes_in_flight() -> None:
    wide = "😀" + "a " * 20_000
    async with serving(max_bytes_in_flight=100_000, max_body_bytes=100_000) as served:
        reply = await post(served, "/embed/text", {"text": wide})
        assert (reply.status, reply.code) == (429, "overloaded")
        assert (await post(served, "/embed/text", {"text": wide[1:]})).status == 200
        assert served.bytes_held == 0

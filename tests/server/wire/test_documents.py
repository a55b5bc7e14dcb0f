"""A JSON body is bounded before it is parsed, in bytes and in values, and real requests never notice."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsrv.config import Config
from clipsrv.server.wire.documents import DocumentLimits, count_values, parse
from clipsrv.server.wire.envelope import BodyTooLargeError, InvalidJsonError
from clipsrv.serving.memory import JSON_COPIES, VALUE_BYTES
from clipsrv.settings import json_values, texts_of_a_request
from tests.support.serving import Reply, Served, assert_as_before, drawn, request, serving

DEFAULTS = Config()
JSON = "application/json"
values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(',:[{]}\\"a\u00e9', max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
    max_leaves=30,
)


def objects(value: Any) -> int:
    """Values and keys."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(objects, value.values()))
    return 1 + sum(map(objects, value)) if isinstance(value, list) else 1


@given(values)
def test_there_are_no_more_values_than_were_counted(value: Any) -> None:
    for body in (orjson.dumps(value), json.dumps(value, indent=1).encode()):
        assert objects(value) <= 1 + count_values(body)


def test_values_are_counted_across_pieces() -> None:
    assert count_values(b'{"a":[' + b"1," * 2**20 + b"1]}") == 3 + 2**20


QUARTER = DEFAULTS.max_json_bytes // 4
REFUSED = {
    "empty lists": b'{"images":[' + b"[]," * 3_300_000 + b"[]]}",
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}",
    "objects in objects": b'{"images":[' + b'{"a":{}},' * 100_000 + b"0]}",
    "numbers": b'{"images":[' + b"1," * 300_000 + b"1]}",
    "characters of four bytes": b'{"image":"' + "😀".encode() * (QUARTER // 4) + b'"}',
    "one of them among letters": b'{"image":"' + b"a" * QUARTER + "😀".encode() + b'"}',
    "one of them escaped": b'{"image":"' + b"a" * QUARTER + b'\\ud83d\\ude00"}',
    "an escape where pieces meet": b" " * (2**20 - 1) + b"\\u0041" + b" " * QUARTER,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_far_more_than_its_bytes_is_refused_before_it_is_parsed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[object] = []
    monkeypatch.setattr(orjson, "loads", parsed.append)
    with pytest.raises(BodyTooLargeError):
        parse(REFUSED[name], DocumentLimits(DEFAULTS.max_json_bytes, json_values(DEFAULTS)))
    assert not parsed


@pytest.mark.parametrize("body", [b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 100_000, b'{"a": 1}x', b"null", b"[1]"])
def test_what_is_no_json_object_is_refused_and_leaves_no_trace(body: bytes) -> None:
    with pytest.raises(InvalidJsonError) as caught:
        parse(body, DocumentLimits(10**6, 10**6))
    assert caught.value.__context__ is None  # the parser's error holds the whole text


#: What takes most memory of all that is let through, for each kind of cost.
DEAREST = {
    "base64": """b'{"images":["' + b"QUJD" * (most // 4 // 8) + b'","' + b"QUJD" * (most * 7 // 4 // 8 - 9) + b'"]}'""",
    "wide text": """b'{"texts":["' + b"a" * (most // 4 - 40) + "\N{GRINNING FACE}".encode() + b'"]}'""",
    "blanks": """b'{"texts":["a"]' + b" " * (most - 20) + b"}\"""",
    "objects": """b'{"texts":[' + b'{"a":{}},' * (signs // 4 - 2) + b"0]}\"""",
    "keys": """b"{" + b",".join(b'"%d":0' % number for number in range(signs // 2 - 2)) + b"}\"""",
    "lists": """b'{"texts":[' + b"[]," * (signs // 2 - 3) + b"0]}\"""",
}
PROGRAM = """
import re, sys
from clipsrv.config import Config
from clipsrv.server.wire.documents import DocumentLimits, parse
from clipsrv.server.wire.inputs import image_of
from clipsrv.settings import json_values

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

most, signs = Config().max_json_bytes, json_values(Config())
body = BODY
assert len(body) <= most, len(body)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forgets the peak of making the body
before = memory("VmRSS")
document = parse(body, DocumentLimits(most, signs))
images = [image_of(text) for text in document.get("images", ())]
print(memory("VmHWM") - before)
"""


@pytest.mark.parametrize("kind", DEAREST)
def test_parsing_takes_no_more_memory_than_the_bound_says(kind: str) -> None:
    program = PROGRAM.replace("BODY", DEAREST[kind])
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert int(ran.stdout) < JSON_COPIES * DEFAULTS.max_json_bytes + VALUE_BYTES * json_values(DEFAULTS)


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

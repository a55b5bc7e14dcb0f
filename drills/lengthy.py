"""Requests meant to take long of the event loop: large, deep, countless or wide; under the default limits or beyond."""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random

from clipsrv.config import Config
from clipsrv.settings import JSON_BYTES_PER_ITEM, JSON_SIGNS_PER_ITEM, json_items
from drills.inputs import IMAGE, JSON
from tests.support.photos import drawn
from tests.support.wire import BOUNDARY, form, part, request

_MOST = Config().max_json_bytes - 100
_SIGNS, _BESIDE = (each * json_items(Config()) - 100 for each in (JSON_SIGNS_PER_ITEM, JSON_BYTES_PER_ITEM))
_MULTIPART = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
_MARK = f"--{BOUNDARY}".encode()

#: Bodies of JSON by what is in them.
_IMAGE: dict[str, Callable[[], bytes]] = {
    "120 MB of blanks": lambda: b" " * 120_000_000,
    "as many blanks as may be": lambda: b'{"image":"QUJD"' + b" " * _BESIDE + b"}",
    "empty lists": lambda: b"[" + b"[]," * 3_300_000 + b"[]]",
    "as many lists as may be": lambda: b'{"image":[' + b"[]," * (_SIGNS // 2) + b"0]}",
    "as many objects as may be": lambda: b'{"image":[' + b'{"a":{}},' * (_SIGNS // 4) + b"0]}",
    "5 million keys": lambda: b"{" + b",".join(b'"%d":0' % number for number in range(5_000_000)) + b"}",
    "as many keys as may be": lambda: b"{" + b",".join(b'"%06d":0' % number for number in range(_SIGNS // 2)) + b"}",
    "lists in lists": lambda: b"[" * 5_000_000,
    "a number of digits": lambda: b'{"image":' + b"9" * _BESIDE + b"}",
    "a number with an exponent": lambda: b'{"image":1e-' + b"9" * _BESIDE + b"}",
    "as many quotes as may be": lambda: b'{"image":"' + b'\\"' * _SIGNS + b'"}',
    "backslashes": lambda: b'{"image":"' + b"\\" * (_MOST // 2 * 2) + b'"}',
    "line breaks escaped": lambda: b'{"image":"' + b"\\n" * (_MOST // 2) + b'"}',
    "letters escaped": lambda: b'{"image":"' + b"\\u00e9" * (_MOST // 6) + b'"}',
    "emoji": lambda: b'{"image":"' + "😀".encode() * (_MOST // 4) + b'"}',
    "letters and one emoji": lambda: b'{"image":"' + b"a" * _MOST + "😀".encode() + b'"}',
    "base64": lambda: b'{"image":"' + base64.b64encode(Random(1).randbytes(_MOST * 3 // 4)) + b'"}',
    "base64, wrong at its end": lambda: b'{"image":"' + b"QUJD" * (_MOST // 4) + b'!"}',
    "URL-safe base64": lambda: b'{"image":"' + b"-_-_" * (_MOST // 4) + b'"}',
}
_TEXTS: dict[str, Callable[[], bytes]] = {
    "1,500": lambda: b'{"texts":[' + b",".join(b'"a red dress %d"' % number for number in range(1500)) + b"]}",
    "of digits": lambda: b'{"texts":[' + b",".join([b'"%s"' % (b"7" * 9_999)] * 500) + b"]}",
    "one of digits": lambda: b'{"text":"' + b"1" * _MOST + b'"}',
    "of short words": lambda: b'{"texts":[' + b",".join([b'"%s"' % (b"ab " * 5_000)] * 1000) + b"]}",
    "one of blanks": lambda: b'{"text":"' + b" " * _MOST + b'"}',
    "of emoji": lambda: b'{"texts":[' + b",".join([b'"%s"' % ("😀" * 1_000).encode()] * 1000) + b"]}",
}


def _posted(path: str, make: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: request("POST", path, make(), JSON)


#: Requests as bytes on the wire, made when asked for: together they are a gigabyte.
LENGTHY: dict[str, Callable[[], bytes]] = {
    **{f"JSON: {kind}": _posted("/embed", make) for kind, make in _IMAGE.items()},
    **{f"texts: {kind}": _posted("/embed/text", make) for kind, make in _TEXTS.items()},
    "form: 63 parts of 2 MB": lambda: request(
        "POST", "/embed/batch", form(*[part(bytes(2_000_000), "images")] * 63), _MULTIPART
    ),
    "form: one part of 120 MB": lambda: request("POST", "/embed", form(part(bytes(120_000_000))), _MULTIPART),
    "form: what is almost a boundary": lambda: request(
        "POST", "/embed", form(part((b"\r\n" + _MARK[:-1]) * 12_000_000)), _MULTIPART
    ),
    "form: blanks after a boundary": lambda: request("POST", "/embed", _MARK + b" " * 10_000_000, _MULTIPART),
    "form: 10 million parts": lambda: request("POST", "/embed", (_MARK + b"\r\n") * 10_000_000, _MULTIPART),
    "image: 120 MB": lambda: request("POST", "/embed", bytes(120_000_000), IMAGE),
    "image: in chunks of a byte": lambda: request(
        "POST", "/embed", b"1\r\nx\r\n" * 300_000 + b"0\r\n\r\n", IMAGE, "Transfer-Encoding: chunked"
    ),
    "batch of 64 images": lambda: request(
        "POST", "/embed/batch", form(*[part(drawn(number), "images") for number in range(64)]), _MULTIPART
    ),
    "headers: 120 of Accept": lambda: request(
        "POST", "/embed", drawn(1), IMAGE, *["Accept: " + "a/b;q=0," * 1000] * 120
    ),
    "headers: a query of 8 kB": lambda: request("GET", "/health?" + "a&" * 4000, None),
    "500 requests at once": lambda: request("GET", "/openapi.json", None) * 500,
    "metrics": lambda: request("GET", "/metrics", None) * 20,
}

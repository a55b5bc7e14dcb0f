"""Forms as callers really send them, and as they should not: read or refused by name, whatever the packets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.serving import BOUNDARY, assert_as_before, drawn, form, part, request, serving, truth

GOOD = drawn(1)
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
JPEG = drawn(1, form="JPEG")


def named(head: str | bytes) -> bytes:
    return form(part(GOOD, head=head))


CODED = "\r\nContent-Transfer-Encoding: "
DISPOSITION = 'Content-Disposition: form-data; name="image"; filename='
NESTED = form(part(form(part(GOOD)), head=f'Content-Disposition: form-data; name="image"\r\nContent-Type: {MULTIPART}'))
REFUSED_FORMS = {
    "empty body": (MULTIPART, b"", 400, "empty_body"),
    "only the closing boundary": (MULTIPART, form(), 400, "missing_image"),
    "another field": (MULTIPART, form(part(GOOD, "caption")), 400, "unexpected_field"),
    "the field of the other endpoint": (MULTIPART, form(part(GOOD, "images")), 400, "unexpected_field"),
    "the field twice": (MULTIPART, form(part(GOOD), part(GOOD)), 400, "duplicate_field"),
    "an extra field": (MULTIPART, form(part(GOOD), part(b"x", "extra")), 400, "unexpected_field"),
    "no boundary": ("multipart/form-data", form(part(GOOD)), 400, "malformed_multipart"),
    "an empty boundary": ('multipart/form-data; boundary=""', form(part(GOOD)), 400, "malformed_multipart"),
    "a boundary too long": (f"multipart/form-data; boundary={'b' * 71}", form(part(GOOD)), 400, "malformed_multipart"),
    "another boundary": ("multipart/form-data; boundary=other", form(part(GOOD)), 400, "malformed_multipart"),
    "no closing boundary": (MULTIPART, form(part(GOOD), end=b""), 400, "malformed_multipart"),
    "half a part": (MULTIPART, form(part(GOOD))[:-60], 400, "malformed_multipart"),
    "a byte before the first boundary": (MULTIPART, b"\0" + form(part(GOOD)), 400, "malformed_multipart"),
    "a first boundary that is damaged": (
        MULTIPART,
        form(part(GOOD)).replace(b"--limit", b"-+limit", 1) + form(part(GOOD)),
        400,
        "malformed_multipart",
    ),
    "a long preamble": (MULTIPART, b"x" * 100_000 + form(part(GOOD)), 400, "malformed_multipart"),
    "a long epilogue": (MULTIPART, form(part(GOOD)) + b"x" * 2_000_000, 413, "body_too_large"),
    "10,000 parts": (MULTIPART, form(*[part(b"x" * 10, "other")] * 10_000), 413, "too_many_parts"),
    "200 headers of a part": (MULTIPART, named(DISPOSITION + "a" + "\r\nX: y" * 200), 400, "malformed_multipart"),
    "a header of 9 kB": (MULTIPART, named(DISPOSITION + "a" * 9000), 400, "malformed_multipart"),
    "a part in base64": (MULTIPART, named(DISPOSITION + "a" + CODED + "base64"), 400, "unsupported_part_encoding"),
    "a part in an unknown encoding": (
        MULTIPART,
        named(DISPOSITION + "a" + CODED + "rot13"),
        400,
        "unsupported_part_encoding",
    ),
    "a part in gzip": (MULTIPART, named(DISPOSITION + "a\r\nContent-Encoding: gzip"), 400, "unsupported_part_encoding"),
    "a part of negative length": (
        MULTIPART,
        named(DISPOSITION + "a\r\nContent-Length: -1"),
        400,
        "malformed_multipart",
    ),
    "a part of another length": (
        MULTIPART,
        named(DISPOSITION + "a\r\nContent-Length: 99999"),
        400,
        "malformed_multipart",
    ),
    "a part without name": (MULTIPART, named("Content-Disposition: form-data"), 400, "malformed_multipart"),
    "a part without disposition": (MULTIPART, named("Content-Type: image/png"), 400, "malformed_multipart"),
    "a newline in the file name": (MULTIPART, named(DISPOSITION + '"a\nb"'), 400, "malformed_multipart"),
    "a NUL in the file name": (MULTIPART, named(DISPOSITION + '"a\x00b"'), 400, "malformed_multipart"),
    "an escape in the file name": (MULTIPART, named(DISPOSITION + '"a\x1bb"'), 400, "malformed_multipart"),
    "the _charset_ field": (MULTIPART, form(part(b"bogus", "_charset_"), part(GOOD)), 400, "unexpected_field"),
    "a name that is not UTF-8": (
        MULTIPART,
        named(b'Content-Disposition: form-data; name="im\xff"'),
        400,
        "unexpected_field",
    ),
    "nested forms": (MULTIPART, NESTED, 422, "not_an_image"),
    "text": ("text/plain", b"hello", 415, "unsupported_media_type"),
    "a form of another kind": ("application/x-www-form-urlencoded", b"image=x", 415, "unsupported_media_type"),
    "a zero-byte part": (MULTIPART, form(part(b"")), 422, "empty_image"),
    "a zero-byte body": ("image/png", b"", 422, "empty_image"),
}


@pytest.mark.parametrize("name", REFUSED_FORMS)
async def test_a_body_that_is_no_form_of_one_image_is_refused_by_name(name: str) -> None:
    kind, body, status, code = REFUSED_FORMS[name]
    async with serving() as served:
        reply = await served.post("/embed", body, kind)
        assert (reply.status, reply.code) == (status, code), reply
        await assert_as_before(served)


FILE_NAMES: dict[str, str | bytes | None] = {
    "path up": '"../../etc/passwd"',
    "absolute path": '"/etc/passwd"',
    "Windows path": '"..\\..\\x"',
    "encoded line break": "x; filename*=utf-8''a%0d%0aINJ%2f..%2f..%2fetc",
    "other scripts": '"猫😀\u202e.png"',
    "long": '"' + "a" * 300 + '"',
    "none": None,
    "empty": '""',
    "Shift_JIS, as curl sends it on Windows": '"写真.png"'.encode("cp932"),
    "Shift_JIS that ends in a backslash": '"一覧表"'.encode("cp932"),
    "GBK": '"图片.png"'.encode("gbk"),
    "Big5": '"功蓋許.png"'.encode("big5"),
    "EUC-KR": '"사진.png"'.encode("euc-kr"),
    "code page 1252": '"Größe €.png"'.encode("cp1252"),
    "bytes of no encoding": b'"\xff\xfe\x80"',
    "as RFC 5987 says": "a; filename*=iso-8859-1''%e4.png",
}


@pytest.mark.parametrize("name", FILE_NAMES)
async def test_a_file_name_changes_nothing_and_is_not_repeated(name: str) -> None:
    value = FILE_NAMES[name]
    head = b'Content-Disposition: form-data; name="image"'
    if value is not None:
        head += b"; filename=" + (value if isinstance(value, bytes) else value.encode())
    async with serving() as served:
        reply = await served.post("/embed", named(head), MULTIPART)
    assert reply.status == 200
    np.testing.assert_allclose(reply.json["embedding"], truth(GOOD), atol=1e-6)
    assert b"passwd" not in reply.body
    assert b"INJ" not in reply.body


@pytest.mark.parametrize("declared", ["image/png", "text/html", "application/octet-stream"])
async def test_the_format_is_taken_from_the_bytes_whatever_a_part_declares(declared: str) -> None:
    async with serving() as served:
        body = form(part(JPEG, head=DISPOSITION + f'"a"\r\nContent-Type: {declared}'))
        reply = await served.post("/embed", body, MULTIPART)
    assert reply.status == 200
    np.testing.assert_allclose(reply.json["embedding"], truth(JPEG), atol=1e-6)


@pytest.mark.parametrize("pause", [b"", b"\r\n", b"\r\nshort epilogue"])
async def test_what_little_follows_the_form_is_ignored_however_it_is_cut_into_packets(pause: bytes) -> None:
    whole = request("POST", "/embed", form(part(GOOD)) + pause, f"Content-Type: {MULTIPART}")
    async with serving() as served:
        for cut in (len(whole) - len(pause), len(whole) - 1, 300):
            assert (await served.send(whole[:cut], whole[cut:])).status == 200


async def test_the_form_read_byte_by_byte_gives_the_same_vector() -> None:
    whole = request("POST", "/embed", form(part(GOOD)), f"Content-Type: {MULTIPART}")
    async with serving() as served:
        reply = await served.send(*[whole[at : at + 1] for at in range(len(whole))])
    np.testing.assert_allclose(reply.json["embedding"], truth(GOOD), atol=1e-6)


async def test_a_missing_content_type_is_415_and_says_what_is_accepted() -> None:
    async with serving() as served:
        reply = await served.send(request("POST", "/embed", GOOD))
        assert (reply.status, reply.code) == (415, "unsupported_media_type")
        assert "multipart/form-data" in reply.headers["accept-post"]

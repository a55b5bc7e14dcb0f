"""What else a body may be, and how much of it: JSON, base64, the image itself; and what is asked of no endpoint."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.index import write_index
from tests.support.model import make_model
from tests.support.serving import assert_as_before, drawn, part, request, serving, truth

GOOD = drawn(1)


async def test_more_images_than_allowed_are_refused_before_any_is_computed() -> None:
    async with serving(max_images=3) as served:
        reply = await served.form(*[part(GOOD, "images")] * 4, path="/embed/batch")
        assert (reply.status, reply.code, reply.json["error"]["details"]) == (413, "too_many_images", {"limit": 3})
        assert "--max-images" in reply.json["error"]["message"]
        document = json.dumps({"images": [base64.b64encode(GOOD).decode()] * 4}).encode()
        assert (await served.post("/embed/batch", document, "application/json")).code == "too_many_images"
        await assert_as_before(served)


async def test_a_batch_of_none_is_refused() -> None:
    async with serving() as served:
        reply = await served.form(path="/embed/batch")
        assert (reply.status, reply.code) == (400, "missing_image")
        reply = await served.post("/embed/batch", b'{"images": []}', "application/json")
        assert (reply.status, reply.code) == (400, "empty_batch")


async def test_one_bad_image_of_32_fails_its_request_by_index_or_leaves_null_and_hurts_nobody_else() -> None:
    parts = [part(drawn(seed), "images") for seed in range(32)]
    parts[13] = part(b"not an image", "images")
    async with serving() as served:
        failed = await served.form(*parts, path="/embed/batch")
        holed = await served.form(*parts, path="/embed/batch?on_error=null")
        await assert_as_before(served)
    assert failed.status == 422
    assert [one["index"] for one in failed.json["error"]["details"]["images"]] == [13]
    assert holed.status == 200
    assert [row is None for row in holed.json["embeddings"]] == [index == 13 for index in range(32)]
    np.testing.assert_allclose(holed.json["embeddings"][31], truth(drawn(31)), atol=1e-6)


@pytest.mark.parametrize("query", ["normalise=1", "encoding=hex", "encoding=json&x=%0d%0a", "on_error=null"])
async def test_an_unknown_option_is_refused_so_that_a_typo_cannot_change_a_vector(query: str) -> None:
    async with serving() as served:
        reply = await served.post(f"/embed?{query}", GOOD)
        assert (reply.status, reply.code) == (400, "unknown_option")


BAD_JSON = {
    "empty": (b"", "empty_body"),
    "open": (b"{", "invalid_json"),
    "UTF-16": ('{"image": ""}'.encode("utf-16"), "invalid_json"),
    "bad UTF-8": (b'{"image": "\xff"}', "invalid_json"),
    "a huge number": (b'{"image": ' + b"9" * 5000 + b"}", "invalid_json"),
    "100,000 deep": (b"[" * 100_000, "invalid_json"),
    "NaN": (b'{"image": NaN}', "invalid_json"),
    "a list": (b"[]", "invalid_json"),
    "a number": (b'{"image": 5}', "invalid_field"),
    "null": (b'{"image": null}', "invalid_field"),
    "a list of images": (b'{"image": ["", ""]}', "invalid_field"),
    "another key": (b'{"img": ""}', "missing_image"),
    "an extra key": (b'{"image": "", "path": "/etc/passwd"}', "unexpected_field"),
    "a URL field": (b'{"url": "http://127.0.0.1/"}', "missing_image"),
    "a URL as image": (b'{"image": "http://127.0.0.1/"}', "remote_url_disabled"),
    "a file URL": (b'{"image": "file:///etc/passwd"}', "remote_url_disabled"),
    "a URL in capitals": (b'{"image": " HTTPS://example.org/a.png"}', "remote_url_disabled"),
    "a bucket": (b'{"image": "s3://bucket/key"}', "remote_url_disabled"),
    "a path": (b'{"image": "/etc/passwd.png"}', "invalid_base64"),
    "punctuation": (b'{"image": "!!!!"}', "invalid_base64"),
    "blanks": (b'{"image": "aaaa aaaa"}', "invalid_base64"),
    "a line break": (b'{"image": "aaaa\\naaaa"}', "invalid_base64"),
    "padding alone": (b'{"image": "===="}', "invalid_base64"),
    "a data URI without base64": (b'{"image": "data:image/png,abc"}', "invalid_base64"),
}


@pytest.mark.parametrize("name", BAD_JSON)
async def test_json_that_is_not_as_documented_is_400(name: str) -> None:
    body, code = BAD_JSON[name]
    async with serving() as served:
        reply = await served.post("/embed", body, "application/json; charset=zlib")
        assert (reply.status, reply.code) == (400, code)
        await assert_as_before(served)


@pytest.mark.parametrize("form_of", ["standard", "unpadded", "URL-safe", "data URI"])
async def test_base64_is_accepted_in_every_usual_spelling(form_of: str) -> None:
    standard = base64.b64encode(GOOD).decode()
    text = {
        "standard": standard,
        "unpadded": standard.rstrip("="),
        "URL-safe": base64.urlsafe_b64encode(GOOD).decode(),
        "data URI": "data:image/png;base64," + standard,
    }[form_of]
    async with serving() as served:
        reply = await served.post("/embed", json.dumps({"image": text}).encode(), "application/json")
    np.testing.assert_allclose(reply.json["embedding"], truth(GOOD), atol=1e-6)


async def test_the_image_itself_may_be_the_body() -> None:
    async with serving() as served:
        for kind in ("image/png", "image/jpeg", "application/octet-stream"):
            reply = await served.post("/embed", GOOD, kind)
            assert reply.status == 200
            np.testing.assert_allclose(reply.json["embedding"], truth(GOOD), atol=1e-6)


@pytest.mark.parametrize("form_of", ["PNG", "BMP", "TIFF"])
async def test_a_large_image_has_its_vector_in_whatever_form_it_comes(form_of: str) -> None:
    blob = drawn(3, size=(2200, 1800), form=form_of, mode="RGB")
    large = blob if len(blob) > 2**22 else blob + bytes(2**23)  # what follows a PNG's end is not looked at
    encoded = json.dumps({"image": base64.b64encode(large).decode()}).encode()
    async with serving() as served:
        for reply in (
            await served.post("/embed", large),
            await served.form(part(large)),
            await served.send(request("POST", "/embed", encoded, "Content-Type: application/json"), seconds=60),
        ):
            assert reply.status == 200
            np.testing.assert_allclose(reply.json["embedding"], truth(large), atol=1e-6)
        await assert_as_before(served)


@pytest.mark.parametrize("path", ["/embed", "/embed/batch", "/embed/text", "/classify", "/search", "/v1/embeddings"])
async def test_json_without_its_header_is_told_of_the_header(path: str, tmp_path: Path) -> None:
    index = write_index(tmp_path / "x.npy", make_model(), {"a.png": GOOD})
    async with serving(index=str(index)) as served:
        body = json.dumps({"text": "red heart"}).encode()  # as curl -d sends it
        reply = await served.post(path, body, "application/x-www-form-urlencoded")
        assert (reply.status, reply.json["error"]["message"].partition(": ")[0]) == (
            415,
            "Content-Type 'application/x-www-form-urlencoded' is not accepted here",
        )
        assert 'JSON with -H "Content-Type: application/json"' in reply.json["error"]["message"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_another_method_is_405_with_allow(method: str) -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(request(method, "/embed", None, "Connection: close"))
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: POST\r\n" in answer
    assert method == "HEAD" or b'"method_not_allowed"' in answer


@pytest.mark.parametrize("path", ["/embed/", "//embed", "/EMBED", "/%2e%2e/embed", "/embed%00", "/a" * 2000])
async def test_another_path_is_404_in_json_and_one_series(path: str) -> None:
    async with serving() as served:
        reply = await served.get(path)
        assert (reply.status, reply.code) == (404, "not_found")
        assert (
            'clipsrv_requests_total{route="unmatched",status="404"} 1.0' in (await served.get("/metrics")).body.decode()
        )

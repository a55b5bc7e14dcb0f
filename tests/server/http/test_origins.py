"""Foreign names, pages of other sites and proxies' headers: what a browser may be made to ask, and what it may not."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from clipsrv.config import Config
from clipsrv.server.http.security import (
    is_loopback,
)
from tests.support.serving import (
    assert_as_before,
    drawn,
    request,
    serving,
)

GOOD = drawn(1)
KEY, OTHER = "correct-horse-battery-staple", "another-key-of-some-length"
IMAGE = "Content-Type: image/png"


def test_the_default_is_loopback_and_loopback_is_known() -> None:
    assert is_loopback(Config().host)
    assert [host for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]") if not is_loopback(host)] == []
    assert [host for host in ("0.0.0.0", "::", "10.0.0.1", "example.org") if is_loopback(host)] == []


HOSTS = {
    "localhost": 200,
    "localhost:5000": 200,
    "LOCALHOST": 200,
    "127.0.0.1:80": 200,
    "[::1]:5000": 200,
    "evil.example": 403,
    "localhost.evil.example": 403,
    "127.0.0.1.nip.io": 403,
    "[::2]": 403,
    "": 403,
}


@pytest.mark.parametrize("host", HOSTS)
async def test_on_loopback_only_its_own_names_are_served(host: str) -> None:
    async with serving() as served:
        reply = await served.get("/models", f"Host: {host}")
        assert reply.status == HOSTS[host]
        assert reply.status == 200 or reply.code == "host_forbidden"


async def test_other_names_pass_when_listed_and_all_when_the_server_is_public() -> None:
    async with serving(allowed_hosts="clip.example, [2001:db8::1]") as served:
        assert (await served.get("/models", "Host: clip.example:8080")).status == 200
        assert (await served.get("/models", "Host: [2001:db8::1]:8080")).status == 200
        assert (await served.get("/models", "Host: other.example")).status == 403
    public: list[dict[str, Any]] = [{"host": "0.0.0.0"}, {"allowed_hosts": "*"}]
    for settings in public:
        async with serving(**settings) as served:
            assert (await served.get("/models", "Host: any.example")).status == 200


PAGES = {
    "a form on another site": ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site"),
    "a page from disk": ("Origin: null",),
    "an origin alone": ("Origin: http://localhost:9999",),
    "a site of the same owner": ("Sec-Fetch-Site: same-site",),
    "a browser that hides its origin": ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"),
    "nonsense": ("Origin: http://[",),
}


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_elsewhere_may_not_post_to_localhost_and_its_upload_is_not_read(name: str) -> None:
    async with serving() as served:
        head = request("POST", "/embed", None, IMAGE, "Content-Length: 5000000", *PAGES[name])
        reply = await served.send(head)
        assert (reply.status, reply.code) == (403, "origin_forbidden")
        assert not [header for header in reply.headers if header.startswith("access-control")]
        await assert_as_before(served)


async def test_a_page_of_the_server_itself_and_a_program_may_post() -> None:
    async with serving() as served:
        for headers in (("Origin: http://localhost",), ("Sec-Fetch-Site: same-origin",), ("Sec-Fetch-Mode: cors",), ()):
            assert (await served.post("/embed", GOOD, "image/png", *headers)).status == 200


async def test_cors_is_off_unless_an_origin_is_listed() -> None:
    preflight = ("Origin: https://shop.example", "Access-Control-Request-Method: POST")
    async with serving() as served:
        assert "vary" not in (await served.get("/health")).headers
        assert (await served.send(request("OPTIONS", "/embed", None, *preflight))).status == 403
    async with serving(allowed_origins="https://shop.example/", api_keys=KEY) as served:
        reply = await served.send(request("OPTIONS", "/embed", None, *preflight))
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == "https://shop.example"
        assert reply.headers["access-control-allow-methods"] == "GET, POST"
        assert "X-API-Key" in reply.headers["access-control-allow-headers"]
        assert reply.headers["access-control-max-age"] == "600"
        assert "access-control-allow-credentials" not in reply.headers
        asked = (f"X-API-Key: {KEY}", "Origin: https://shop.example", "Sec-Fetch-Site: cross-site")
        reply = await served.post("/embed", GOOD, "image/png", *asked)
        assert reply.status == 200
        assert reply.headers["vary"] == "Origin"
        assert reply.headers["access-control-allow-origin"] == "https://shop.example"
        assert "X-Embedding-Id" in reply.headers["access-control-expose-headers"]
        assert "access-control-allow-methods" not in reply.headers
        reply = await served.post("/embed", GOOD, "image/png", f"X-API-Key: {KEY}", "Origin: https://evil.example")
        assert reply.status == 403


async def test_forwarded_headers_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as served:
        assert (await served.get("/health", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6")).status == 200
    assert "6.6.6.6" not in caplog.text

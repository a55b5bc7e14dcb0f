"""Callers without a key, pages of other sites, foreign names, and what a caller would like to see in our log."""

from __future__ import annotations

import base64
import json
import logging
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import TiffImagePlugin
from PIL.ExifTags import Base

from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.server.http.security import (
    WrongKeys,
    is_loopback,
    read_keys,
)
from clipsrv.server.lifecycle import warnings
from clipsrv.server.logs import JsonFormatter, TextFormatter, set_up
from clipsrv.server.wire.envelope import TooManyFailuresError
from tests.support.photos import encode, opened
from tests.support.serving import (
    BOUNDARY,
    Reply,
    assert_as_before,
    drawn,
    eventually,
    form,
    part,
    read_reply,
    request,
    serving,
)

GOOD = drawn(1)
KEY, OTHER = "correct-horse-battery-staple", "another-key-of-some-length"
IMAGE = "Content-Type: image/png"

WRONG = {
    "none": (),
    "wrong": ("Authorization: Bearer wrong",),
    "empty": ("Authorization: Bearer ",),
    "a beginning": (f"Authorization: Bearer {KEY[:-1]}",),
    "one letter more": (f"Authorization: Bearer {KEY}x",),
    "another scheme": (f"Authorization: Basic {KEY}",),
    "not ASCII": ("Authorization: Bearer schlüssel",),
    "not UTF-8": ("Authorization: Bearer \udcff\udcfe",),
    "twice": (f"Authorization: Bearer {KEY}", f"Authorization: Bearer {KEY}"),
    "in both headers": (f"Authorization: Bearer {KEY}", f"X-API-Key: {KEY}"),
    "the list itself": (f"Authorization: Bearer {KEY},{OTHER}",),
}


@pytest.mark.parametrize("name", WRONG)
async def test_without_one_fitting_key_everything_but_health_is_401_with_one_body(name: str) -> None:
    async with serving(api_keys=f"{KEY},{OTHER}", auth_failures=0) as served:
        for path in ("/models", "/metrics", "/openapi.json", "/nowhere", f"/models?api_key={KEY}"):
            reply = await served.get(path, *WRONG[name])
            assert (reply.status, reply.code) == (401, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
        reply = await served.post("/embed", GOOD, "image/png", *WRONG[name])
        assert reply.json["error"] == {
            "code": "unauthorized",
            "message": "Send a valid API key: Authorization: Bearer KEY, or X-API-Key: KEY.",
            "details": {},
        }
        assert (await served.get("/health", *WRONG[name])).status == 200
        assert (await served.get("/health/live", *WRONG[name])).status == 200


@pytest.mark.parametrize(
    "header", [f"Authorization: Bearer {KEY}", f"authorization: bearer {OTHER}", f"X-API-Key: {KEY}"]
)
async def test_each_of_several_keys_opens_in_either_header(header: str) -> None:
    async with serving(api_keys=f"{KEY}, {OTHER}") as served:
        assert (await served.post("/embed", GOOD, "image/png", header)).status == 200


def test_keys_are_read_from_a_file_and_a_list_and_never_empty(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the shop\n{KEY}\n\n  {OTHER}  \n")
    assert read_keys("first", str(file)) == ("first", KEY, OTHER)
    assert read_keys("", "") == ()
    for listed, content in (("a,,b", None), (" , ", None), ("", "# none\n"), ("", "")):
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigError):
            read_keys(listed, str(file) if content is not None else "")
    with pytest.raises(ConfigError, match="No such file"):
        read_keys("", str(tmp_path / "absent"))


def test_a_key_file_that_windows_wrote_holds_the_same_keys_or_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(f"{KEY}\r\n{OTHER}\r\n".encode("utf-8-sig"))
    assert read_keys("", str(file)) == (KEY, OTHER)
    for encoding, reason in (("utf-16", "not text in UTF-8"), ("utf-16-le", "no header can carry")):
        file.write_bytes(KEY.encode(encoding))
        with pytest.raises(ConfigError, match=reason):
            read_keys("", str(file))


async def test_ten_wrong_keys_in_a_second_make_an_address_wait_and_a_second_later_it_may_ask_again() -> None:
    wrong = request("GET", "/models", None, "X-API-Key: wrong")
    async with serving(api_keys=KEY) as served:
        reader, writer = await served.connect()
        writer.write(wrong * 200)  # pipelined: no machine is so slow that these take twenty seconds
        replies = [await read_reply(reader) for _ in range(200)]
        writer.close()
        assert [reply.status for reply in replies[:10]] == [401] * 10
        assert {(reply.status, reply.code) for reply in replies} == {(401, "unauthorized"), (429, "too_many_failures")}
        assert {reply.headers["retry-after"] for reply in replies if reply.status == 429} == {"1"}

        async def heard_again() -> bool:
            return (await served.send(wrong)).status == 401

        await eventually(heard_again)


def test_the_table_of_failures_is_bounded_and_forgets() -> None:
    now = [0.0]
    wrong = WrongKeys(3, clock=lambda: now[0])
    for _ in range(3):
        wrong.check("1.2.3.4")
        wrong.count("1.2.3.4")
    with pytest.raises(TooManyFailuresError) as caught:
        wrong.check("1.2.3.4")
    assert caught.value.retry_after == 1
    wrong.check("5.6.7.8")
    now[0] = 1.1
    wrong.check("1.2.3.4")
    for number in range(10_000):
        wrong.count(str(number))
    assert len(wrong) == 4096


def test_without_a_limit_nobody_waits() -> None:
    wrong = WrongKeys(0)
    for _ in range(100):
        wrong.check("1.2.3.4")
        wrong.count("1.2.3.4")


async def test_a_key_is_in_no_log_line_answer_or_metric_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = StringIO()
    async with serving(api_keys=KEY) as served:
        for header in (f"Authorization: Bearer {KEY}", f"X-API-Key: {KEY}x"):
            for path in ("/models", "/metrics", "/openapi.json", "/health", "/nope"):
                reply = await served.get(path, header)
                seen.write(repr(reply))
            seen.write(repr(await served.post("/embed", GOOD, "image/png", header)))
        seen.write(repr(await served.send(f"GET / HTTP/1.1\r\nAuthorization {KEY}\r\n\r\n".encode())))
    text = seen.getvalue() + caplog.text + repr(Config(api_keys=KEY))
    for record in caplog.records:
        text += TextFormatter().format(record) + JsonFormatter().format(record)
    assert KEY not in text


def test_careless_settings_are_warned_about_without_showing_a_key() -> None:
    assert not [text for text in warnings(Config(), []) if "key" in text]
    (open_to_all,) = [text for text in warnings(Config(host="0.0.0.0"), []) if "key" in text]
    assert "0.0.0.0" in open_to_all
    (short,) = [text for text in warnings(Config(host="0.0.0.0"), [8]) if "key" in text]
    assert "shorter" in short
    assert not [text for text in warnings(Config(host="0.0.0.0"), [32]) if "key" in text]
    assert [text for text in warnings(Config(max_connections=10_000_000), []) if "ulimit" in text]


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
        assert "access-control-allow-credentials" not in reply.headers
        asked = (f"X-API-Key: {KEY}", "Origin: https://shop.example", "Sec-Fetch-Site: cross-site")
        reply = await served.post("/embed", GOOD, "image/png", *asked)
        assert reply.status == 200
        assert reply.headers["vary"] == "Origin"
        assert reply.headers["access-control-allow-origin"] == "https://shop.example"
        reply = await served.post("/embed", GOOD, "image/png", f"X-API-Key: {KEY}", "Origin: https://evil.example")
        assert reply.status == 403


@pytest.mark.parametrize("sent", ["abc-123_XYZ", "a" * 64])
async def test_a_sane_request_id_is_kept(sent: str) -> None:
    async with serving() as served:
        assert (await served.get("/health", f"X-Request-Id: {sent}")).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "a" * 65, "a b", "id;drop", "é", "%0d%0a", '"'])
async def test_another_request_id_is_replaced(sent: str) -> None:
    async with serving() as served:
        assert len((await served.get("/health", f"X-Request-Id: {sent}")).headers["x-request-id"]) == 32


async def test_forwarded_headers_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as served:
        assert (await served.get("/health", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6")).status == 200
    assert "6.6.6.6" not in caplog.text


INJECTIONS = ["\x1b[2J", "\x85", "\u2028", '"}\n{"level":"error"', "%0d%0aINJECTED", "\udcff", "'; drop --", "\x07" * 9]


async def test_one_request_is_one_log_line_whatever_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clipsrv.access")
    count = 0
    async with serving() as served:
        for text in INJECTIONS:
            clean = "".join(char for char in text if char not in "\r\n\x00")
            quoted = "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogateescape"))
            name = f"Content-Disposition: form-data; name=\"image\"; filename*=utf-8''{quoted}"
            await served.post("/embed", form(part(GOOD, head=name)), f"multipart/form-data; boundary={BOUNDARY}")
            await served.get(f"/{quoted}")
            await served.get("/health", f"User-Agent: {clean}", f"X-Request-Id: {quoted}")
            count += 2 + ("\x1b" not in clean and "\x07" not in clean)
    records = [record for record in caplog.records if record.name == "clipsrv.access"]
    assert len(records) == count
    for record in records:
        assert len(TextFormatter().format(record).splitlines()) == 1
        line = JsonFormatter().format(record)
        assert len(line.splitlines()) == 1
        assert json.loads(line)["route"] in {"/embed", "/health", "unmatched"}
        assert "INJECTED" not in line


@pytest.mark.usefixtures("logging_restored")
async def test_no_file_name_image_or_vector_is_logged() -> None:
    name = 'Content-Disposition: form-data; name="image"; filename="/home/ann/on-the-beach.tif"'
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[Base.ImageDescription] = "Ann on the beach"
    blob = encode(opened().resize((40, 30)), "TIFF", tiffinfo=tags)
    packed = base64.b64encode(blob).decode()
    stream = StringIO()
    pump = set_up("debug", "json", stream)
    async with serving() as served:
        reply = await served.form(part(blob, head=name))
        assert reply.status == 200
        assert (await served.form(part(blob[:-60], head=name))).status == 422
        text = json.dumps({"text": "ann on the beach"}).encode()
        assert (await served.post("/embed/text", text, "application/json")).status == 200
        assert (await served.post("/embed", json.dumps({"image": packed}).encode(), "application/json")).status == 200
    pump.close()
    logged = stream.getvalue()
    assert '"route":"/embed"' in logged
    for secret in ("beach", packed[:20], *(str(value)[:8] for value in reply.json["embedding"])):
        assert secret not in logged


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("text", INJECTIONS)
def test_a_message_with_hostile_text_is_still_one_printable_line(formatter: logging.Formatter, text: str) -> None:
    record = logging.makeLogRecord({"msg": "seen %s", "args": (text,), "levelname": "INFO", "fields": {"route": text}})
    line = formatter.format(record)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    line.encode("utf-8")


async def test_no_answer_tells_of_paths_versions_addresses_or_code() -> None:
    async with serving() as served:
        replies: list[Reply] = [
            await served.get("/nowhere"),
            await served.send(b"\xff\xfe\r\n\r\n"),
            await served.post("/embed", b"\x89PNG\r\n\x1a\n" + b"x" * 90),
            await served.post("/embed", b"<svg/>"),
            await served.post("/embed", GOOD[:50]),
            await served.post("/embed", b"{", "application/json"),
            await served.form(part(GOOD, "x\x7f")),
            await served.get("/models"),
            await served.get("/health"),
        ]
    for reply in replies:
        text = (reply.body.decode() + repr(reply.headers)).lower()
        for secret in ("traceback", "/usr", "site-packages", "0x", ".py", "aiohttp", "python", "pillow", "onnxruntime"):
            assert secret not in text, (secret, reply)


async def test_random_requests_add_no_series_to_the_metrics() -> None:
    async with serving() as served:

        async def series() -> int:
            lines = (await served.get("/metrics")).body.decode().splitlines()
            return len([line for line in lines if not line.startswith("#")])

        for path in ("/x", "/health", "/metrics"):
            await served.get(path)
        await served.send(request("PUT", "/embed", b""))
        before = await series()
        for number in range(100):
            await served.get(f"/{number}/{'a' * number}")
            await served.send(request(f"PUT{number}", f"/{number}", b"", "Content-Length: 0"))
        # Methods that are none are one more refusal: a status and a code, and their times.
        assert await series() - before <= 4

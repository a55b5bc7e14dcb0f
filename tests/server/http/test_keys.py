"""Callers without a key, with a wrong one, and with many: refused alike, and nothing of a key is ever shown."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

import pytest

from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.server.http.security import Guard, WrongKeys, make_rules, read_keys
from clipsrv.server.lifecycle import warnings
from clipsrv.server.logs import JsonFormatter, TextFormatter
from clipsrv.server.wire.envelope import TooManyFailuresError
from tests.support.serving import (
    drawn,
    eventually,
    read_reply,
    request,
    serving,
)

GOOD = drawn(1)
KEY, OTHER = "correct-horse-battery-staple", "another-key-of-some-length"
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


async def test_only_a_preflight_needs_no_key() -> None:
    asked = "Access-Control-Request-Method: POST"
    async with serving(api_keys=KEY, auth_failures=0) as served:
        assert (await served.send(request("OPTIONS", "/embed", None))).status == 401
        assert (await served.send(request("POST", "/embed", GOOD, "Content-Type: image/png", asked))).status == 401
        assert (await served.get("/models", asked)).status == 401
        assert (await served.send(request("OPTIONS", "/embed", None, asked))).status != 401


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
    guard = Guard(make_rules("127.0.0.1", "", "", keys=read_keys("first", str(file))))
    assert guard.key_lengths == [len("first"), len(KEY), len(OTHER)], "what the warning of short keys goes by"
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
    assert [text for text in warnings(Config(), [], wanted=10_000_000) if "ulimit" in text]

"""Whose a request is behind proxies: the first address from the right that is none of theirs, whatever is claimed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from clipsrv.errors import ConfigError
from clipsrv.server.http.proxies import Proxies
from tests.support.faulty import HangingEncoder
from tests.support.serving import drawn, eventually, make_model, serving

TRUSTED = "10.0.0.0/8, 192.168.1.1, fd00::/8"
CASES = {
    "no header": ("10.0.0.1", [], "10.0.0.1"),
    "one proxy": ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
    "a client that claims another address": ("10.0.0.1", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
    "a client that claims a trusted address": ("10.0.0.1", ["10.0.0.9, 203.0.113.7"], "203.0.113.7"),
    "two proxies": ("10.0.0.1", ["203.0.113.7, 192.168.1.1"], "203.0.113.7"),
    "in several lines": ("10.0.0.1", ["6.6.6.6", "203.0.113.7", "10.1.2.3"], "203.0.113.7"),
    "everyone trusted": ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    "a stranger who forwards": ("198.51.100.4", ["203.0.113.7"], "198.51.100.4"),
    "a stranger who claims a proxy": ("198.51.100.4", ["203.0.113.7, 10.0.0.1"], "198.51.100.4"),
    "with a port": ("10.0.0.1", ["203.0.113.7:51234"], "203.0.113.7"),
    "IPv6": ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
    "IPv6 with a port": ("fd00::1", ['"[2001:db8::7]:51234"'], "2001:db8::7"),
    "IPv4 within IPv6": ("::ffff:10.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
    "unknown": ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
    "empty": ("10.0.0.1", [""], "10.0.0.1"),
    "nonsense behind a proxy": ("10.0.0.1", ["<script>, 10.0.0.2"], "10.0.0.2"),
    "a Unix socket": (None, ["203.0.113.7"], ""),
}


@pytest.mark.parametrize("name", CASES)
def test_the_caller_is_the_first_from_the_right_that_is_no_proxy(name: str) -> None:
    remote, lines, caller = CASES[name]
    request = make_mocked_request("GET", "/", [("X-Forwarded-For", line) for line in lines]).clone(remote=remote or "")
    assert Proxies.listed(TRUSTED).caller(request) == caller
    assert Proxies().caller(request) == (remote or "")


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy.example", "10.0.0.1;10.0.0.2", "10.0.0.1 10.0.0.2", "*"])
def test_what_is_no_network_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="CLIPSRV_TRUSTED_PROXIES"):
        Proxies.listed(text)
    assert Proxies.listed(" , 10.0.0.1, ")._networks


async def test_fairness_failures_and_the_log_know_callers_behind_a_trusted_proxy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "clipsrv.access")
    encoder, settings = HangingEncoder(), dict[str, Any](max_queue=2, max_queue_per_caller=1, max_images=1)
    async with serving(make_model(encoder), trusted_proxies="127.0.0.1", **settings) as served:
        encoder.go_on.clear()
        busy = asyncio.create_task(served.post("/embed", drawn(1), "image/png", "X-Forwarded-For: 203.0.113.7"))
        await eventually(lambda: served.embedder.workshop.slots.in_use == 1)
        again = await served.post("/embed", drawn(2), "image/png", "X-Forwarded-For: 6.6.6.6, 203.0.113.7")
        assert again.status == 429
        other = asyncio.create_task(served.post("/embed", drawn(3), "image/png", "X-Forwarded-For: 203.0.113.8"))
        await eventually(lambda: served.embedder.workshop.slots.in_use == 2)
        encoder.go_on.set()
        assert [(await busy).status, (await other).status] == [200, 200]
    async with serving(trusted_proxies="127.0.0.1", api_keys="k" * 20, auth_failures=1) as served:
        statuses = [
            (await served.get("/models", "X-API-Key: wrong", f"X-Forwarded-For: 203.0.113.{number}")).status
            for number in range(5)
        ]
        assert statuses == [401] * 5
    assert {vars(record)["fields"]["client"] for record in caplog.records} >= {"203.0.113.7", "203.0.113.8"}

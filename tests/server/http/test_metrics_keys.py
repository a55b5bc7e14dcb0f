"""A key of its own for whoever scrapes /metrics: it opens that, and nothing else."""

from __future__ import annotations

import pytest

from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.server.http.security import read_keys
from tests.support.serving import drawn, serving

KEY, SCRAPER, NEXT = "correct-horse-battery-staple", "the-key-of-the-scraper", "its-successor-while-it-changes"


async def test_a_metrics_key_opens_metrics_and_nothing_else() -> None:
    async with serving(api_keys=KEY, metrics_keys=f"{SCRAPER},{NEXT}", auth_failures=0) as served:
        for key in (SCRAPER, NEXT):
            header = f"Authorization: Bearer {key}"
            assert (await served.get("/metrics", header)).status == 200
            for path in ("/models", "/openapi.json", "/metrics/", "/embed?x=/metrics"):
                assert (await served.get(path, header)).status == 401
            assert (await served.post("/embed", drawn(1), header)).status == 401


async def test_an_api_key_opens_metrics_too() -> None:
    async with serving(api_keys=KEY, metrics_keys=SCRAPER) as served:
        assert (await served.get("/metrics", f"X-API-Key: {KEY}")).status == 200


async def test_without_api_keys_a_metrics_key_closes_metrics_alone() -> None:
    async with serving(metrics_keys=SCRAPER) as served:
        assert (await served.get("/models")).status == 200
        assert (await served.get("/metrics")).status == 401
        assert (await served.get("/metrics", f"Authorization: Bearer {SCRAPER}")).status == 200


def test_a_wrong_list_is_called_by_its_own_name() -> None:
    with pytest.raises(ConfigError, match=r"^CLIPSRV_METRICS_KEYS \(--metrics-keys\) holds an empty key"):
        read_keys("one,,two", setting="metrics_keys")


def test_metrics_keys_are_shown_nowhere() -> None:
    assert SCRAPER not in repr(Config(metrics_keys=SCRAPER))

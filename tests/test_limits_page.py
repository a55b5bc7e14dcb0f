"""docs/limits.md is true: every row is there, every test it names exists, every setting it names is one."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from clipsrv.config import Config
from clipsrv.server import lifecycle
from clipsrv.serving.memory import memory_bound

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
ROWS = 180


def test_every_row_is_on_the_page_once_and_in_order() -> None:
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)] == list(range(1, ROWS + 1))


def test_every_test_named_on_the_page_exists() -> None:
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    assert set(re.findall(r"`(test_\w+)`", PAGE)) - there == set()


def test_every_row_has_a_test_or_says_why_not() -> None:
    for row in re.findall(r"^\| \d+ \|.*$", PAGE, re.MULTILINE):
        proof = row.rstrip(" |").rpartition("|")[2]
        assert "`test_" in proof or "none" in proof or "row" in proof or "scripts/" in proof, row


def test_every_setting_named_in_the_table_of_limits_is_one() -> None:
    table = PAGE.partition("## Limits")[2].partition("## Memory")[0]
    known = {item.name for item in fields(Config)}
    assert set(re.findall(r"`([a-z_]+)`", table)) <= known


def test_the_formula_is_that_of_the_page() -> None:
    config = Config(
        max_bytes_in_flight=10**9,
        max_pixels_in_flight=10**8,
        decode_threads=3,
        max_queue=100,
        max_batch_size=8,
        max_connections=10,
    )
    decoding = 16 * 10**8 + (64 + 64) * 2**20 * 3
    assert memory_bound(config, 224) == 2 * 10**9 + decoding + 12 * 224**2 * (100 + 16) + 128 * 1024 * 10


def test_more_memory_than_the_cgroup_allows_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "memory_limit", lambda: 512 * 2**20)
    (warning,) = [text for text in lifecycle.warnings(Config(), []) if "MiB" in text]
    assert "512 MiB" in warning
    small = Config(
        max_bytes_in_flight=16 * 2**20,
        max_pixels=10**7,
        max_pixels_in_flight=10**7,
        decode_threads=2,
        max_queue=64,
        max_connections=100,
    )
    assert not [text for text in lifecycle.warnings(small, []) if "MiB" in text]


def test_no_duration_is_measured_by_the_wall_clock() -> None:
    for path in (ROOT / "clipsrv").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\btime\.time\(|datetime\.(now|utcnow)\(", text), path

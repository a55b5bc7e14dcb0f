"""docs/limits.md is true: every test named exists and can assert what its row says; every setting named is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clipsrv.config import Config
from clipsrv.server import lifecycle
from clipsrv.serving.memory import memory_bound
from tests.support import citations

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
#: A test by its name, and the case of it where it has cases by name: `test_x` or `test_x[a case]`.
CITATION = re.compile(r"`(test_\w+)(?:\[([^\]`]+)\])?`")


class Row(NamedTuple):
    number: int
    answer: str
    proof: str


def rows() -> Iterator[Row]:
    for line in re.findall(r"^\| \d+ \|.*$", PAGE, re.MULTILINE):
        number, _, answer, proof = (cell.strip() for cell in line.strip().strip("|").split(" | "))
        yield Row(int(number), answer, proof)


TABLE = list(rows())


def test_every_row_is_on_the_page_once_and_in_order() -> None:
    assert len(TABLE) >= 180
    assert [row.number for row in TABLE] == list(range(1, len(TABLE) + 1))


def test_every_test_named_on_the_page_exists() -> None:
    assert {name for name, _ in CITATION.findall(PAGE)} - citations.tests_by_name().keys() == set()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"row {row.number}")
def test_a_row_is_proven_by_tests_that_can_assert_its_answer_or_says_why_not(row: Row) -> None:
    cited = CITATION.findall(row.proof)
    assert cited or re.search(r"\bnone\b|\brow \d|`?scripts/", row.proof), "no proof, and no reason"
    constants: set[Any] = set()
    for name, case in cited:
        (test,) = citations.tests_by_name()[name]
        constants |= test.constants(case or None)
    numbers = {constant for constant in constants if isinstance(constant, int | float)}
    texts = [text for text in constants if isinstance(text, str)]
    texts += [text.decode("latin-1") for text in constants if isinstance(text, bytes)]
    for number in re.findall(r"\b[1-5]\d\d\b|(?<=\bexit )\d|\b\d+(?= s\b)", row.answer if cited else ""):
        in_text = any(re.search(rf"\b{number}\b", text) for text in texts)
        assert int(number) in numbers or in_text, f"no test of the row speaks of {number}"
    for word in re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", row.answer if cited else ""):
        assert any(word in text for text in texts), f"no test of the row speaks of {word}"


def test_every_test_in_typescript_named_on_the_page_exists() -> None:
    there = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "clients").glob("*/test/*.test.ts"))
    named = re.findall(r'"([^"]+)"', PAGE.partition("## The jobs")[2].partition("## The rows")[0])
    assert named
    assert [name for name in named if f"test('{name}'" not in there.replace("\\'", "'")] == []


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
        max_texts=10_000,
        cache_bytes=10**7,
    )
    decoding = 16 * 112_500_000 + (64 + 64 + 2 * 20) * 2**20 * 3
    json = 7_936 * 10_000
    kept = 10**7 + 128 * 1024 * 10
    assert memory_bound(config, 224) == 2 * 10**9 + decoding + 12 * 224**2 * (100 + 16) + json + kept


def test_more_memory_than_the_cgroup_allows_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "memory_limit", lambda: 512 * 2**20)
    (warning,) = [text for text in lifecycle.warnings(Config(), []) if "MiB" in text]
    assert "512 MiB" in warning
    small = Config(
        max_bytes_in_flight=16 * 2**20,
        max_image_bytes=8 * 2**20,
        max_pixels=3 * 10**6,
        max_pixels_in_flight=6 * 10**6,
        decode_threads=2,
        max_queue=64,
        max_connections=50,
        cache_bytes=8 * 2**20,
    )
    assert not [text for text in lifecycle.warnings(small, []) if "MiB" in text]


def test_no_duration_is_measured_by_the_wall_clock() -> None:
    for path in (ROOT / "clipsrv").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\btime\.time\(|datetime\.(now|utcnow)\(", text), path

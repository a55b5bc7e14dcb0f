"""Ids and paths that an output cannot hold: each is listed by itself, and all others are stored."""

from __future__ import annotations

import json
import os
import random
import string
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from tests.bulk.tool import Embed, ids, lines
from tests.support.postgres import Postgres


def write_list(folder: Path, images: Path, names: list[str]) -> Path:
    """A list of one image for each id."""
    path = folder / "list"
    rows = [{"id": name, "path": str(images / f"{number + 1:02d}.jpg")} for number, name in enumerate(names)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def images(images: Path) -> Path:
    """The good images of the folder, numbered from 1 without a gap."""
    good = [path for path in sorted(images.rglob("*.jpg")) if path.stem.isdecimal()]
    for number, path in enumerate(good, 1):
        path.rename(images / f"new{number:02d}")
    for path in images.glob("new*"):
        path.rename(images / f"{path.name.removeprefix('new')}.jpg")
    return images


@pytest.fixture(scope="module")
def latin(postgres: Postgres) -> Iterator[str]:
    """The URL of a database in LATIN1."""
    postgres.query("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    yield postgres.url.rpartition("/")[0] + "/latin"
    postgres.query("DROP DATABASE latin")


def incompressible(length: int) -> str:
    return "".join(random.Random(length).choices(string.ascii_letters + string.digits, k=length))


def stored(postgres: Postgres, table: str) -> set[str]:
    return {name for (name,) in postgres.query(f'SELECT id FROM "{table}"')}


def test_ids_that_the_database_cannot_hold_are_listed_and_the_others_stored(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    good = ["ok1", "s\ufffd", "é" * 1000, "a" * 4000, "'; DROP TABLE x; --", "tab\tnewline\n", " ", "\\", "{a,b}"]
    bad = ["nul\0id", "s\ud800", "s\ud801", incompressible(4000), "\0"]
    names = [name for pair in zip(good, bad + [""] * 4, strict=True) for name in pair if name]
    errors = tmp_path / "errors.jsonl"
    args = ("--files-from", write_list(tmp_path, images, names), "--out", postgres.url, "--table", table)
    said = embed(*args, "--errors", errors)
    assert "5 bad" in said
    assert f"{len(good)} rows" in said
    assert stored(postgres, table) == set(good)
    found = {line["id"]: line["code"] for line in lines(errors)}
    assert found == dict.fromkeys(["nul\0id", "s\\ud800", "s\\ud801", incompressible(4000), "\0"], "invalid_name")
    assert "9 stored before, 5 bad" in embed(*args, "--errors", errors)


def test_a_database_in_another_encoding_holds_what_it_can(
    embed: Embed, images: Path, latin: str, tmp_path: Path
) -> None:
    names = ["ok", "é", "赤", "青", "z"]
    errors = tmp_path / "errors.jsonl"
    args = ("--files-from", write_list(tmp_path, images, names), "--out", latin, "--table", "t", "--errors", errors)
    assert "3 rows" in embed(*args)
    assert [(line["id"], line["code"]) for line in lines(errors)] == [("赤", "invalid_name"), ("青", "invalid_name")]
    assert "3 stored before, 2 bad" in embed(*args)


def test_a_database_without_an_encoding_holds_every_id_and_is_refused_with_text_that_is_not_utf_8(
    embed: Embed, images: Path, postgres: Postgres, tmp_path: Path
) -> None:
    postgres.query("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    out = postgres.url.rpartition("/")[0] + "/plain"
    listed = write_list(tmp_path, images, ["ok", "赤"])
    args = ("--files-from", listed, "--out", out, "--table", "t", "--errors", tmp_path / "errors.jsonl")
    assert "2 rows" in embed(*args)
    assert "2 stored before" in embed(*args)
    with psycopg.connect(out, autocommit=True) as connection:
        connection.execute("UPDATE t SET sha256 = 'none of ours' WHERE id = 'ok'")
        assert "1 stored before" in embed(*args)
        connection.execute(r"UPDATE t SET id = E'\xe9' WHERE id = 'ok'")
    assert "invalid byte sequence" in embed(*args, status=6)
    postgres.query("DROP DATABASE plain")


def test_rows_against_a_rule_of_the_table_are_listed_and_a_table_that_takes_none_ends_the_job(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    args = ("--files-from", write_list(tmp_path, images, ["a", "b", "c"]), "--out", postgres.url, "--table", table)
    errors = tmp_path / "errors.jsonl"
    embed(*args, "--errors", errors)
    postgres.query(f"""DELETE FROM "{table}"; ALTER TABLE "{table}" ADD CHECK (id <> 'b')""")
    embed(*args, "--errors", errors)
    assert stored(postgres, table) == {"a", "c"}
    assert [(line["id"], line["code"]) for line in lines(errors)] == [("b", "refused_row")]
    postgres.query(f'DELETE FROM "{table}"; ALTER TABLE "{table}" ADD price int NOT NULL')
    assert "No row fits the table" in embed(*args, "--errors", errors, status=6)


def test_strict_ends_at_an_id_that_the_database_cannot_hold(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    listed = write_list(tmp_path, images, ["a", "nul\0id"])
    args = ("--files-from", listed, "--out", postgres.url, "--table", table, "--errors", tmp_path / "e", "--strict")
    assert "cannot be used" in embed(*args, status=1)


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_files_hold_every_id_that_is_unicode(embed: Embed, images: Path, tmp_path: Path, suffix: str) -> None:
    good = ["nul\0id", incompressible(100_000), "s\ufffd", "\u2028", "a\n", "日本語"]
    listed = write_list(tmp_path, images, [good[0], "s\ud800", *good[1:]])
    out = tmp_path / f"out.{suffix}"
    embed("--files-from", listed, "--out", out)
    if suffix == "parquet":
        found = pq.read_table(out)["id"].to_pylist()
    else:
        found = ids(out) if suffix == "npy" else [line["id"] for line in lines(out)]
    assert found == good
    assert [line["code"] for line in lines(tmp_path / f"out.{suffix}.errors.jsonl")] == ["invalid_name"]


def test_an_id_for_a_second_image_is_listed_and_the_first_counts_in_a_file_and_in_a_table(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    names = [*("a", "b", "a", "c", "b"), "a"]
    listed = write_list(tmp_path, images, names)
    errors = tmp_path / "errors.jsonl"
    for _ in range(2):
        embed("--files-from", listed, "--out", postgres.url, "--table", table, "--errors", errors, "--shard-size", 2)
        assert [(line["id"], line["code"]) for line in lines(errors)] == [(name, "duplicate_id") for name in "aba"]
    rows = dict(postgres.query(f'SELECT id, location FROM "{table}"'))
    assert {name: os.path.basename(path) for name, path in rows.items()} == {
        "a": "01.jpg",
        "b": "02.jpg",
        "c": "04.jpg",
    }
    embed("--files-from", listed, "--out", tmp_path / "out.npy", "--shard-size", 2)
    assert ids(tmp_path / "out.npy") == ["a", "b", "c"]
    assert lines(tmp_path / "out.npy.errors.jsonl") == lines(errors)


def test_three_jobs_that_make_one_table_at_once_do_no_harm(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    args = (images, "--out", postgres.url, "--table", table)
    jobs = [embed.start(*args, "--errors", tmp_path / f"{number}.jsonl") for number in range(3)]
    said = [job.communicate(timeout=100)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], said

"""Rows of a PostgreSQL query as sources, in a real server: paths, URLs or bytes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources import patience
from clipsrv.bulk.sources.columns import Columns
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.sources.reader import Fetching
from clipsrv.errors import ConfigError, ImageTooLargeError
from tests.bulk.tool import Embed, ids, lines
from tests.support.photos import cuttings
from tests.support.postgres import Postgres

QUERY = "SELECT sku, photo FROM goods WHERE note LIKE '100%' -- of all;"


@pytest.fixture
def goods(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """A table of goods: whole numbers, paths, bytes, and rows without."""
    monkeypatch.setattr(patience, "_FIRST_DELAY", 0.001)
    postgres.up()
    postgres.query("DROP TABLE IF EXISTS goods")
    postgres.query("CREATE TABLE goods (sku int PRIMARY KEY, photo text, image bytea, note text DEFAULT '100 %')")
    rows = [(3, "c.jpg", b"three"), (1, "s3://b/a.jpg", b"one"), (20, None, None), (4, "", b"")]
    with psycopg.connect(postgres.url) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO goods VALUES (%s, %s, %s)", rows)
        cursor.execute("INSERT INTO goods VALUES (5, 'x.jpg', 'x', 'other')")
    yield postgres
    postgres.up()
    postgres.query("DROP TABLE goods")


def inputs(goods: Postgres, query: str, identity: str | None = None, image: str | None = None) -> Inputs:
    return Inputs([goods.url], columns=Columns(identity, image), query=query, fetching=Fetching(20.0))


def test_a_column_of_paths_gives_entries_ordered_by_id(goods: Postgres) -> None:
    first, second, empty, none = inputs(goods, QUERY, "sku").entries()
    assert [first, second] == [Entry("1", "s3://b/a.jpg"), Entry("3", "c.jpg")]
    for bad, name in ((empty, "4"), (none, "20")):
        assert isinstance(bad, BadFile)
        assert (bad.id, bad.code) == (name, "bad_entry")
    renamed = "SELECT sku AS id, photo FROM goods WHERE sku = 3"
    assert list(inputs(goods, renamed).entries()) == [Entry("3", "c.jpg")]


def test_images_in_rows_are_read_by_their_ids_in_any_process_and_thread(goods: Postgres) -> None:
    asked = inputs(goods, "SELECT sku, image, note FROM goods WHERE note LIKE '100%'", "sku", "image")
    entries = list(asked.entries())
    assert entries[:3] == [Entry("1", "sql://1", 3), Entry("3", "sql://3", 5), Entry("4", "sql://4", 0)]
    assert isinstance(entries[3], BadFile)
    elsewhere = pickle.loads(pickle.dumps(asked))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda path: elsewhere.read(path, 10), ["sql://3", "sql://1", "sql://4"] * 9)) == (
            [b"three", b"one", b""] * 9
        )
    with pytest.raises(ImageTooLargeError):
        elsewhere.read("sql://3", 4)
    for path, code in (("sql://9", "not_found"), ("sql://5", "not_found"), ("sql://20", "empty_image")):
        with pytest.raises(FetchError) as caught:
            elsewhere.read(path, 10)
        assert caught.value.code == code
    with pytest.raises(FetchError, match="invalid input syntax"):
        elsewhere.read("sql://1%27%20OR%20true", 10)
    elsewhere.close()
    asked.close()


def test_an_id_that_several_rows_have_stands_for_none_of_them(goods: Postgres) -> None:
    asked = inputs(goods, "SELECT 'x' AS id, image FROM goods WHERE sku < 4")
    assert [entry.path for entry in asked.entries()] == ["sql://x"] * 2
    with pytest.raises(FetchError, match="Several rows have this id"):
        asked.read("sql://x", 10)
    asked.close()


def test_a_connection_that_is_lost_is_made_again(goods: Postgres) -> None:
    asked = inputs(goods, "SELECT sku AS id, image FROM goods")
    assert asked.read("sql://1", 10) == b"one"
    goods.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clipsrv-bulk'")
    assert asked.read("sql://3", 10) == b"three"
    asked.close()
    assert asked.read("sql://1", 10) == b"one"
    asked.close()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT nothing FROM goods", 'column "nothing" does not exist'),
        ("SELECT sku AS id, photo, note FROM goods", "--image-column: id, photo, note"),
        ("SELECT photo FROM goods", "Which column of the query has the ids"),
        ("DELETE FROM goods RETURNING sku AS id, photo", "syntax error"),
        ("SELECT sku AS id, setval('pg_temp.s', 1)::text AS path FROM goods", "does not exist"),
        ("SELECT sku AS id, set_config('x.y', lo_create(0)::text, true) AS path FROM goods", "read-only transaction"),
        ("SELECT 1); DROP TABLE goods; --", "refused the query"),
    ],
)
def test_a_query_that_cannot_be_asked_is_refused_with_the_databases_words(
    goods: Postgres, query: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        list(inputs(goods, query).entries())
    assert goods.query("SELECT count(*) FROM goods")[0][0] == 5


def test_a_database_and_its_query_go_together_and_no_password_is_shown() -> None:
    url = "postgresql://me:secret@localhost/shop"
    for paths, query in (([url], None), (["a.jpg"], "SELECT 1"), ([url, url], "SELECT 1")):
        with pytest.raises(ConfigError, match="--query"):
            Inputs(paths, query=query)
    assert Inputs([url], query="SELECT 1").in_words == "'postgresql://localhost/shop'"
    with pytest.raises(ConfigError, match="not a PostgreSQL URL"):
        list(Inputs(["postgresql://[/"], query="SELECT 1").entries())
    with pytest.raises(FetchError, match="No database"):
        Inputs([]).read("sql://1", 10)


def test_the_vectors_are_those_of_the_files(
    embed: Embed, tmp_path: Path, goods: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = cuttings(5)
    with psycopg.connect(goods.url) as connection:
        for number, blob in enumerate(blobs):
            (tmp_path / f"{number}.jpg").write_bytes(blob)
            values = (100 + number, str(tmp_path / f"{number}.jpg"), blob)
            connection.execute("INSERT INTO goods VALUES (%s, %s, %s, 'real')", values)
    columns = ("--id-column", "sku", "--image-column")
    query = ("--query", "SELECT * FROM goods WHERE note = 'real' OR sku = 1")
    embed(goods.url, *query, *columns, "image", "--out", tmp_path / "bytes.npy", "--shard-size", 2)
    embed(goods.url, *query, *columns, "photo", "--out", tmp_path / "paths.npy", "--shard-size", 2)
    embed(*(tmp_path / f"{number}.jpg" for number in range(5)), "--out", tmp_path / "files.npy", "--shard-size", 2)
    wanted = (tmp_path / "files.npy").read_bytes()
    assert (tmp_path / "bytes.npy").read_bytes() == (tmp_path / "paths.npy").read_bytes() == wanted
    assert ids(tmp_path / "bytes.npy") == [str(100 + number) for number in range(5)]
    assert [line["code"] for line in lines(tmp_path / "bytes.npy.errors.jsonl")] == ["not_an_image"]

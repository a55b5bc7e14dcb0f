"""Where the shards of a job go: tables, datasets and collections, in which a shard may be written again and again."""

from __future__ import annotations

import asyncio
import random
import signal
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import lance
import numpy as np
import pytest
from aiohttp import web
from qdrant_client import QdrantClient

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.outage import Outage
from clipsrv.bulk.records import Row, Shard
from clipsrv.bulk.sinks.qdrant import QdrantSink, point_id
from clipsrv.errors import ConfigError
from clipsrv.runtime.vectors import Vectors
from tests.bulk.test_postgres import assert_same, stored
from tests.bulk.tool import SHARDS, Embed, finish, marks, wait_until
from tests.support.postgres import Postgres

FACTS = {"embedding_id": "abc", "dimensions": 4, "model": "tiny"}


def in_lance(path: Path) -> dict[str, Vectors]:
    found = lance.dataset(str(path)).to_table().to_pylist()
    assert len(found) == len({row["id"] for row in found})
    return {row["id"]: np.array(row["embedding"], np.float32) for row in found}


def in_qdrant(folder: Path, collection: str) -> dict[str, Vectors]:
    with closing(QdrantClient(path=str(folder))) as client:
        points, _ = client.scroll(collection, limit=5000, with_vectors=True)
    found: dict[str, Vectors] = {}
    for point in points:
        assert point.payload
        assert point.id == point_id(point.payload["id"], point.payload["embedding_id"])
        assert set(point.payload) == {"id", "path", "sha256", "embedding_id"}
        found[point.payload["id"]] = np.array(point.vector, np.float32)
    return found


def test_a_table_holds_what_a_file_holds_whoever_is_killed(
    embed: Embed, many: Path, postgres: Postgres, table: str, tmp_path: Path, expected: Mapping[str, Vectors]
) -> None:
    work, seed = tmp_path / "work", random.randrange(1000)
    moments = random.Random(seed)
    args = (many, "--work", work, "--out", postgres.url, "--table", table, *SHARDS)
    for _ in range(2):
        goal = marks(work) + moments.randint(0, 3)
        process = embed.start(*args)
        wait_until(lambda goal=goal, process=process: marks(work) >= goal or process.poll() is not None)  # type: ignore[misc]
        process.kill()
        assert finish(process)[0] in {-signal.SIGKILL, 0}, f"seed {seed}"
    said = embed(*args)
    assert "all 16 shards" in said
    assert_same(stored(postgres, table), dict(expected))
    assert "another table" in embed(many, "--work", tmp_path / "w", *args[3:], "--no-exif-orientation", status=6)
    index = (work / "index.json").read_text()
    assert postgres.url.partition("@")[0] not in index, "a user or a password has no business there"


def test_a_table_refuses_rows_of_its_own_and_they_are_in_the_table_of_failures(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    embed(images, "--work", tmp_path / "a", "--out", postgres.url, "--table", table)
    postgres.query(f'DELETE FROM "{table}"; ALTER TABLE "{table}" ADD CHECK (id NOT LIKE \'%03.jpg\')')
    said = embed(images, "--work", tmp_path / "b", "--out", postgres.url, "--table", table)
    assert "20 embedded, 3 bad" in said
    assert len(stored(postgres, table)) == 20


def test_the_job_waits_for_a_database_that_goes_away(
    embed: Embed, many: Path, postgres: Postgres, table: str, tmp_path: Path, expected: Mapping[str, Vectors]
) -> None:
    process = embed.start(many, "--work", tmp_path / "work", "--out", postgres.url, "--table", table, *SHARDS)
    wait_until(lambda: marks(tmp_path / "work") >= 1)
    postgres.kill()
    postgres.up()
    status, said = finish(process)
    assert status == 0, said
    assert_same(stored(postgres, table), dict(expected))


def test_two_drivers_put_their_parts_into_one_dataset(
    embed: Embed, many: Path, tmp_path: Path, expected: Mapping[str, Vectors]
) -> None:
    out = tmp_path / "out.lance"
    args = (many, "--work", tmp_path / "work", "--out", out, *SHARDS)
    parts = [embed.start(*args, "--shard", f"{part}/2") for part in range(2)]
    wait_until(lambda: marks(tmp_path / "work") >= 3)
    parts[1].kill()
    assert [finish(process)[0] for process in parts] == [0, -signal.SIGKILL]
    embed(*args, "--shard", "1/2")
    assert_same(in_lance(out), dict(expected))
    assert "embedding_id" in embed(many, "--work", tmp_path / "w", *args[3:], "--no-exif-orientation", status=6)


def test_a_collection_of_qdrant_holds_what_a_file_holds(
    embed: Embed, many: Path, tmp_path: Path, expected: Mapping[str, Vectors]
) -> None:
    args = (many, "--work", tmp_path / "work", "--out", f"qdrant://{tmp_path}/qdrant/photos", *SHARDS)
    process = embed.start(*args)
    wait_until(lambda: marks(tmp_path / "work") >= 2)
    process.kill()
    finish(process)
    embed(*args)
    assert_same(in_qdrant(tmp_path / "qdrant", "photos"), dict(expected))


def shard(*names: str) -> Shard:
    vectors = np.eye(4, dtype=np.float32)[: len(names)]
    return Shard(0, [Row(name, f"{name}.jpg", "0" * 64) for name in names], vectors)


def sink(url: str, **facts: object) -> closing[QdrantSink]:
    return closing(QdrantSink(url, {**FACTS, **facts}, Outage(0.1, lambda message: None, lambda: False)))


def test_a_point_is_written_once_however_often_and_another_models_collection_is_refused(tmp_path: Path) -> None:
    url = f"qdrant://{tmp_path}/photos"
    for _ in range(2):
        with sink(url) as points:
            points.begin(0)
            assert points.write(shard("a", "b")) == []
            points.publish()
    assert sorted(in_qdrant(tmp_path, "photos")) == ["a", "b"]
    with pytest.raises(OutputError, match="embedding_id abc; this job makes other"):
        sink(url, embedding_id="other")
    with pytest.raises(OutputError, match="vectors of 4; this model's have 8"):
        sink(url, dimensions=8)


def test_the_id_of_a_point_is_a_uuid_of_both_ids() -> None:
    assert point_id("a.jpg", "abc") == "9eb3c7af-f8a9-59b4-99ef-54144c726d7f"
    assert uuid.UUID(point_id("a.jpg", "abc")).version == 5
    assert len({point_id("a", "b"), point_id("b", "b"), point_id("a", "c")}) == 3


@pytest.mark.parametrize("url", ["qdrant://host", "qdrant://host:x/a", "qdrant://host/a/b", "qdrant://"])
def test_what_is_no_collection_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT/COLLECTION"):
        sink(url)


async def test_a_server_that_is_away_is_asked_again_and_one_that_refuses_is_not() -> None:
    asked: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(status)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = "qdrant://{}:{}/photos".format(*runner.addresses[0][:2])
    try:
        for status, times in ((503, 2), (403, 1)):
            asked.clear()
            with pytest.raises(OutputError, match=str(status)):
                await asyncio.to_thread(patient, url)
            assert len(asked) >= times
            assert status == 503 or len(asked) <= 2
    finally:
        await runner.cleanup()
    with pytest.raises(OutputError, match="stayed away"):
        await asyncio.to_thread(sink, url)


def patient(url: str) -> None:
    QdrantSink(url, FACTS, Outage(0.6, lambda message: None, lambda: False))

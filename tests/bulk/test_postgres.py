"""The table as output: real PostgreSQL with pgvector. Nothing is lost and nothing is there twice, whoever is killed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import numpy as np

from clipsrv.runtime.vectors import Vectors
from tests.bulk.tool import SMALL, Embed, finish, lines, wait_until
from tests.support.postgres import Postgres


def stored(postgres: Postgres, table: str) -> dict[str, Vectors]:
    found = postgres.query(f'SELECT id, embedding::text FROM "{table}" ORDER BY id')
    return {name: np.array(json.loads(vector), np.float32) for name, vector in found}


def count(postgres: Postgres, table: str) -> int:
    if postgres.query(f"SELECT to_regclass('\"{table}\"')")[0][0] is None:
        return 0
    return int(postgres.query(f'SELECT count(*) FROM "{table}"')[0][0])


def assert_same(found: dict[str, Vectors], expected: dict[str, Vectors]) -> None:
    assert sorted(found) == sorted(expected)
    for name, vector in found.items():
        np.testing.assert_allclose(vector, expected[name], rtol=0, atol=1e-6)


def test_the_table_holds_what_a_file_holds(
    embed: Embed, many: Path, postgres: Postgres, table: str, tmp_path: Path, expected: dict[str, Vectors]
) -> None:
    errors = tmp_path / "errors.jsonl"
    said = embed(many, "--out", postgres.url, "--table", table, "--errors", errors, *SMALL)
    found = stored(postgres, table)
    assert sorted(found) == sorted(expected)
    for name, vector in found.items():
        np.testing.assert_array_equal(vector, expected[name])
    assert "989 rows" in said
    assert len(lines(errors)) == 11
    columns = postgres.query(f'SELECT DISTINCT embedding_id, length(sha256), vector_dims(embedding) FROM "{table}"')
    assert [row[1:] for row in columns] == [(64, 64)]


def test_six_kills_at_random_moments_change_nothing(
    embed: Embed, many: Path, postgres: Postgres, table: str, tmp_path: Path, expected: dict[str, Vectors]
) -> None:
    args = (many, "--out", postgres.url, "--table", table, "--errors", tmp_path / "errors.jsonl", *SMALL)
    moments = random.Random(seed := random.randrange(1000))

    def reached(goal: int, process: subprocess.Popen[str]) -> bool:
        return count(postgres, table) >= goal or process.poll() is not None

    for _ in range(6):
        goal = count(postgres, table) + moments.randint(1, 120)
        process = embed.start(*args)
        wait_until(partial(reached, goal, process))
        process.kill()
        status, said = finish(process)
        assert status == -signal.SIGKILL, f"seed {seed}: {said}"
    embed(*args)
    assert_same(stored(postgres, table), expected)
    assert "0 embedded, 989 stored before, 11 bad" in embed(*args)


def test_a_database_that_is_killed_and_comes_back_is_waited_for(
    embed: Embed, many: Path, postgres: Postgres, table: str, tmp_path: Path, expected: dict[str, Vectors]
) -> None:
    process = embed.start(
        *(many, "--out", postgres.url, "--table", table, "--errors", tmp_path / "errors.jsonl", *SMALL)
    )
    wait_until(lambda: count(postgres, table) > 40)
    process.send_signal(signal.SIGSTOP)
    postgres.kill()
    process.send_signal(signal.SIGCONT)
    assert process.stderr is not None
    assert "The database is away" in process.stderr.readline()
    postgres.up()
    status, said = finish(process)
    assert status == 0, said
    assert_same(stored(postgres, table), expected)


def holds(postgres: Postgres, table: str, rows: int) -> bool:
    return count(postgres, table) > rows


def test_a_job_whose_database_stays_away_ends_by_itself_or_by_a_signal_and_the_next_run_goes_on(
    embed: Embed, many: Path, postgres: Postgres, table: str, tmp_path: Path, expected: dict[str, Vectors]
) -> None:
    args = (many, "--out", postgres.url, "--table", table, "--errors", tmp_path / "errors.jsonl", *SMALL)
    for patience, rows, wanted in ((0, 40, 6), (600, 80, 128 + signal.SIGTERM)):
        process = embed.start(*args, "--patience", patience)
        wait_until(partial(holds, postgres, table, rows))
        process.send_signal(signal.SIGSTOP)
        postgres.kill()
        process.send_signal(signal.SIGCONT)
        if patience:
            assert process.stderr is not None
            assert "The database is away" in process.stderr.readline()
            process.terminate()
        status, said = finish(process)
        assert status == wanted, said
        assert "Traceback" not in said
        postgres.up()
    embed(*args)
    assert_same(stored(postgres, table), expected)


def test_an_image_that_changed_is_embedded_again_and_its_copies_keep_their_vector(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    args = (images, "--relative-to", images, "--table", table, "--errors", tmp_path / "errors.jsonl")
    embed(*args, "--out", postgres.url)
    before = stored(postgres, table)
    shutil.copy(images / "02.jpg", images / "zz.jpg")
    shutil.copy(images / "05.jpg", images / "02.jpg")
    said = embed(*args, "--out", postgres.url)
    after = stored(postgres, table)
    assert "0 embedded, 2 duplicates, 20 stored before" in said
    np.testing.assert_array_equal(after["02.jpg"], before["05.jpg"])
    np.testing.assert_array_equal(after["zz.jpg"], before["02.jpg"])
    assert len(after) == 22


def test_another_embedding_id_another_shape_and_files_only_options_are_refused(
    embed: Embed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    args = (images, "--out", postgres.url, "--table", table, "--errors", tmp_path / "errors.jsonl")
    embed(*args)
    assert "holds vectors of embedding_id" in embed(*args, "--no-exif-orientation", status=6)
    postgres.query(f'DROP TABLE "{table}"; CREATE TABLE "{table}" (id text PRIMARY KEY, embedding vector(3))')
    assert "has no column location, sha256, embedding_id" in embed(*args, status=6)
    assert "--restart" in embed(*args, "--restart", status=2)

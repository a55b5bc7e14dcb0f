"""A job in shards: whoever computes them, and however often it is ended, the output is that of one run."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.errors import ConfigError
from clipsrv.runtime.vectors import Vectors
from tests.bulk.tool import SHARDS, Embed, finish, lines, marks, same, wait_until


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a folder of Parquet files, in the order of its files."""
    found: list[dict[str, Any]] = ds.dataset(out, format="parquet").to_table().to_pylist()
    return found


def test_a_job_in_shards_has_the_rows_of_one_in_one_piece(
    uninterrupted: Path, whole: Path, expected: dict[str, Vectors]
) -> None:
    found = rows(whole)
    listed = lines(uninterrupted.with_name("whole.npy.ids.jsonl"))
    assert [{name: row[name] for name in ("id", "path", "sha256")} for row in found] == listed
    for row in found:
        assert np.allclose(row["embedding"], expected[row["id"]], atol=1e-6)
    bad = ds.dataset(whole.parent / "work" / "failures", format="parquet").to_table().to_pylist()
    assert bad == lines(uninterrupted.with_name("whole.npy.errors.jsonl"))
    assert [path.name for path in whole.glob("*.parquet")] != []
    assert b"clipsrv" in pq.read_schema(whole / "shard-000000.parquet").metadata


def test_three_parts_at_once_make_what_one_makes(embed: Embed, many: Path, whole: Path, tmp_path: Path) -> None:
    args = (many, "--work", tmp_path / "work", "--out", tmp_path / "out.parquet", *SHARDS)
    parts = [embed.start(*args, "--shard", f"{part}/3") for part in range(3)]
    said = [finish(process) for process in parts]
    assert [status for status, _ in said] == [0, 0, 0], said
    assert sum("Writing the list" in text for _, text in said) == 1
    assert any("all 16 shards" in text for _, text in said)
    assert same(tmp_path / "out.parquet", whole)


def test_two_kills_at_random_moments_change_nothing(embed: Embed, many: Path, whole: Path, tmp_path: Path) -> None:
    work, seed = tmp_path / "work", random.randrange(1000)
    moments = random.Random(seed)
    args = (many, "--work", work, "--out", tmp_path / "out.parquet", *SHARDS)
    for _ in range(2):
        goal = marks(work) + moments.randint(0, 4)
        process = embed.start(*args)
        wait_until(lambda goal=goal, process=process: marks(work) >= goal or process.poll() is not None)  # type: ignore[misc]
        process.kill()
        status, said = finish(process)
        assert status in {-signal.SIGKILL, 0}, f"seed {seed}: {said}"
        assert all(pq.read_metadata(path).num_rows for path in (tmp_path / "out.parquet").glob("shard-*"))
    embed(*args)
    assert same(tmp_path / "out.parquet", whole)


def test_a_signal_ends_it_soon_and_what_is_done_is_not_done_again(
    embed: Embed, many: Path, whole: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    args = (many, "--work", work, "--out", tmp_path / "out.parquet", *SHARDS)
    process = embed.start(*args)
    wait_until(lambda: marks(work) >= 2)
    process.send_signal(signal.SIGTERM)
    status, said = finish(process)
    assert (status, "Interrupted" in said) == (143, True)
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.parquet").glob("shard-*")}
    assert 2 <= marks(work) < 16
    first = work / "inputs" / "000000.parquet"
    first.unlink()  # the list of what is done is not even read
    embed(*args)
    assert same(tmp_path / "out.parquet", whole)
    assert {name: (tmp_path / "out.parquet" / name).stat().st_mtime_ns for name in done} == done
    assert "0 embedded" in embed(*args)


def test_another_job_is_refused_in_the_same_work_folder_and_in_the_same_output(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    args = (images, "--work", tmp_path / "work", "--out", tmp_path / "out.parquet")
    embed(*args)
    other = embed(tmp_path / "images" / "more", *args[1:], status=6)
    assert "inputs was" in other
    assert "name another --work" in other
    assert "out was" in embed(*args[:3], "--out", tmp_path / "b.parquet", status=6)
    assert "another job" in embed(images, "--work", tmp_path / "second", *args[3:], status=6)
    (tmp_path / "strange.parquet").mkdir()
    (tmp_path / "strange.parquet" / "a.txt").write_bytes(b"")
    assert "a.txt" in embed(images, "--work", tmp_path / "third", "--out", tmp_path / "strange.parquet", status=6)


def test_strict_and_nothing_usable_mean_what_they_mean_elsewhere(embed: Embed, images: Path, tmp_path: Path) -> None:
    args = ("--work", tmp_path / "work", "--out", tmp_path / "out.parquet")
    assert "broken.jpg cannot be used" in embed(images, *args, "--strict", status=1)
    assert marks(tmp_path / "work") == 0
    embed(images, *args)
    said = embed(images / "broken.jpg", "--work", tmp_path / "w", "--out", tmp_path / "o.parquet", status=2)
    assert "No image can be used" in said


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"shard": "0/2"}, "--work"),
        ({"engine": "ray"}, "--work"),
        ({"work": "w", "shard": "2/2"}, "--shard"),
        ({"work": "w", "shard": "x"}, "--shard"),
        ({"work": "w", "rows_per_shard": 0}, "--rows-per-shard"),
        ({"work": "w", "restart": True}, "--restart"),
        ({"work": "w", "errors": "e"}, "--errors"),
        ({"work": "w", "actors": 2}, "--engine ray"),
        ({"work": "w", "engine": "ray", "actors": 0}, "--actors"),
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together_are_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        JobOptions(Inputs(("photos",)), "out.parquet", **given)


def test_a_shard_is_of_whole_stretches() -> None:
    assert JobOptions(Inputs(("photos",)), "out.parquet", work="w").rows_in_shard == 100_096
    assert JobOptions(Inputs(("photos",)), "out.parquet", work="w", shard_size=300).rows_in_shard == 100_200
    assert JobOptions(Inputs(("photos",)), "out.parquet", work="w", shard="2/3").part == (2, 3)

"""The Lance dataset as output: it grows, nothing is lost and nothing is there twice, whoever is killed."""

from __future__ import annotations

import random
import re
import resource
import shutil
import signal
import subprocess
from datetime import timedelta
from functools import partial
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.records import Row, Shard
from clipsrv.bulk.run import run_job
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.stores import lance as store_of_lance
from clipsrv.bulk.stores.lance import LanceStore
from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.runtime.vectors import Vectors, unit
from tests.bulk.tool import SMALL, Embed, finish, lines, wait_until

FACTS = {"format": 1, "model": "m", "embedding_id": "e", "dimensions": 8}


def stored(out: Path) -> dict[str, Vectors]:
    table = lance.dataset(str(out)).to_table(columns=["id", "embedding"])
    rows = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    names = table.column("id").to_pylist()
    assert len(set(names)) == len(names), "a row is there twice"
    return dict(zip(names, rows, strict=True))


def count(out: Path) -> int:
    return lance.dataset(str(out)).count_rows() if any(out.glob("_versions/*.manifest")) else 0


def assert_same(found: dict[str, Vectors], expected: dict[str, Vectors]) -> None:
    assert sorted(found) == sorted(expected)
    for name, vector in found.items():
        np.testing.assert_allclose(vector, expected[name], rtol=0, atol=1e-6)


def test_six_kills_at_random_moments_change_nothing_in_lance(
    embed: Embed, many: Path, tmp_path: Path, expected: dict[str, Vectors]
) -> None:
    out = tmp_path / "x.lance"
    moments = random.Random(seed := random.randrange(1000))

    def reached(goal: int, process: subprocess.Popen[str]) -> bool:
        return count(out) >= goal or process.poll() is not None

    for _ in range(6):
        goal = count(out) + moments.randint(1, 120)
        process = embed.start(many, "--out", out, *SMALL)
        wait_until(partial(reached, goal, process))
        process.kill()
        status, said = finish(process)
        assert status == -signal.SIGKILL, f"seed {seed}: {said}"
    embed(many, "--out", out, *SMALL)
    assert_same(stored(out), expected)
    assert "989 rows" in (said := embed(many, "--out", out, *SMALL))
    assert "0 embedded, 989 stored before, 11 bad" in said
    assert len(lines(tmp_path / "x.lance.errors.jsonl")) == 11


def test_a_kill_while_pieces_are_joined_and_rows_taken_away_costs_only_doing_that_again(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.lance"
    embed(images, "--out", out, "--shard-size", 2)
    before = stored(out)
    for path in (images / "01.jpg", images / "more" / "03.jpg"):
        path.unlink()
    versions = len(list(out.glob("_versions/*.manifest")))
    for _ in range(3):
        process = embed.start(images, "--out", out, "--prune")
        wait_until(
            lambda: len(list(out.glob("_versions/*.manifest"))) > versions or process.poll() is not None  # noqa: B023
        )
        process.kill()
        finish(process)
    embed(images, "--out", out, "--prune")
    gone = {str(images / "01.jpg"), str(images / "more" / "03.jpg")}
    assert_same(stored(out), {name: vector for name, vector in before.items() if name not in gone})


def test_only_what_is_new_or_changed_is_embedded_and_what_is_gone_is_taken_away_when_asked(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.lance"
    args = (images, "--relative-to", images, "--out", out)
    assert "21 rows" in embed(*args)
    before = stored(out)
    shutil.copy(images / "02.jpg", images / "it's a \\ new.jpg")
    shutil.copy(images / "05.jpg", images / "02.jpg")
    (images / "04.jpg").write_bytes((images / "broken.jpg").read_bytes())
    (images / "07.jpg").rename(images / "moved.jpg")
    said = embed(*args)
    assert "0 embedded, 3 duplicates, 18 stored before, 3 bad" in said
    assert f"23 rows in {out}, 1 of no image named (--prune takes it away): 0" in said
    (images / "it's a \\ new.jpg").unlink()
    said = embed(*args, "--prune")
    assert "21 rows" in said
    assert "(2 taken away)" in said
    after = stored(out)
    assert sorted(after) == sorted({*before, "moved.jpg"} - {"07.jpg"})
    np.testing.assert_array_equal(after["02.jpg"], before["05.jpg"])
    np.testing.assert_array_equal(after["moved.jpg"], before["07.jpg"])
    np.testing.assert_array_equal(after["04.jpg"], before["04.jpg"])


def test_files_none_of_which_can_be_used_end_with_2_and_take_nothing_away(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.lance"
    assert "No image can be used" in embed(images / "broken.jpg", "--out", out, status=2)
    embed(images / "01.jpg", "--out", out)
    assert "No image can be used" in embed(images / "broken.jpg", "--out", out, "--prune", status=2)
    assert list(stored(out)) == [str(images / "01.jpg")]


def test_a_second_job_on_the_same_dataset_is_refused_while_the_first_runs(
    embed: Embed, many: Path, tmp_path: Path, expected: dict[str, Vectors]
) -> None:
    out = tmp_path / "x.lance"
    first = embed.start(many, "--out", out, "--shard-size", 40)
    wait_until(lambda: count(out) > 0)
    first.send_signal(signal.SIGSTOP)
    assert "Another job is at work" in embed(many, "--out", out, "--shard-size", 40, status=6)
    first.send_signal(signal.SIGCONT)
    assert finish(first)[0] == 0
    assert_same(stored(out), expected)


def test_what_a_dataset_cannot_do_is_said(embed: Embed, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.lance"
    embed(images / "01.jpg", "--out", out)
    assert "holds vectors of embedding_id" in embed(images, "--out", out, "--no-exif-orientation", status=6)
    for restart in (True, False):
        with pytest.raises(ConfigError, match="says itself what is done"):
            _run_here(images, out, restart=restart, as_listed=not restart)
    assert len(stored(out)) == 1


def test_pruning_is_for_what_grows(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--prune is for"):
        _run_here(images, tmp_path / "x.npy", prune=True)


def _run_here(images: Path, out: Path, *, restart: bool = False, as_listed: bool = False, prune: bool = False) -> int:
    """Begins a job in this process, to be refused before it opens a model."""
    inputs = Inputs((str(images),))
    options = JobOptions(inputs, str(out), restart=restart, as_listed=as_listed, prune=prune)
    return run_job(options, Config(), lambda: None)


def test_a_folder_or_dataset_of_somebody_else_is_left_alone(embed: Embed, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.lance"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    assert "holds precious.txt, which is nothing of Lance" in embed(images, "--out", out, status=6)
    lance.write_dataset(pa.table({"id": ["a"]}), str(tmp_path / "y.lance"))
    (tmp_path / "file.lance").write_text("mine")
    for name, complaint in (
        ("y.lance", "is no output of embed"),
        ("no/x.lance", "Cannot write to"),
        ("file.lance", "Cannot write to"),
    ):
        with pytest.raises(OutputError, match=complaint):
            LanceStore(tmp_path / name, FACTS, None)


def shard(number: int, rows: int, seed: int = 0) -> Shard:
    found = unit(np.random.default_rng(number + seed).standard_normal((rows, 8)))
    names = [f"{number}-{row}" for row in range(rows)]
    return Shard(number, [Row(name, name, f"{number:032x}{row + seed:032x}") for row, name in enumerate(names)], found)


def test_pieces_and_versions_do_not_grow_with_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_of_lance, "_SHARDS_APART", 4)
    monkeypatch.setattr(store_of_lance, "_ROWS", 20)
    monkeypatch.setattr(store_of_lance, "_KEPT", timedelta(0))
    store = LanceStore(tmp_path / "x.lance", FACTS, None)
    most = 0
    for number in range(60):
        store.write(shard(number, 3))
        if number % 5 == 0:
            store.write(shard(number, 3, seed=7))  # changed
        most = max(most, len(list((tmp_path / "x.lance" / "_versions").iterdir())))
    assert store.finish() == f"180 rows in {tmp_path / 'x.lance'}"
    store.close()
    assert most <= 10
    data = lance.dataset(str(tmp_path / "x.lance"))
    assert len(data.get_fragments()) <= 180 // 20 + 1
    assert len(list((tmp_path / "x.lance" / "data").iterdir())) == len(data.get_fragments())
    assert sorted(stored(tmp_path / "x.lance")) == sorted(f"{n}-{row}" for n in range(60) for row in range(3))


def test_what_a_killed_process_left_of_a_version_that_was_never_made_is_cleared_away(tmp_path: Path) -> None:
    out = tmp_path / "x.lance"
    store = LanceStore(out, FACTS, None)
    store.write(shard(0, 3))
    store.close()
    (out / "data" / "orphan.lance").write_bytes(b"half")
    store = LanceStore(out, FACTS, None)
    store.write(shard(1, 3))
    store.finish()
    store.close()
    assert not (out / "data" / "orphan.lance").exists()
    assert len(stored(out)) == 6


def test_a_first_shard_that_was_killed_half_way_is_begun_again(tmp_path: Path) -> None:
    out = tmp_path / "x.lance"
    for left in ("data", "_transactions", "_versions"):
        (out / left).mkdir(parents=True)
        store = LanceStore(out, FACTS, None)
        assert store.finish() == f"0 rows in {out}"
        store.close()
    store = LanceStore(out, FACTS, None)
    store.write(shard(0, 3))
    store.close()
    assert len(stored(out)) == 3


def test_a_dataset_that_is_damaged_is_refused_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "x.lance"
    store = LanceStore(out, FACTS, None)
    store.write(shard(0, 3))
    store.close()
    for path in out.glob("_versions/*.manifest"):
        path.write_bytes(b"x" * 20)
    with pytest.raises(OutputError, match=r"Cannot use .*x\.lance: [^/]*$"):
        LanceStore(out, FACTS, None)


@pytest.mark.parametrize("limit", [3_500, 8_000])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on_into_lance(
    embed: Embed, images: Path, tmp_path: Path, limit: int
) -> None:
    """First a shard does not fit, then perhaps what joins them."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "x.lance"
    said = embed(images, "--relative-to", images, "--out", out, "--shard-size", 4, status=6, before=small_files)
    assert re.search(r"Cannot use \S*x\.lance: .*File too large", said.splitlines()[-1])
    assert "21 rows" in embed(images, "--relative-to", images, "--out", out, "--shard-size", 4)
    assert len(stored(out)) == 21


def test_a_signal_finishes_the_shard_in_work_and_the_next_run_goes_on_into_lance(
    embed: Embed, many: Path, tmp_path: Path, expected: dict[str, Vectors]
) -> None:
    out = tmp_path / "x.lance"
    process = embed.start(many, "--out", out, "--shard-size", 40)
    wait_until(lambda: count(out) > 0)
    process.send_signal(signal.SIGTERM)
    status, said = finish(process)
    assert status == 128 + signal.SIGTERM
    assert "Interrupted" in said
    embed(many, "--out", out, "--shard-size", 40)
    assert_same(stored(out), expected)


def test_a_shard_that_finds_no_room_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "x.lance"
    store = LanceStore(out, FACTS, None)
    store.write(shard(0, 3))
    shutil.rmtree(out / "data")
    (out / "data").write_text("no folder")
    with pytest.raises(OutputError):
        store.write(shard(1, 3))
    store.close()

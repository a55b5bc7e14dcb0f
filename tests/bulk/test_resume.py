"""Any kill loses at most the shard in work: what comes out is what an uninterrupted run makes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.bulk.tool import SMALL, Embed, finish, ids, lines, shards, vectors, wait_until
from tests.support.model import write_model


def assert_same(out: Path, expected: Path) -> None:
    assert out.read_bytes() == expected.read_bytes()
    for what in ("ids", "errors"):
        assert lines(out.with_name(f"{out.name}.{what}.jsonl")) == lines(
            expected.with_name(f"{expected.name}.{what}.jsonl")
        )
    assert not out.with_name(f"{out.name}.parts").exists()


def test_six_kills_at_random_moments_change_nothing(
    embed: Embed, many: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out, seed = tmp_path / "out.npy", random.randrange(1000)
    moments = random.Random(seed)

    def reached(goal: int, process: subprocess.Popen[str]) -> bool:
        return shards(out) >= goal or process.poll() is not None

    for _ in range(6):
        before = shards(out)
        process = embed.start(many, "--out", out, *SMALL)
        goal = before + moments.randint(1, 16)
        wait_until(partial(reached, goal, process))
        process.kill()
        status, said = finish(process)
        assert status == -signal.SIGKILL, f"seed {seed}: {said}"
        assert shards(out) >= goal > before
        assert not out.exists()
    said = embed(many, "--out", out, *SMALL)
    assert_same(out, uninterrupted)
    stored = int(said.split(" stored before")[0].split()[-1].replace(",", ""))
    assert stored > 6 * 7, "the shards that were done should not be computed again"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_shard_in_work_and_says_so(
    embed: Embed, many: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out.npy"
    process = embed.start(many, "--out", out, *SMALL)
    wait_until(lambda: shards(out) >= 3)
    process.send_signal(number)
    status, said = finish(process)
    assert status == 128 + number
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert 3 <= shards(out) < 125
    embed(many, "--out", out, *SMALL)
    assert_same(out, uninterrupted)


def test_a_kill_while_the_output_is_put_together_costs_only_doing_that_again(
    embed: Embed, many: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npy"
    process = embed.start(many, "--out", out, *SMALL)
    wait_until(lambda: (tmp_path / "out.npy.ids.jsonl").exists() or process.poll() is not None)
    process.kill()
    finish(process)
    embed(many, "--out", out, *SMALL)
    assert_same(out, uninterrupted)


def test_a_finished_job_is_not_done_again(embed: Embed, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    embed(images, "--out", out)
    made = out.stat().st_mtime_ns
    assert "complete already" in embed(images, "--out", out)
    assert out.stat().st_mtime_ns == made


def test_other_inputs_are_refused_for_a_finished_output_until_told_to_restart(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npy"
    embed(images, "--out", out)
    shutil.copy(images / "01.jpg", images / "new.jpg")
    said = embed(images, "--out", out, status=6)
    assert "inputs was 23 images" in said
    assert "is 24 images" in said
    assert "--out x.lance, postgresql://" in said
    embed(images, "--out", out, "--restart")
    assert len(vectors(out)) == 22


@pytest.fixture
def unfinished(embed: Embed, images: Path, tmp_path: Path) -> Path:
    """An output whose job ended after two of its shards, at an image that --strict does not allow."""
    (images / "more" / "18.jpg").write_bytes(b"broken")
    for name in ("broken.jpg", "text.png"):
        (images / name).unlink()
    out = tmp_path / "out.npy"
    embed(images, "--out", out, *SMALL, "--strict", status=1)
    assert shards(out) == 2
    return out


def test_an_unfinished_job_refuses_other_inputs_and_goes_on_as_listed(
    embed: Embed, images: Path, unfinished: Path
) -> None:
    shutil.copy(images / "01.jpg", images / "new.jpg")
    said = embed(images, "--out", unfinished, *SMALL, status=6)
    assert "inputs was 21 images" in said
    assert "--as-listed" in said
    assert "--restart" in said
    assert shards(unfinished) == 2
    embed(images, "--out", unfinished, *SMALL, "--as-listed")
    assert not [name for name in ids(unfinished) if name.endswith("new.jpg")]
    assert len(vectors(unfinished)) == 20


def test_an_unfinished_job_refuses_another_model_and_other_options(
    embed: Embed, images: Path, unfinished: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "tiny", text=False, weight=2.0)
    manifest = tmp_path / "models" / "tiny" / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["source"]["weights_sha256"] = "1" * 64
    manifest.write_text(json.dumps(facts))
    args = (images, "--out", unfinished, *SMALL)
    assert "embedding_id was" in embed(*args, "--models-dir", tmp_path / "models", status=6)
    assert "preprocessing_id was" in embed(*args, "--no-exif-orientation", status=6)
    assert "max_batch_size was 8, is 4" in embed(*args, "--max-batch-size", 4, status=6)
    assert shards(unfinished) == 2


def test_a_damaged_shard_and_all_after_it_are_made_again(
    embed: Embed, images: Path, unfinished: Path, tmp_path: Path
) -> None:
    first = tmp_path / "out.npy.parts" / "000000.npy"
    first.write_bytes(first.read_bytes()[:-4])
    said = embed(images, "--out", unfinished, *SMALL)
    assert "19 embedded, 1 duplicate, 1 bad" in said
    embed(images, "--out", tmp_path / "whole.npy", *SMALL)
    assert unfinished.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_file_of_somebody_else_is_not_overwritten(embed: Embed, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    out.write_bytes(b"precious")
    assert "--restart" in embed(images, "--out", out, status=6)
    assert out.read_bytes() == b"precious"


def test_a_second_job_on_the_same_output_is_refused_while_the_first_runs(
    embed: Embed, many: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npy"
    first = embed.start(many, "--out", out, *SMALL)
    wait_until(lambda: shards(out) >= 1)
    first.send_signal(signal.SIGSTOP)
    assert "Another job is at work" in embed(many, "--out", out, *SMALL, status=6)
    first.send_signal(signal.SIGCONT)
    assert finish(first)[0] == 0
    assert_same(out, uninterrupted)

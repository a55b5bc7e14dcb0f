"""The converter killed, interrupted, out of disk, and twice at once: the folder is the old one, the new one or absent.

Each is the real command in its own process. CONVERSION_KILLS raises the number of kills (default 3).
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipsrv.manifest import load_manifest, verify_files
from tests.conversions.conftest import ROOT, command, environment

KILLS = int(os.environ.get("CONVERSION_KILLS", "3"))
pytestmark = pytest.mark.timeout(90 * KILLS + 600)


def start(
    checkpoint: Path, models: Path, *arguments: str, file_size: int = resource.RLIM_INFINITY
) -> subprocess.Popen[str]:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.Popen(
        command("--checkpoint", checkpoint, "--name", "m", "--models-dir", models, *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def finish(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    with process:
        errors = process.stderr.read()  # with what a wait for a stage has read ahead
    assert "Traceback" not in errors
    return errors


def wait_for(process: subprocess.Popen[str], stage: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if stage in line:
            return
    raise AssertionError(f"it never came to {stage!r}")


def assert_whole(models: Path) -> None:
    verify_files(models / "m", load_manifest(models / "m"))
    assert {path.name for path in models.iterdir()} == {"m", ".lock"}


@pytest.fixture
def converted(converted_model: Path, tmp_path: Path) -> Path:
    """A models folder holding an old conversion, told from a new one by its manifest."""
    shutil.copytree(converted_model, tmp_path / "models" / "m")
    return tmp_path / "models"


def test_killed_at_random_moments_it_leaves_the_old_model_and_the_next_run_completes(
    tiny_checkpoint: Path, converted: Path
) -> None:
    dice = random.Random(20)
    before = load_manifest(converted / "m")
    for _ in range(KILLS):
        process = start(tiny_checkpoint, converted, "--force")
        wait_for(process, dice.choice(["Reading", "Loading", "Exporting the vision", "Writing text", "Moving"]))
        time.sleep(dice.uniform(0, 0.5))
        process.kill()
        process.communicate()
        there = load_manifest(converted / "m")
        verify_files(converted / "m", there)
        assert there == before or there.created > before.created
    done = start(tiny_checkpoint, converted, "--force")
    assert "error" not in finish(done)
    assert done.returncode == 0
    assert load_manifest(converted / "m").created > before.created
    assert_whole(converted)


def test_killed_on_its_first_run_it_leaves_nothing_that_looks_like_a_model(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    process = start(tiny_checkpoint, tmp_path)
    wait_for(process, "Comparing the conversion")
    process.kill()
    process.communicate()
    assert not (tmp_path / "m").exists()
    done = start(tiny_checkpoint, tmp_path)
    finish(done)
    assert done.returncode == 0
    assert_whole(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cleans_up_and_says_so(tiny_checkpoint: Path, converted: Path, number: int) -> None:
    before = load_manifest(converted / "m")
    process = start(tiny_checkpoint, converted, "--force")
    wait_for(process, "Exporting the text")
    process.send_signal(number)
    assert finish(process).splitlines()[-1] == "Interrupted: no half-made model is left behind."
    assert process.returncode == 130
    assert load_manifest(converted / "m") == before
    assert_whole(converted)


def test_two_converters_of_one_model_do_the_work_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = start(tiny_checkpoint, tmp_path)
    wait_for(first, "Loading")
    second = start(tiny_checkpoint, tmp_path)
    assert "waiting for it" in finish(second)
    finish(first)
    assert (first.returncode, second.returncode) == (0, 0)
    assert_whole(tmp_path)


def test_the_second_converter_gives_up_with_status_6_when_its_wait_is_over(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    first = start(tiny_checkpoint, tmp_path)
    wait_for(first, "Loading")
    second = start(tiny_checkpoint, tmp_path, "--wait", "0")
    assert "Another conversion is writing" in finish(second)
    assert second.returncode == 6
    finish(first)
    assert_whole(tmp_path)


@pytest.mark.parametrize("limit", [10_000, 100_000, 1_000_000])
def test_a_file_that_cannot_grow_ends_with_status_6_and_the_old_model(
    tiny_checkpoint: Path, converted: Path, limit: int
) -> None:
    """RLIMIT_FSIZE, which needs no rights: the exporter's 1.3 MB cannot be written."""
    before = load_manifest(converted / "m")
    process = start(tiny_checkpoint, converted, "--force", file_size=limit)
    errors = finish(process)
    assert process.returncode == 6, errors
    assert errors.splitlines()[-1].startswith("error: ")
    assert load_manifest(converted / "m") == before
    assert_whole(converted)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a tmpfs of so many KiB."""
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        place = tmp_path / f"disk-{kib}"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", place], check=True)
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", place], check=True)


def fill_up(path: Path, left: int) -> None:
    """Takes all of the disk's space but about `left` bytes."""
    with path.open("wb", buffering=0) as file:
        while shutil.disk_usage(path).free > left and file.write(bytes(4096)):
            pass


def can_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
    )


# Mounting needs rights: without them the limit on the size of files above must do.
if can_mount():

    @pytest.mark.parametrize("kib", [400, 2400, 4000])
    def test_a_disk_that_is_too_small_is_refused_beforehand_with_status_6(
        tiny_checkpoint: Path, small_disk: Callable[[int], Path], kib: int
    ) -> None:
        disk = small_disk(kib)
        process = start(tiny_checkpoint, disk)
        errors = finish(process)
        assert process.returncode == 6, errors
        assert "disk" in errors.splitlines()[-1]
        assert {path.name for path in disk.iterdir()} == {".lock"}

    def test_a_disk_that_fills_up_under_way_ends_with_status_6_and_the_old_model(
        tiny_checkpoint: Path, converted_model: Path, small_disk: Callable[[int], Path]
    ) -> None:
        """Somebody else takes the space after the check: whatever write then fails, the old model stays."""
        graph, tokenizer = (
            (converted_model / name).stat().st_size for name in ("vision.fp32.onnx.data", "tokenizer.json")
        )
        for graphs, stage in ((0.5, "Exporting the vision tower"), (1.5, "Writing vision fp32")):
            disk = small_disk(12_000 + len(stage))
            shutil.copytree(converted_model, disk / "m")
            before = load_manifest(disk / "m")
            process = start(tiny_checkpoint, disk, "--force")
            wait_for(process, "Asking the original")  # behind the check of the space, long before anything is written
            process.send_signal(signal.SIGSTOP)
            fill_up(disk / "somebody-else", tokenizer + int(graphs * graph))
            process.send_signal(signal.SIGCONT)
            errors = finish(process)
            assert process.returncode == 6, errors
            assert "is full" in errors.splitlines()[-1]
            assert stage in errors.splitlines()[-2]
            (disk / "somebody-else").unlink()
            assert load_manifest(disk / "m") == before
            assert_whole(disk)

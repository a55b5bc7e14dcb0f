"""An image that a decoder does not finish ends the job once, and is left out from then on."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from clipsrv.bulk.deadline import Deadline
from tests.bulk.tool import Embed, finish, ids, lines, wait_until
from tests.support.postgres import Postgres

#: The command with a decoder that takes its time over files that begin with these bytes.
SLOW = b"slow "
PROGRAM = """
import sys, time, pathlib
from clipsrv.models import model
from clipsrv.cli import main
real = model.open_image
def open_image(blob, *args, **options):
    if bytes(blob[:5]) == b"slow ":
        pathlib.Path(sys.argv[1], "begun").touch()
        time.sleep(float(sys.argv[2]))
    return real(blob, *args, **options)
model.open_image = open_image
sys.exit(main(sys.argv[3:]))
"""


class SlowEmbed(Embed):
    """The command whose decoder needs `seconds` for a slow file, in the folder `place`."""

    def __init__(self, models_dir: Path, place: Path, seconds: float) -> None:
        super().__init__(models_dir)
        self._planted = [sys.executable, "-c", PROGRAM, str(place), str(seconds), "embed"]

    def _argv(self, args: tuple[object, ...]) -> list[str]:
        return [*self._planted, *super()._argv(args)[4:]]


@pytest.fixture
def stuck(models_dir: Path, images: Path, tmp_path: Path) -> SlowEmbed:
    """A command that never comes to the end of one image among the others."""
    (images / "03.jpg").write_bytes(SLOW)
    return SlowEmbed(models_dir, tmp_path, 3600)


def test_an_image_that_is_not_finished_is_named_and_the_next_run_goes_on_without_it(
    stuck: SlowEmbed, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npy"
    args = (images, "--relative-to", images, "--out", out, "--shard-size", 2, "--image-seconds", 3)
    said = stuck(*args, status=8)
    assert said.count("\n") == 1
    assert f"{images}/03.jpg took more than 3 s" in said
    assert not out.exists()
    stuck(*args)
    assert len(ids(out)) == 21
    bad = {line["id"]: line["code"] for line in lines(tmp_path / "out.npy.errors.jsonl")}
    assert bad == {"03.jpg": "took_too_long", "broken.jpg": "truncated_image", "text.png": "not_an_image"}
    assert not (tmp_path / "out.npy.parts").exists()


def test_a_table_goes_on_without_it_too_until_the_file_is_another(
    stuck: SlowEmbed, images: Path, postgres: Postgres, table: str, tmp_path: Path
) -> None:
    errors = tmp_path / "errors.jsonl"
    args = (images, "--out", postgres.url, "--table", table, "--errors", errors, "--image-seconds", 3)
    stuck(*args, status=8)
    stuck(*args)
    assert "took_too_long" in {line["code"] for line in lines(errors)}
    (images / "03.jpg").write_bytes((images / "01.jpg").read_bytes())
    stuck(*args)
    assert "took_too_long" not in {line["code"] for line in lines(errors)}
    assert postgres.query(f'SELECT count(*) FROM "{table}"') == [(22,)]


def test_time_in_which_the_process_was_stopped_does_not_count(models_dir: Path, images: Path, tmp_path: Path) -> None:
    (images / "03.jpg").write_bytes(SLOW)
    process = SlowEmbed(models_dir, tmp_path, 2).start(images, "--out", tmp_path / "out.npy", "--image-seconds", 6)
    wait_until((tmp_path / "begun").exists)
    process.send_signal(signal.SIGSTOP)
    time.sleep(7)
    process.send_signal(signal.SIGCONT)
    status, said = finish(process)
    assert status == 0, said


def test_work_that_ends_in_time_is_not_late_and_only_what_is_late_is_kept(tmp_path: Path) -> None:
    left: list[str] = []
    with closing(Deadline(0.5, tmp_path / "late", left.append)) as deadline, deadline.over("stays", "1"):
        for number in range(100):
            with deadline.over("quick", str(number)):
                pass
        wait_until(lambda: bool(left))
    assert left == ["stays"]
    with closing(Deadline(0, tmp_path / "late", left.append)) as deadline:
        assert deadline.was_late("1")
        assert not deadline.was_late("2")


def test_a_line_that_was_cut_short_harms_no_other(tmp_path: Path) -> None:
    (tmp_path / "late").write_bytes(b'{"path": "a", "sha256": "1"}\n{"path": "b", "sha')
    left: list[str] = []
    with closing(Deadline(0.1, tmp_path / "late", left.append)) as deadline, deadline.over("c", "3"):
        wait_until(lambda: bool(left))
    with closing(Deadline(0, tmp_path / "late", left.append)) as deadline:
        assert [deadline.was_late(sha256) for sha256 in "123"] == [True, False, True]


def test_where_nothing_can_be_kept_the_process_is_left_all_the_same(tmp_path: Path) -> None:
    left: list[str] = []
    with closing(Deadline(0.1, tmp_path / "absent" / "late", left.append)) as deadline, deadline.over("a", "1"):
        wait_until(lambda: bool(left))
    assert left == ["a"]

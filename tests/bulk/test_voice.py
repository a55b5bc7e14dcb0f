"""A job that nobody listens to does its work all the same, and its exit status says how it went."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clipsrv.bulk.voice import Voice
from tests.bulk.tool import Embed, vectors


def closing_streams(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


def full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def pipe_without_a_reader() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 2)


@pytest.mark.parametrize(
    "before",
    [
        closing_streams(2),
        closing_streams(1),
        closing_streams(0),
        closing_streams(0, 1, 2),
        full_disk,
        pipe_without_a_reader,
    ],
    ids=["stderr closed", "stdout closed", "stdin closed", "all closed", "full", "no reader"],
)
def test_standard_streams_that_cannot_be_used_do_no_harm(
    embed: Embed, images: Path, tmp_path: Path, before: Callable[[], None]
) -> None:
    embed(images, "--out", tmp_path / "out.npy", before=before)
    assert len(vectors(tmp_path / "out.npy")) == 21
    (tmp_path / "out.npy.manifest.json").unlink()
    embed(images, "--out", tmp_path / "out.npy", before=before, status=6)


def test_a_closed_standard_input_is_no_list(embed: Embed, tmp_path: Path) -> None:
    assert "Standard input is closed" in embed("-", "--out", tmp_path / "o.npy", before=closing_streams(0), status=2)


def test_what_a_library_prints_to_a_closed_stream_goes_into_no_file(tmp_path: Path) -> None:
    program = (
        "import os, sys; from clipsrv.cli import open_standard_streams as open_them; open_them();"
        f"file = open({str(tmp_path / 'file')!r}, 'w'); os.write(1, b'x'); os.write(2, b'x'); file.write('ours')"
    )
    subprocess.run([sys.executable, "-c", program], preexec_fn=closing_streams(1, 2), check=True)
    assert (tmp_path / "file").read_text() == "ours"


def test_a_stream_is_written_until_it_fails_and_then_left_alone() -> None:
    text = io.StringIO()
    Voice(text).write("heard")
    assert text.getvalue() == "heard"
    with closing(io.StringIO()) as closed:
        voice = Voice(closed)
    for _ in range(2):
        assert voice.write("unheard") == 7
        voice.flush()
        assert not voice.isatty()

"""What the embed command makes of files: the server's vectors in every format, each bad image with its reason."""

from __future__ import annotations

import json
import os
import re
import resource
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.bulk.tool import Embed, ids, lines, vectors
from tests.support.server import ServerProcess


def over_http(server: ServerProcess, path: Path) -> list[float]:
    request = Request(f"{server.url}/embed", path.read_bytes(), {"Content-Type": "application/octet-stream"})
    with urlopen(request) as response:
        found: list[float] = json.load(response)["embedding"]
        return found


def test_vectors_are_those_of_the_server(embed: Embed, images: Path, tmp_path: Path, server: ServerProcess) -> None:
    out = tmp_path / "out.npy"
    embed(images, "--out", out)
    expected = np.array([over_http(server, Path(name)) for name in ids(out)], np.float32)
    assert vectors(out).dtype == np.float32
    assert len(expected) == 21
    np.testing.assert_allclose(vectors(out), expected, rtol=0, atol=1e-6)


def test_every_format_holds_the_same_rows(embed: Embed, images: Path, tmp_path: Path) -> None:
    npy, jsonl, parquet = (tmp_path / f"out.{suffix}" for suffix in ("npy", "jsonl", "parquet"))
    for out in (npy, jsonl, parquet):
        embed(images, "--out", out, "--shard-size", 4)
    table = pq.read_table(parquet)
    assert [line["id"] for line in lines(jsonl)] == table["id"].to_pylist() == ids(npy)
    np.testing.assert_array_equal(np.array([line["embedding"] for line in lines(jsonl)], np.float32), vectors(npy))
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), vectors(npy))
    assert json.loads(table.schema.metadata[b"clipsrv"])["embedding_id"]
    assert json.loads((tmp_path / "out.npy.manifest.json").read_text())["rows"] == 21


def test_a_finished_job_leaves_no_parts(embed: Embed, images: Path, tmp_path: Path) -> None:
    embed(images, "--out", tmp_path / "out.npy")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("images", "out.npy", "out.npy.ids.jsonl", "out.npy.errors.jsonl", "out.npy.manifest.json")
    }


def test_bad_images_are_listed_with_their_reason_and_the_rest_is_embedded(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    said = embed(images, "--out", tmp_path / "out.npy")
    bad = {Path(line["path"]).name: line["code"] for line in lines(tmp_path / "out.npy.errors.jsonl")}
    assert bad == {"broken.jpg": "truncated_image", "text.png": "not_an_image"}
    assert "2 bad" in said


def test_the_same_content_is_embedded_once_and_both_ids_have_the_vector(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npy"
    said = embed(images, "--out", out, "--shard-size", 2, "--relative-to", images)
    assert "20 embedded, 1 duplicate, 2 bad" in said
    rows = dict(zip(ids(out), vectors(out), strict=True))
    np.testing.assert_array_equal(rows["02.jpg"], rows["copy.jpg"])


def test_strict_ends_at_a_bad_image_and_goes_on_once_it_is_mended(embed: Embed, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    said = embed(images, "--out", out, "--strict", "--shard-size", 4, status=1)
    assert "broken.jpg" in said
    assert not out.exists()
    for name in ("broken.jpg", "text.png"):
        (images / name).write_bytes((images / "01.jpg").read_bytes())
    embed(images, "--out", out, "--strict", "--shard-size", 4)
    assert len(vectors(out)) == 23
    assert not (tmp_path / "out.npy.errors.jsonl").exists()


def test_a_file_that_is_gone_a_pipe_and_a_folder_in_a_list_are_bad_images(
    embed: Embed, images: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    listed = [images / "01.jpg", images / "gone.jpg", tmp_path / "pipe.jpg", images]
    embed("-", "--out", tmp_path / "out.npy", stdin="\n".join(map(str, listed)).encode())
    bad = lines(tmp_path / "out.npy.errors.jsonl")
    assert [line["code"] for line in bad] == ["unreadable_file"] * 3
    assert len(vectors(tmp_path / "out.npy")) == 1


def test_a_name_that_is_not_utf_8_is_listed_and_harms_no_other(embed: Embed, images: Path, tmp_path: Path) -> None:
    os.rename(os.fsencode(images / "01.jpg"), os.fsencode(images) + b"/caf\xe9.jpg")
    embed(images, "--out", tmp_path / "out.parquet")
    bad = lines(tmp_path / "out.parquet.errors.jsonl")
    assert [line["path"] for line in bad if line["code"] == "invalid_name"] == [f"{images}/caf\\udce9.jpg"]
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 20


def test_quiet_says_nothing(embed: Embed, images: Path, tmp_path: Path) -> None:
    assert embed(images, "--out", tmp_path / "out.npy", "--quiet") == ""


@pytest.mark.parametrize(
    ("args", "status", "part"),
    [
        ((), 2, "No images are named"),
        (("missing.jpg",), 2, "There is no file or folder 'missing.jpg'"),
        (("missing-*.jpg",), 2, "Nothing matches"),
        (("setup.cfg", "--out", "a.csv"), 2, ".npy, .jsonl, .parquet"),
        (("setup.cfg", "--max-batch-size", "0"), 2, "--max-batch-size"),
        (("setup.cfg", "--model", "other"), 3, "No model 'other'"),
        (("setup.cfg", "--out", "nowhere/a.npy"), 6, "nowhere"),
        (("setup.cfg", "--out", "postgresql://localhost:1/none", "--patience", "0"), 6, "The database"),
        (("setup.cfg", "--out", "postgresql://localhost:1/none", "--table", "a;b"), 2, "--table"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_status(
    embed: Embed, tmp_path: Path, args: tuple[str, ...], status: int, part: str
) -> None:
    said = embed("--out", tmp_path / "out.npy", *args, status=status)
    assert part in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.jsonl"])
def test_files_none_of_which_can_be_used_end_with_2_and_the_first_reason_and_no_output(
    embed: Embed, images: Path, tmp_path: Path, name: str
) -> None:
    bad, out = images / "text.png", tmp_path / name
    for _ in range(2):
        said = embed(bad, images / "broken.jpg", "--out", out, "--shard-size", 1, "--quiet", status=2)
        assert said.startswith(f"clipsrv: No image can be used. {bad}: ")
        assert said.endswith(f" Reasons are in {out}.errors.jsonl.\n")
        assert said.count("\n") == 1
        assert len(lines(tmp_path / f"{name}.errors.jsonl")) == 2
        assert {path.name for path in tmp_path.iterdir()} == {"images", f"{name}.errors.jsonl"}
    bad.write_bytes((images / "01.jpg").read_bytes())
    assert "1 vector in" in embed(bad, images / "broken.jpg", "--out", out, "--shard-size", 1)
    kept = out.read_bytes()
    embed(images / "broken.jpg", "--out", out, "--restart", status=2)
    assert out.read_bytes() == kept


def test_where_no_image_is_found_is_told(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = embed(tmp_path / "empty", "--out", tmp_path / "out.npy", status=2)
    assert said == f"clipsrv: No image found in '{tmp_path}/empty'.\n"


def test_the_vectors_are_those_of_one_stream_however_many_compute(embed: Embed, images: Path, tmp_path: Path) -> None:
    one, many = tmp_path / "one.npy", tmp_path / "many.npy"
    args = (images, "--shard-size", 8, "--max-batch-size", 3, "--out")
    embed("--threads", 64, *args, one)
    embed("--threads", 1, *args, many)
    np.testing.assert_allclose(vectors(many), vectors(one), atol=1e-6)


@pytest.mark.parametrize("limit", [1_000, 3_000, 5_000])
def test_a_full_disk_is_one_line_and_loses_nothing(embed: Embed, images: Path, tmp_path: Path, limit: int) -> None:
    """First the list of files does not fit, then a part, then perhaps the output: it has 5,504 bytes."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out, whole = tmp_path / "out.npy", tmp_path / "whole.npy"
    args = (images, "--shard-size", 8)
    embed(*args, "--out", whole)
    said = embed(*args, "--out", out, status=6, before=small_files)
    assert re.search(r"out\.npy\S*: File too large\.$", said.splitlines()[-1])
    assert not out.exists()
    assert not list(tmp_path.rglob("*.tmp"))
    embed(*args, "--out", out)
    assert out.read_bytes() == whole.read_bytes()


def test_memory_stays_flat_however_many_the_images(embed: Embed, many: Path, tmp_path: Path) -> None:
    def peak(name: str, repeat: int) -> int:
        """Bytes resident at most, for `repeat` times the folder under other ids."""
        listed = tmp_path / f"{name}.jsonl"
        with listed.open("w") as file:
            for turn in range(repeat):
                for path in sorted(many.iterdir()):
                    file.write(json.dumps({"id": f"{turn} {path.name}", "path": str(path)}) + "\n")
        process = embed.start("--files-from", listed, "--out", tmp_path / f"{name}.npy")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.communicate()
        assert process.returncode == 0
        return usage.ru_maxrss * 1024

    assert peak("twenty", 20) - peak("one", 1) < 24 * 2**20

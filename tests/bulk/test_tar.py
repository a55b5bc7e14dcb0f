"""Images in tar files: which are found under which ids, how they are read, and what becomes of damaged tars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.sources.reader import Fetching
from clipsrv.errors import ConfigError, ImageTooLargeError
from tests.bulk.tool import Embed, ids, lines
from tests.support.photos import cuttings
from tests.support.s3 import Bucket, s3_server
from tests.support.website import website

LONG = f"{'folder/' * 40}long.png"
SAMPLES = {
    "./0001.jpg": b"one",
    "./0001.json": b"{}",
    "0002.left.jpg": b"left",
    "0002.right.JPG": b"right",
    "0002.txt": b"text",
    "a.b/0003.webp": b"three",
    "._0001.jpg": b"hidden",
    ".cache/x.jpg": b"hidden",
    "notes.txt": b"text",
    "é#1%.png": b"marks",
    LONG: b"long" * 200,
    "empty.png": b"",
}
KEYS = ["0001", "0002.left.jpg", "0002.right.JPG", "a.b/0003", "é#1%", LONG.removesuffix(".png"), "empty"]
BODIES = [b"one", b"left", b"right", b"three", b"marks", b"long" * 200, b""]


def tar_of(members: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name, body in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(body)
            tar.addfile(header, io.BytesIO(body))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return made.getvalue()


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The samples in a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("s.tar").write_bytes(tar_of(SAMPLES))
    return Path("s.tar")


def entries(*paths: str) -> tuple[list[Entry], list[BadFile]]:
    found = list(Inputs(paths).entries())
    return [one for one in found if isinstance(one, Entry)], [one for one in found if isinstance(one, BadFile)]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_images_are_found_by_the_key_of_their_sample_and_each_is_read_by_itself(shard: Path, form: int) -> None:
    shard.write_bytes(tar_of(SAMPLES, form))
    good, bad = entries("s.tar")
    assert [one.id for one in good] == [f"s.tar/{key}" for key in KEYS]
    assert [one.size for one in good] == [len(body) for body in BODIES]
    assert [Inputs([]).read(one.path, 10_000) for one in reversed(good)] == BODIES[::-1]
    assert not bad


def test_a_glob_of_tars_is_gone_through_in_order_and_a_folder_has_none(shard: Path) -> None:
    Path("t.tar").write_bytes(tar_of({"0001.jpg": b"other"}))
    assert [one.id for one in entries("[st].tar")[0]][-2:] == ["s.tar/empty", "t.tar/0001"]
    assert entries(".") == ([], [])


def test_a_member_that_is_too_large_is_not_read(shard: Path) -> None:
    (one, *_), _ = entries("s.tar")
    with pytest.raises(ImageTooLargeError):
        Inputs([]).read(one.path, 2)


def test_a_tar_that_is_another_by_now_gives_no_other_image(shard: Path) -> None:
    good, _ = entries("s.tar")
    shard.write_bytes(tar_of({f"x{name[1:]}" if len(name) < 20 else name: body for name, body in SAMPLES.items()}))
    with pytest.raises(FetchError, match="has changed"):
        Inputs([]).read(good[1].path, 10_000)
    shard.write_bytes(b"")
    with pytest.raises(FetchError, match="has changed"):
        Inputs([]).read(good[0].path, 10_000)
    for path in ("tar://", "tar://1+2@", "tar://9+9@s.tar#", f"tar://{'9' * 30}+1@s.tar#a"):
        with pytest.raises(FetchError):
            Inputs([]).read(path, 10_000)


def test_a_tar_that_is_cut_short_or_damaged_anywhere_gives_what_comes_before_and_a_bad_row(shard: Path) -> None:
    whole = tar_of({f"{number}.jpg": bytes([number]) * 700 for number in range(4)})
    places = [*range(0, 7_000, 333), 512, 1_024, 2_048, len(whole) - 10_240]
    for place in places:
        for damaged in (whole[:place], whole[:place] + b"\xff" * 600 + whole[place + 600 :]):
            shard.write_bytes(damaged)
            good, bad = entries("s.tar")
            for one in good:
                try:
                    body = Inputs([]).read(one.path, 10_000)
                except FetchError as error:
                    assert error.code == "bad_archive"
                else:
                    number = int(one.id[-1])
                    assert body == bytes([number]) * 700 or b"\xff" in body
            assert len(good) == 4 or [one.code for one in bad] == ["bad_archive"], place


def test_what_is_no_tar_or_asks_for_more_memory_than_a_header_has_is_a_bad_row(shard: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 5 << 30
    for body in (b"", b"no tar" * 200, b"\x1f\x8b" + bytes(2_000), header.tobuf()):
        shard.write_bytes(body)
        assert [one.code for one in entries("s.tar")[1]] == ["bad_archive"]
    shard.write_bytes(bytes(10_240))
    assert entries("s.tar") == ([], [])
    with pytest.raises(ConfigError):
        entries("gone.tar")


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patched, s3_server(patched):
        made = Bucket("tars")
        made.put({"train/s.tar": tar_of(SAMPLES), "train/cut.tar": tar_of(SAMPLES)[:2_000]})
        yield made


def test_tars_in_a_store_and_behind_a_url_are_read_by_ranges(bucket: Bucket) -> None:
    good, bad = entries("s3://tars/train/*.tar")
    assert [one.id.rpartition(".tar/")[2] for one in good][-7:] == KEYS
    assert [Inputs([]).read(one.path, 10_000) for one in good[-7:]] == BODIES
    assert [(one.id, one.code) for one in bad] == [("s3://tars/train/cut.tar", "bad_archive")]
    with website({"s.tar": tar_of(SAMPLES)}) as site:
        inputs = Inputs([f"{site.url}/s.tar"], fetching=Fetching(allow_private=True))
        there = [one for one in inputs.entries() if isinstance(one, Entry)]
        assert [inputs.read(one.path, 10_000) for one in there] == BODIES
        inputs.close()


def test_the_vectors_are_those_of_the_files(embed: Embed, tmp_path: Path) -> None:
    blobs = {f"{number}.jpg": blob for number, blob in enumerate(cuttings(6))}
    (tmp_path / "files").mkdir()
    for name, blob in blobs.items():
        (tmp_path / "files" / name).write_bytes(blob)
    (tmp_path / "s.tar").write_bytes(tar_of({**blobs, "x.jpg": b"no image"}).rstrip(b"\0"))
    embed(tmp_path / "s.tar", "--relative-to", tmp_path, "--out", tmp_path / "tar.npy")
    embed(tmp_path / "files", "--out", tmp_path / "files.npy")
    assert (tmp_path / "tar.npy").read_bytes() == (tmp_path / "files.npy").read_bytes()
    assert ids(tmp_path / "tar.npy") == [f"s.tar/{number}" for number in range(6)]
    codes = {line["id"]: line["code"] for line in lines(tmp_path / "tar.npy.errors.jsonl")}
    assert codes == {"s.tar/x": "not_an_image", "s.tar": "bad_archive"}

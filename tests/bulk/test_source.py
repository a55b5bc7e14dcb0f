"""Which images are found, in which order, under which ids."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.sources.listing import read_listing, write_listing
from clipsrv.errors import ConfigError, ImageTooLargeError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.jpg b/c.PNG b/d.webp z.jpeg, and names that are not taken; the working directory is beside them."""
    for name in ("z.jpeg", "a.jpg", "b/c.PNG", "b/d.webp", "notes.txt", ".hidden.jpg", ".cache/x.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths: str, **options: Any) -> list[str]:
    return [entry.id for entry in Inputs(paths, **options).entries()]


def test_a_folder_gives_its_images_by_name_without_hidden_ones_and_links_to_folders(folder: Path) -> None:
    assert found("in") == ["in/a.jpg", "in/b/c.PNG", "in/b/d.webp", "in/z.jpeg"]


def test_a_file_named_by_itself_is_taken_whatever_its_name(folder: Path) -> None:
    assert found("in/notes.txt") == ["in/notes.txt"]


def test_globs_are_expanded_in_order_and_folders_among_the_matches_entered(folder: Path) -> None:
    assert found("in/[ab]*") == ["in/a.jpg", "in/b/c.PNG", "in/b/d.webp"]
    assert found("in/**/*.webp") == ["in/b/d.webp"]
    assert found("in/*.jpg") == ["in/a.jpg"]
    assert found("in/.h*") == ["in/.hidden.jpg"]


def test_ids_can_be_relative_to_a_folder(folder: Path) -> None:
    assert found(str(folder / "in"), relative_to="in") == ["a.jpg", "b/c.PNG", "b/d.webp", "z.jpeg"]


def test_a_listing_gives_back_its_entries_from_any_place(tmp_path: Path) -> None:
    entries = [Entry(f"{number}\n", os.fsdecode(b"\xff%d" % number)) for number in range(5)]
    listing = write_listing(entries, tmp_path / "list")
    assert list(listing.entries(3)) == entries[3:]
    assert read_listing(tmp_path / "list") == listing


def test_a_listing_keeps_size_and_etag_and_of_entries_without_them_its_old_form(tmp_path: Path) -> None:
    entries = [Entry("1", "a.jpg"), Entry("2", "s3://b/k.jpg", 70, "e"), Entry("3", "x", 0), Entry("4", "y", None, "z")]
    assert list(write_listing(entries, tmp_path / "list").entries()) == entries
    assert (tmp_path / "list").read_bytes().startswith(b'["1", "a.jpg"]\n["2", "s3://b/k.jpg", [70, "e"]]\n')


def test_what_was_asked_for_travels_to_other_processes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    inputs = pickle.loads(pickle.dumps(Inputs([str(tmp_path / "a.jpg")], ["list"], relative_to=str(tmp_path))))
    assert inputs == Inputs([str(tmp_path / "a.jpg")], ["list"], relative_to=str(tmp_path))
    assert inputs.read(str(tmp_path / "a.jpg"), 100) == b"bytes"


def test_of_entries_with_one_id_the_first_counts_at_any_distance(tmp_path: Path) -> None:
    between = [Entry(str(number), "x.jpg") for number in range(3, 3000)]
    entries = [Entry("1", "a.jpg"), Entry("2", "b.jpg"), *between, Entry("1", "c.jpg"), Entry("2", "b.jpg")]
    listing = write_listing(entries, tmp_path / "list")
    *others, last = listing.entries()
    assert others == entries[:-2]
    assert isinstance(last, BadFile)
    assert (last.id, last.path, last.code) == ("1", "c.jpg", "duplicate_id")
    assert "a.jpg" in last.message


def test_ids_that_are_no_unicode_are_told_apart(tmp_path: Path) -> None:
    entries = [
        Entry("s\ud800", "a.jpg"),
        Entry("s\ud801", "b.jpg"),
        Entry("s\ufffd", "c.jpg"),
        Entry("s\udc80", "d.jpg"),
    ]
    assert list(write_listing(entries, tmp_path / "list").entries()) == entries


def test_bad_entries_keep_their_place(tmp_path: Path) -> None:
    entries: list[Entry | BadFile] = [
        Entry("1", "a.jpg"),
        BadFile("", "list, line 2", "bad_entry", "no id"),
        Entry("2", "b.jpg"),
    ]
    listing = write_listing(entries, tmp_path / "list")
    assert (listing.count, list(listing.entries())) == (3, entries)
    assert read_listing(tmp_path / "list") == listing


def test_nothing_found_is_refused_and_nothing_usable_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No image found in what was named"):
        write_listing(Inputs([str(tmp_path)]).entries(), tmp_path / "list")
    bad = [BadFile("", f"goods, line {number}", "bad_entry", "no id; its keys are: sku") for number in (1, 2)]
    with pytest.raises(ConfigError, match="goods, line 1: no id; its keys are: sku"):
        write_listing(bad, tmp_path / "list")


def test_what_was_named_is_told_in_few_words() -> None:
    assert Inputs(["empty"]).in_words == "'empty'"
    assert Inputs(["a", "-"], ["list"]).in_words == "'a', standard input, 'list'"
    assert Inputs(["a", "b", "c", "d"], ["list"]).in_words == "'a', 'b', 'c' and 2 more"


def test_what_is_not_a_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        for name in ("pipe.jpg", "endless.jpg", "socket.jpg", "/dev/null", "."):
            with pytest.raises((OSError, ValueError)):
                Inputs([]).read(str(tmp_path / name), 100)


def test_a_file_is_read_to_one_byte_over_the_limit_whatever_its_size_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 101)
    with pytest.raises(ImageTooLargeError):
        Inputs([]).read(str(tmp_path / "a"), 100)
    assert len(Inputs([]).read("/proc/self/pagemap", 100)) == 101  # it says 0 bytes and has no end

"""Which images are found, in which order, under which ids."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from clipsrv.bulk.records import Entry
from clipsrv.bulk.sources.listing import read_listing, write_listing
from clipsrv.bulk.sources.local import Inputs
from clipsrv.errors import ConfigError


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


def found(*paths: str, **options: object) -> list[str]:
    return [entry.id for entry in Inputs(paths, **options).entries()]  # type: ignore[arg-type]


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


def test_a_list_holds_paths_and_objects_with_an_id(folder: Path) -> None:
    Path("list").write_text('in/a.jpg\r\n\n{"id": 42, "path": "in/z.jpeg"}\nlast')
    entries = list(Inputs((), ["list"]).entries())
    assert entries == [Entry("in/a.jpg", "in/a.jpg"), Entry("42", "in/z.jpeg"), Entry("last", "last")]


def test_paths_that_end_in_nul_may_hold_anything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"with\nnewline.jpg\0{braces}.jpg\0caf\xe9.jpg\0"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert found("-", null=True) == ["with\nnewline.jpg", "{braces}.jpg", os.fsdecode(b"caf\xe9.jpg")]


@pytest.mark.parametrize(
    "line", ['{"id": 1}', '{"path": "a"}', '{"id": true, "path": "a"}', "{", '{"id": 1, "path": ""}']
)
def test_an_object_that_is_not_an_entry_is_refused_with_its_line(folder: Path, line: str) -> None:
    Path("list").write_text(f"a.jpg\n{line}\n")
    with pytest.raises(ConfigError, match="list, line 2"):
        list(Inputs((), ["list"]).entries())


def test_a_listing_gives_back_its_entries_from_any_place(tmp_path: Path) -> None:
    entries = [Entry(f"{number}\n", os.fsdecode(b"\xff%d" % number)) for number in range(5)]
    listing = write_listing(entries, tmp_path / "list")
    assert list(listing.entries(3)) == entries[3:]
    assert read_listing(tmp_path / "list") == listing


def test_an_id_met_again_counts_once_and_may_not_stand_for_another_path(tmp_path: Path) -> None:
    same, other = Entry("1", "a.jpg"), Entry("1", "b.jpg")
    assert write_listing([same, same], tmp_path / "list").count == 1
    with pytest.raises(ConfigError, match=r"'1' stands for 'a\.jpg' and 'b\.jpg'"):
        write_listing([same, other], tmp_path / "list")


def test_nothing_found_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No image"):
        write_listing(Inputs([str(tmp_path)]).entries(), tmp_path / "list")

"""What a list of images may look like, and what is made of lines that name none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(content: bytes, **options: object) -> list[Entry | BadFile]:
    Path("list").write_bytes(content)
    return list(Inputs((), ["list"], **options).entries())  # type: ignore[arg-type]


def paths(*names: str) -> list[Entry]:
    return [Entry(name, name) for name in names]


def test_a_list_holds_paths_and_objects_with_an_id() -> None:
    found = listed(b'in/a.jpg\r\n\n{"id": 42, "path": "in/z.jpeg"}\nlast')
    assert found == [Entry("in/a.jpg", "in/a.jpg"), Entry("42", "in/z.jpeg"), Entry("last", "last")]


def test_paths_that_end_in_nul_may_hold_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"with\nnewline.jpg\0{braces}.jpg\0caf\xe9.jpg\0"))
    monkeypatch.setattr("sys.stdin", stdin)
    found = list(Inputs(["-"], null=True).entries())
    assert found == paths("with\nnewline.jpg", "{braces}.jpg", os.fsdecode(b"caf\xe9.jpg"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-sig", "utf-16-be-sig"])
def test_a_byte_order_mark_tells_the_encoding_and_is_no_part_of_the_first_name(encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("le-sig") or encoding.endswith("be-sig") else ""
    lines = 'ph/a.png\r\n{"id": "赤", "path": "ph/赤.png"}\r\nph/b.png\r\n'
    content = (mark + lines).encode(encoding.removesuffix("-sig") if mark else encoding)
    assert listed(content) == [*paths("ph/a.png"), Entry("赤", "ph/赤.png"), *paths("ph/b.png")]
    first = (mark + lines.split("\r\n", 1)[1]).encode(encoding.removesuffix("-sig") if mark else encoding)
    assert listed(first)[0] == Entry("赤", "ph/赤.png")


def test_files_with_marks_that_were_joined_lose_no_object() -> None:
    one = '{"id": "1", "path": "a.png"}\n'.encode("utf-8-sig")
    assert listed(one + one.replace(b'"1"', b'"2"')) == [Entry("1", "a.png"), Entry("2", "a.png")]


@pytest.mark.parametrize("encoding", ["cp932", "utf-16-le", "latin-1"])
def test_an_encoding_that_is_named_is_used(encoding: str) -> None:
    name = "é.jpg" if encoding == "latin-1" else "表.jpg"  # its second byte in cp932 is a backslash
    found = listed(f'{name}\r\n{{"id": "{name}", "path": "x.jpg"}}\n'.encode(encoding), encoding=encoding)
    assert found == [*paths(name), Entry(name, "x.jpg")]


def test_without_an_encoding_names_are_the_bytes_of_the_system() -> None:
    assert listed(b"caf\xe9.jpg\n") == paths(os.fsdecode(b"caf\xe9.jpg"))


def test_what_cannot_be_read_as_named_is_refused_up_front() -> None:
    for content, options, reason in (
        ("a.jpg\n".encode("utf-16-le"), {}, "-0 if its names end in NUL, --encoding utf-16-le"),
        (b"a.jpg\0b.jpg\0", {}, "-0 if its names end in NUL"),
        (b"a.jpg\n\x81\x20.jpg\n", {"encoding": "cp932"}, "is not text in cp932"),
        (b"\xff\xfea.jpg", {}, "is not text in utf-16-le"),
        (b"x" * (2**20 + 70_000), {}, "a line of more than 1,048,576 bytes"),
    ):
        with pytest.raises(ConfigError, match=reason):
            listed(content, **options)
    for encoding in ("utf-9", "base64", "\0"):
        with pytest.raises(ConfigError, match="--encoding"):
            Inputs((), ["list"], encoding=encoding)
    with pytest.raises(ConfigError, match="Cannot read the list absent: No such file"):
        list(Inputs((), ["absent"]).entries())


def test_a_list_without_end_is_refused() -> None:
    with pytest.raises(ConfigError):
        list(Inputs((), ["/dev/zero"]).entries())
    with pytest.raises(ConfigError, match="a line of more than"):
        list(Inputs((), ["/dev/zero"], null=False, encoding="latin-1").entries())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": 1}', "no path; its keys are: id"),
        ('{"sku": 1, "file": "a.jpg"}', "no id and no path; its keys are: sku, file"),
        ("{}", "its keys are: none"),
        ("{", 'must be like {"id"'),
        ('{"id": 1, "path": "a"} x', 'must be like {"id"'),
        ("{" * 100_000, 'must be like {"id"'),
        ('{"id": 1' + "0" * 5000 + ', "path": "a"}', 'must be like {"id"'),
        *(
            (f'{{"id": {value}, "path": "a"}}', "id must be a string")
            for value in ("true", "null", "[]", "{}", '""', "1.5")
        ),
        *((f'{{"id": {value}, "path": "a"}}', "id must be a string") for value in ("NaN", "1e300")),
        *((f'{{"id": 1, "path": {value}}}', "path must be a string") for value in ("null", "5", '""', "[]")),
    ],
)
def test_a_line_that_names_no_image_is_a_bad_entry_with_its_place_and_stops_nothing(line: str, reason: str) -> None:
    first, bad, last = listed(f"a.jpg\n{line}\nb.jpg\n".encode())
    assert [first, last] == paths("a.jpg", "b.jpg")
    assert isinstance(bad, BadFile)
    assert (bad.code, bad.path) == ("bad_entry", "list, line 2")
    assert reason in bad.message


def test_ids_are_texts_and_whole_numbers_as_they_are() -> None:
    values = {
        "7": "7",
        '"07"': "07",
        "42.0": "42",
        "-3": "-3",
        "12345678901234567890": "12345678901234567890",
        '"é"': "é",
    }
    content = "".join(f'{{"id": {value}, "path": "a"}}\n' for value in values)
    assert [entry.id for entry in listed(content.encode())] == list(values.values())

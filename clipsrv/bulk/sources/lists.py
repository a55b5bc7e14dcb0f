"""Lists of images, a line or a NUL-ended name each, in whatever encoding they were saved. Opens no image."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

from clipsrv.bulk.records import BadFile, Entry, bad_file
from clipsrv.bulk.sources.columns import entry_of, identity_of
from clipsrv.errors import ConfigError

STDIN = "-"
#: No line of a list is longer, in bytes: what is longer is no list, and would be held in memory.
LONGEST_LINE = 2**20
_BLOCK = 1 << 16
#: The marks that editors put at the beginning of a text, and what follows them.
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def check_encoding(encoding: str | None) -> None:
    """Raises ConfigError unless `encoding` is None or the name of a text encoding."""
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, ValueError):
        raise ConfigError(f"--encoding {encoding!r} is none that is known here: utf-16, cp932 and such.") from None


def read_list(
    name: str, *, null: bool = False, encoding: str | None = None, columns: tuple[str, str] = ("id", "path")
) -> Iterator[str | Entry | BadFile]:
    """What the lines of the list `name` are: paths, entries with an id of their own, or neither.

    Without `encoding` a mark at the beginning tells it, and else paths are the bytes that the system knows them by.
    `null`: names end in NUL and are nothing but paths. `columns` are the keys of objects. Raises ConfigError for a list
    that cannot be read.
    """
    shown = "standard input" if name == STDIN else name
    if name == STDIN and sys.stdin is None:
        raise ConfigError("Standard input is closed: there is no list to read.")
    try:
        with nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb") as file:
            for number, item in enumerate(
                _split(_utf8(file, shown, null, encoding), b"\0" if null else b"\n", shown), 1
            ):
                text = os.fsdecode(item if null else item.rstrip(b"\r"))
                if null:
                    yield text
                elif text.removeprefix("\ufeff").startswith("{"):  # a mark: files with one were joined
                    yield _parse_object(text.removeprefix("\ufeff"), columns, f"{shown}, line {number}")
                elif text:
                    yield text
    except OSError as error:
        raise ConfigError(f"Cannot read the list {shown}: {error.strerror}.") from None


def _utf8(file: BinaryIO, shown: str, null: bool, encoding: str | None) -> Iterator[bytes]:
    """The file in blocks of UTF-8 without a mark, or as it is where its encoding is neither given nor marked."""
    first = file.read(_BLOCK)
    marks = () if null and not encoding else _MARKS  # what find -print0 writes is names and nothing else
    mark, marked = next(((mark, name) for mark, name in marks if first.startswith(mark)), (b"", encoding))
    blocks = chain([first[len(mark) :]], iter(partial(file.read, _BLOCK), b""))
    if not marked and not null and b"\0" in first:
        cure = "-0 if its names end in NUL, --encoding utf-16-le or utf-16-be if it is UTF-16"
        raise ConfigError(f"The list {shown} holds NUL bytes: give {cure}.")
    if not marked or mark == codecs.BOM_UTF8:
        yield from blocks
        return
    try:
        yield from map(str.encode, codecs.iterdecode(blocks, marked))
    except UnicodeError as error:
        raise ConfigError(f"The list {shown} is not text in {marked}: {error}.") from None


def _split(blocks: Iterator[bytes], end: bytes, shown: str) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(end)
        yield from whole
        if len(rest) > LONGEST_LINE:
            raise ConfigError(f"{shown} has a line of more than {LONGEST_LINE:,} bytes: that is no list of images.")
    if rest:
        yield rest


def _parse_object(text: str, columns: tuple[str, str], where: str) -> Entry | BadFile:
    identity, image = columns
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError):
        shape = json.dumps({identity: "42", image: "a.jpg"})
        return _bad_entry("", where, f"a line that begins with {{ must be like {shape}")
    if missing := [name for name in columns if name not in record]:
        found = ", ".join(list(record)[:20])
        known = identity_of(record.get(identity)) or ""
        return _bad_entry(known, where, f"no {' and no '.join(missing)}; its keys are: {found or 'none'}")
    return entry_of(record[identity], record[image], columns, where)


def _bad_entry(identity: str, where: str, message: str) -> BadFile:
    return bad_file(Entry(identity, where), "bad_entry", message)

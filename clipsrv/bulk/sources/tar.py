"""Images in tar files, as WebDataset writes them: which members are images, and one of them by where it lies.

A tar is gone through once, header by header, to list it; a member is then one range of it. Knows not where tars lie.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from clipsrv.bulk.contract import IMAGE_SUFFIXES
from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.sources.ranges import Part, Ranges
from clipsrv.errors import ImageTooLargeError

#: The end of a tar's name. Members of a compressed one cannot be read by themselves.
SUFFIX = ".tar"

_PATH = re.compile(r"tar://(\d{1,18})\+(\d{1,18})@(.+)#([^#]*)", re.DOTALL)
_BLOCK = tarfile.BLOCKSIZE
_AHEAD = 1 << 18
#: Bytes of a header with all that extends it; more would be held in memory for nothing.
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class Member:
    """An image: `name` in the tar, where its bytes begin, how many there are, and its `key` among the tar's images."""

    name: str
    key: str
    offset: int
    size: int

    def path(self, tar: str) -> str:
        """What it is read by."""
        return f"tar://{self.offset}+{self.size}@{tar}#{quote(self.name, safe=_KEPT, errors='surrogatepass')}"


#: What stands in a path as it is; the rest of ASCII, and the mark itself, does not.
_KEPT = "".join(map(chr, range(0x20, 0x7F))).replace("#", "").replace("%", "")


def is_member(path: str) -> bool:
    """Whether `path` is that of a member."""
    return path.startswith("tar://")


def images_in(part: Part) -> Iterator[Member]:
    """The images of a tar in its order. Its key names a sample's image; where there are several, the whole name does.

    Raises FetchError bad_archive where the tar is damaged or cut short, after what comes before.
    """
    sample: list[Member] = []
    damage = None
    try:
        for member in _members(part):
            key = _key(member.name)
            if sample and sample[0].key != key:
                yield from _told_apart(sample)
                sample = []
            if _is_image(member.name):
                sample.append(Member(member.name, key, member.offset_data, member.size))
    except FetchError as error:
        damage = error
    yield from _told_apart(sample)
    if damage is not None:
        raise damage


def read_member(path: str, max_bytes: int, part: Callable[[str, int, int], bytes]) -> bytes:
    """The bytes of the member of this path. Raises FetchError bad_archive if another lies there by now."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise FetchError("bad_archive", "That is no path of an image in a tar file.")
    offset, size, name = int(found[1]), int(found[2]), unquote(found[4], errors="surrogatepass")
    if size > max_bytes:
        raise ImageTooLargeError(f"The image has {size:,} bytes; at most {max_bytes:,} are accepted.", limit=max_bytes)
    block = part(found[3], max(0, offset - _BLOCK), size + min(offset, _BLOCK))
    if not _is_header_of(block[:_BLOCK], name, size):
        raise FetchError("bad_archive", "The tar file has changed since it was listed: run the job again.")
    if len(block) < _BLOCK + size:
        raise FetchError("bad_archive", "The tar file ends within the image.")
    return block[_BLOCK:]


def _members(part: Part) -> Iterator[tarfile.TarInfo]:
    file: Any = _Bounded(Ranges.buffered(part, _AHEAD))  # no class of tarfile's, but all that it calls
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            kept: list[tarfile.TarInfo] = vars(tar)["members"]  # of a listing of millions it would keep every one
            while (member := tar.next()) is not None:
                kept.clear()
                if member.isreg() and not member.issparse():
                    yield member
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise FetchError("bad_archive", f"The tar file is damaged or cut short: {error}.") from None
    # tarfile takes whatever it cannot read for the end.
    if part(end, _BLOCK) != bytes(_BLOCK):
        raise FetchError("bad_archive", f"The tar file is damaged or cut short at byte {end:,}.")


def _told_apart(sample: list[Member]) -> list[Member]:
    return sample if len(sample) == 1 else [replace(one, key=one.name.removeprefix("./")) for one in sample]


def _key(name: str) -> str:
    """WebDataset's: the name up to the first dot after the last slash."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    return folder + slash + base.partition(".")[0]


def _is_image(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.removeprefix("./").split("/"))
    return not hidden and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _is_header_of(block: bytes, name: str, size: int) -> bool:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    short = name.isascii() and len(name) < tarfile.LENGTH_NAME  # longer ones stand in blocks before it
    return header.size == size and (header.name == name or not short)


class _Bounded:
    """What tarfile sees of the file: no header, whatever it says, makes it read more than a header has."""

    def __init__(self, file: io.BufferedReader[Any]) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)

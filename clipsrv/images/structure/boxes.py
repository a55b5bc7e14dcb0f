"""The boxes of AVIF and HEIC (ISO/IEC 14496-12, 23008-12): items, their properties and where their data lies.

Every list is counted before it is read: decoders take quadratic time over long ones.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from struct import unpack_from

from clipsrv.images.structure.header import Count, Size, damaged, within

#: libheif's own limit of items; a photo of 48 megapixels takes some 200.
MAX_ITEMS = 1000
MAX_BOXES, MAX_PROPERTIES, MAX_EXTENTS, MAX_REFERENCES = 20_000, 2000, 4000, 10_000
#: Properties of items, each as often as it is an item's.
MAX_ASSOCIATIONS = 20_000
#: Rows of a sequence's tables: so many frames are ten minutes of an animation.
MAX_SAMPLES = 20_000

#: Where the number of rows stands in a table of a track.
_TABLES = {
    **dict.fromkeys((b"stsd", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"stss", b"elst", b"subs"), 4),
    b"stsz": 8,
}
_LISTS = {b"pitm", b"iinf", b"iloc", b"iref", b"iprp", b"idat"}
_HOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"}


@dataclass(frozen=True)
class Box:
    """`start` and `end` are those of what the box holds."""

    kind: bytes
    start: int
    end: int


@dataclass
class Items:
    """What a meta box says. Places are offsets into the file; properties are boxes, in the order associated."""

    primary: int | None = None
    kinds: dict[int, bytes] = field(default_factory=dict)
    #: (construction method, offset, length)
    extents: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    properties: dict[int, list[Box]] = field(default_factory=dict)
    #: The items that one refers to, by kind of reference and who refers.
    targets: dict[tuple[bytes, int], list[int]] = field(default_factory=dict)
    #: Where data stored in the meta box itself begins and ends.
    inside: tuple[int, int] = (0, 0)


@dataclass
class Track:
    """A track of a sequence: the size it is shown in, and where its first frame lies."""

    size: Size = field(default_factory=lambda: Size(0, 0))
    offset: int = 0
    length: int = 0
    #: Its chunks of frames, and the most frames in one.
    chunks: int = 0
    in_chunk: int = 0


class Walk:
    """Reads one file; the counts are of all of it. `name` is the format's. Raises ImageTooComplexError where a list is
    too long, and struct.error or IndexError where it leaves the file."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name
        self._boxes = Count(MAX_BOXES, name, "boxes")
        self._extents = Count(MAX_EXTENTS, name, "pieces of items")
        self._references = Count(MAX_REFERENCES, name, "references")
        self._associations = Count(MAX_ASSOCIATIONS, name, "properties of items")

    def boxes(self, start: int, end: int) -> Iterator[Box]:
        """The boxes between two places, none of them inside another."""
        while start + 8 <= end:
            self._boxes.add()
            size, kind = unpack_from(">I4s", self._data, start)
            head = 8
            if size == 1:
                (size,), head = unpack_from(">Q", self._data, start + 8), 16
            stop = end if size == 0 else start + size
            if size and size < head:
                raise damaged(self._name)
            yield Box(kind, start + head, min(stop, end))
            start = stop

    def once(self, boxes: Iterable[Box], kinds: Container[bytes]) -> Iterator[Box]:
        """The boxes, of which those of `kinds` may come only once: decoders differ in which one counts."""
        seen: set[bytes] = set()
        for box in boxes:
            if box.kind in seen:
                raise damaged(self._name)
            if box.kind in kinds:
                seen.add(box.kind)
            yield box

    def items(self, meta: Box) -> Items:
        """What a meta box says."""
        found = Items()
        for box in self.once(self.boxes(meta.start + 4, meta.end), _LISTS):
            if box.kind == b"pitm":
                found.primary = self._number(box.start + 4, 2 if self._version(box) == 0 else 4)
            elif box.kind == b"iinf":
                self._read_kinds(box, found)
            elif box.kind == b"iloc":
                self._read_places(box, found)
            elif box.kind == b"iref":
                self._read_references(box, found)
            elif box.kind == b"iprp":
                self._read_properties(box, found)
            elif box.kind == b"idat":
                found.inside = box.start, box.end
        named = {*found.kinds, *found.extents, *found.properties}
        for (_, source), targets in found.targets.items():
            named.update((source, *targets))
        within(len(named), MAX_ITEMS, self._name, "items")
        return found

    def tracks(self, moov: Box) -> list[Track]:
        """The tracks of a sequence, the rows of their tables counted."""
        found = [self._track(trak) for trak in self.boxes(moov.start, moov.end) if trak.kind == b"trak"]
        for track in found:
            within(track.chunks * track.in_chunk, 10 * MAX_SAMPLES, self._name, "frames in its chunks")
        return found

    def _track(self, holder: Box, found: Track | None = None) -> Track:
        found = found or Track()
        for box in self.once(self.boxes(holder.start, holder.end), {*_HOLDERS, *_TABLES, b"tkhd"}):
            if box.kind in _HOLDERS:
                self._track(box, found)
            elif box.kind in _TABLES:
                rows = self._number(box.start + _TABLES[box.kind], 4)
                within(rows, MAX_SAMPLES, self._name, "rows in a table of its frames")
            if box.kind == b"stsc":
                self._read_runs(box, rows, found)
            if box.kind == b"tkhd":
                found.size = Size(*(side >> 16 for side in unpack_from(">II", self._data, box.end - 8)))
            elif box.kind in (b"stco", b"co64"):
                found.chunks = rows
                found.offset = self._number(box.start + 8, 4 if box.kind == b"stco" else 8)
            elif box.kind == b"stsz":
                found.length = self._number(box.start + 4, 4) or self._number(box.start + 12, 4)
        return found

    def _read_runs(self, stsc: Box, count: int, found: Track) -> None:
        runs = [unpack_from(">II", self._data, stsc.start + 8 + 12 * index) for index in range(count)]
        if not runs or runs[0][0] != 1:
            raise damaged(self._name)  # then the first frame would not be where the first chunk is
        found.in_chunk = max(frames for _, frames in runs)

    def _read_kinds(self, iinf: Box, found: Items) -> None:
        width = 2 if self._version(iinf) == 0 else 4
        within(self._number(iinf.start + 4, width), MAX_ITEMS, self._name, "items")
        for entry in self.boxes(iinf.start + 4 + width, iinf.end):
            width = 2 if self._version(entry) < 3 else 4
            at = entry.start + 4
            item = self._number(at, width)
            if item in found.kinds:
                raise damaged(self._name)
            found.kinds[item] = self._data[at + width + 2 : at + width + 6]

    def _read_places(self, iloc: Box, found: Items) -> None:
        version, at = self._version(iloc), iloc.start + 4
        offset_bytes, length_bytes = divmod(self._data[at], 16)
        base_bytes, index_bytes = divmod(self._data[at + 1], 16)
        wide = 4 if version == 2 else 2
        count = within(self._number(at + 2, wide), MAX_ITEMS, self._name, "items")
        at += 2 + wide
        for _ in range(count):
            item, method = self._number(at, wide), 0
            at += wide
            if version:
                method = self._number(at, 2) & 15
                at += 2
            base = self._number(at + 2, base_bytes)
            extents = self._number(at + 2 + base_bytes, 2)
            self._extents.add(extents)
            at += 4 + base_bytes
            places = found.extents.setdefault(item, [])
            for _ in range(extents):
                at += index_bytes if version else 0
                offset = base + self._number(at, offset_bytes)
                places.append((method, offset, self._number(at + offset_bytes, length_bytes)))
                at += offset_bytes + length_bytes

    def _read_references(self, iref: Box, found: Items) -> None:
        width = 2 if self._version(iref) == 0 else 4
        for box in self.boxes(iref.start + 4, iref.end):
            count = self._number(box.start + width, 2)
            self._references.add(count)
            source, first = self._number(box.start, width), box.start + width + 2
            targets = [self._number(at, width) for at in range(first, first + width * count, width)]
            found.targets.setdefault((box.kind, source), []).extend(targets)

    def _read_properties(self, iprp: Box, found: Items) -> None:
        properties: list[Box] = []
        for box in self.boxes(iprp.start, iprp.end):
            if box.kind == b"ipco":
                properties.extend(self.boxes(box.start, box.end))
                within(len(properties), MAX_PROPERTIES, self._name, "properties")
            elif box.kind == b"ipma":
                self._associate(box, properties, found)

    def _associate(self, ipma: Box, properties: list[Box], found: Items) -> None:
        wide = 2 if self._version(ipma) == 0 else 4
        large = self._data[ipma.start + 3] & 1
        count = within(self._number(ipma.start + 4, 4), MAX_ITEMS, self._name, "items")
        at = ipma.start + 8
        for _ in range(count):
            item, names = self._number(at, wide), self._data[at + wide]
            self._associations.add(names)
            at += wide + 1
            for _ in range(names):
                index = self._number(at, 2) & 0x7FFF if large else self._data[at] & 0x7F
                at += 2 if large else 1
                if 0 < index <= len(properties):
                    found.properties.setdefault(item, []).append(properties[index - 1])

    def _version(self, box: Box) -> int:
        return self._data[box.start]

    def _number(self, at: int, width: int) -> int:
        if at + width > len(self._data):
            raise IndexError("outside the file")
        return int.from_bytes(self._data[at : at + width], "big")

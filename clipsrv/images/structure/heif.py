"""AVIF and HEIC: how large the frames are that make up the image, whatever its boxes claim.

A grid is made of tiles, and transparency is a frame of its own; each is looked into.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor
from struct import unpack_from

from clipsrv.images.structure import av1, hevc
from clipsrv.images.structure.boxes import Box, Items, Track, Walk
from clipsrv.images.structure.header import Count, Header, Kind, Size, damaged, truncated, unsupported

#: Of the coded data in one file: tiles and slices may be one each.
MAX_UNITS = 20_000

_AV1, _HEVC = {b"av01"}, {b"hvc1", b"hev1"}
_ALPHA = (
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
    b"urn:mpeg:hevc:2015:auxid:1",
    b"urn:mpeg:avc:2015:auxid:1",
)
#: A frame may be larger than its image by what blocks of this size round it up to.
_ROUNDING = 64
#: Planes of 16 bits, and three images made of them, for each pixel of a frame.
_BYTES_PER_PIXEL = 20


def read(data: bytes) -> Header:
    """What an AVIF or HEIC says of itself; which one it is, the coding of its primary item says. Raises ImageError."""
    container = _Container(data, "AVIF" if data[8:11] == b"avi" else "HEIC")
    return container.sequence() if data[8:12] == b"avis" and container.tracks else container.image()


class _Container:
    """One file, judged from its primary item or its tracks."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name, self._items = data, name, Items()
        self.tracks: list[Track] = []
        self._units = Count(MAX_UNITS, name, "units of coded data")
        self._read = 0
        self._frames: dict[object, Size] = {}
        walk = Walk(data, name)
        for box in walk.once(walk.boxes(0, len(data)), {b"ftyp", b"meta", b"moov"}):
            if box.kind == b"meta":
                self._items = walk.items(box)
            elif box.kind == b"moov":
                self.tracks = walk.tracks(box)

    def sequence(self) -> Header:
        """The header of an animation, by the first frame of each track."""
        frames = [
            av1.frame_size(self._data[track.offset : track.offset + track.length], self._units) or track.size
            for track in self.tracks
        ]
        size = self.tracks[0].size
        return self._header("AVIF", size, max(size, *frames, key=_pixels), sum(map(_pixels, frames)))

    def image(self) -> Header:
        """The header of a still image."""
        primary = self._items.primary
        if primary is None and self.tracks:
            raise unsupported(self._name, "a sequence without a still image")
        if primary is None or primary not in self._items.kinds:
            raise damaged(self._name)
        parts, size = self._parts(primary), self._size(primary)
        kinds = {self._items.kinds[part] for part in parts}
        format = "AVIF" if kinds <= _AV1 else "HEIF"
        if not (kinds <= _AV1 or kinds <= _HEVC):
            shown = ", ".join(sorted(kind.decode("latin-1") for kind in kinds if kind.isalnum()))
            raise unsupported(self._name, f"it holds {shown or 'something else'}")
        largest = size
        for part in {*parts}:
            frame, whole = self._frame(part), self._size(part)
            if frame.width >= whole.width + _ROUNDING or frame.height >= whole.height + _ROUNDING:
                if format == "HEIF":
                    raise damaged(self._name)  # as libheif says, once it has decoded all of it
                largest = max(largest, frame, key=_pixels)
        transparent = self._transparent({primary, *parts})
        decoded = sum(self._frame(part).pixels for part in parts + transparent)
        return self._header(format, size, largest, decoded, self._crop(primary, size) if format == "AVIF" else None)

    def _header(
        self, format: str, size: Size, largest: Size, decoded: int, crop: tuple[int, int, int, int] | None = None
    ) -> Header:
        return Header(
            format,
            size,
            self._data,
            largest.pixels,
            _BYTES_PER_PIXEL * max(decoded, size.pixels),
            Kind.CANVAS if format == "AVIF" else Kind.PLAIN,
            crop=crop,
        )

    def _parts(self, item: int) -> list[int]:
        """The coded items that make up an image, each as often as it is used."""
        if self._items.kinds[item] != b"grid":
            return [item]
        tiles = self._items.targets.get((b"dimg", item), [])
        if not tiles or any(tile not in self._items.kinds for tile in tiles):
            raise damaged(self._name)
        grid = self._payload(item)
        rows, columns = grid[2] + 1, grid[3] + 1
        whole, tile = Size(*unpack_from(">II" if grid[1] & 1 else ">HH", grid, 4)), self._size(tiles[0])
        if len(tiles) != rows * columns or not tile.pixels:
            raise damaged(self._name)
        if (columns - 1) * tile.width >= whole.width or (rows - 1) * tile.height >= whole.height:
            raise unsupported(self._name, "tiles beyond its edge")
        return tiles

    def _transparent(self, owners: set[int]) -> list[int]:
        """The coded items that hold the transparency of others."""
        found = []
        for (kind, source), targets in self._items.targets.items():
            if kind == b"auxl" and not owners.isdisjoint(targets) and source in self._items.kinds:
                names = [self._bytes(box)[4:] for box in self._properties(source, b"auxC")]
                if any(name.startswith(_ALPHA) for name in names):
                    found += self._parts(source)
        return found

    def _frame(self, item: int) -> Size:
        """The size of a coded item's frame."""
        boxes = tuple(self._properties(item, b"hvcC"))
        key = self._items.kinds[item], tuple(self._items.extents.get(item, ())), boxes
        if key not in self._frames:  # tiles of one colour may share their data
            payload, kind = self._payload(item), self._items.kinds[item]
            sizes: list[Size | None] = []
            if kind in _AV1:
                sizes = [av1.frame_size(payload, self._units)]
            elif kind in _HEVC:
                for record in map(self._bytes, boxes):
                    sizes.append(hevc.configured_size(record, self._units))
                    sizes.append(hevc.frame_size(payload, (record[21] & 3) + 1, self._units))
            else:
                raise unsupported(self._name, "its tiles or its transparency")
            known = [size for size in sizes if size]
            if not known:
                raise damaged(self._name)
            self._frames[key] = max(known, key=_pixels)
        return self._frames[key]

    def _size(self, item: int) -> Size:
        found = self._properties(item, b"ispe")
        if not found:
            raise damaged(self._name)
        return Size(*unpack_from(">II", self._bytes(found[0]), 4))

    def _crop(self, item: int, size: Size) -> tuple[int, int, int, int] | None:
        """The clean aperture, as libheif rounds it, or None without one or where it shows nothing."""
        for box in self._properties(item, b"clap"):
            wide, wide_by, high, high_by, x, x_by, y, y_by = unpack_from(">IIIIiIiI", self._bytes(box))
            if not (wide_by and high_by and x_by and y_by):
                return None
            width, height = Fraction(wide, wide_by), Fraction(high, high_by)
            left = floor(Fraction(x, x_by) + Fraction(size.width - 1, 2) - (width - 1) / 2)
            top = floor(Fraction(y, y_by) + Fraction(size.height - 1, 2) - (height - 1) / 2 + Fraction(1, 2))
            right, bottom = left + floor(width + Fraction(1, 2)), top + floor(height + Fraction(1, 2))
            shown = max(left, 0), max(top, 0), min(right, size.width), min(bottom, size.height)
            return shown if shown[0] < shown[2] and shown[1] < shown[3] else None
        return None

    def _payload(self, item: int) -> bytes:
        """An item's data. Raises TruncatedImageError where the file ends before."""
        pieces = []
        for method, offset, length in self._items.extents.get(item, ()):
            if method > 1:
                raise unsupported(self._name, "data made of other items")
            start, end = self._items.inside if method else (0, len(self._data))
            stop = start + offset + length if length else end
            if stop > end:
                raise truncated()
            self._read += stop - start - offset
            if self._read > len(self._data):  # items that share their data would be read again and again
                raise damaged(self._name)
            pieces.append(self._data[start + offset : stop])
        return b"".join(pieces)

    def _properties(self, item: int, kind: bytes) -> list[Box]:
        return [box for box in self._items.properties.get(item, ()) if box.kind == kind]

    def _bytes(self, box: Box) -> bytes:
        return self._data[box.start : box.end]


def _pixels(size: Size) -> int:
    return size.pixels

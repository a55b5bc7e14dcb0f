"""TIFF's directory of tags (TIFF 6.0, section 2; BigTIFF): reading the first one, and writing one anew.

Nothing but the tags that pixels depend on is ever read, and what a decoder gets has no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import calcsize, pack, unpack_from

from clipsrv.images.structure.header import damaged, within

#: Of the first directory. Cameras and maps have some hundred.
MAX_TAGS = 1000
#: Strips or tiles: one for each row of the highest image, in four planes.
MAX_BLOCKS = 65_536

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, COLORMAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 317, 320, 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES, SUBSAMPLING, XMP = 338, 339, 347, 530, 700
_T4_OPTIONS, _T6_OPTIONS, _POSITIONING = 292, 293, 531
_JPEG_PROC, _JPEG_START, _JPEG_BYTES, _JPEG_RESTART, _JPEG_Q, _JPEG_DC, _JPEG_AC = 512, 513, 514, 515, 519, 520, 521
_COEFFICIENTS, _BLACK_WHITE = 529, 532

#: Tags that are whole numbers, and what they may be at most in number.
_NUMBERS = {
    **dict.fromkeys((WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES, ROWS, PLANAR), 1),
    **dict.fromkeys((PREDICTOR, TILE_WIDTH, TILE_HEIGHT, _T4_OPTIONS, _T6_OPTIONS, _POSITIONING), 1),
    **dict.fromkeys((_JPEG_PROC, _JPEG_START, _JPEG_BYTES, _JPEG_RESTART), 1),
    **dict.fromkeys((BITS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING, _JPEG_Q, _JPEG_DC, _JPEG_AC), 16),
    **dict.fromkeys((STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES), MAX_BLOCKS),
    COLORMAP: 3 * 65_536,
}
_RATIONALS = {_COEFFICIENTS: 3, _BLACK_WHITE: 6}
_BYTES = {JPEG_TABLES, XMP}
#: Types of whole numbers, by their code in the file.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
_RATIONAL, _BYTE_TYPES = 5, {1, 2, 7}
_SIZES = {**{code: calcsize("=" + form) for code, form in _INTEGERS.items()}, _RATIONAL: 8}

#: How a file may begin, and the byte order of struct; the third and fourth are Pillow's leniency.
STARTS = {b"II*\0": "<", b"MM\0*": ">", b"MM*\0": ">", b"II\0*": "<", b"II+\0": "<", b"MM\0+": ">"}
_BIG = {b"II+\0", b"MM\0+"}

Values = tuple[int, ...] | bytes


def read_directory(data: bytes) -> tuple[str, dict[int, Values]]:
    """Byte order and first directory: numbers as tuples (a rational is two), bytes as they are."""
    order = STARTS[data[:4]]
    big = data[:4] in _BIG
    place, count_form, entry_form, inline = ("Q", "Q", "HHQ", 8) if big else ("I", "H", "HHI", 4)
    (at,) = unpack_from(order + place, data, 8 if big else 4)
    (count,) = unpack_from(order + count_form, data, at)
    within(count, MAX_TAGS, "TIFF", "tags")
    at += calcsize(order + count_form)
    size = calcsize(order + entry_form)
    found: dict[int, Values] = {}
    for entry in range(at, at + count * (size + inline), size + inline):
        tag, kind, number = unpack_from(order + entry_form, data, entry)
        form = None if tag in found or not number else _form(tag, kind, number)
        if form is None:
            continue
        value_at = entry + size
        if number * _SIZES.get(kind, 1) > inline:
            (value_at,) = unpack_from(order + place, data, value_at)
        values = unpack_from(order + form, data, value_at)
        if tag in _RATIONALS and kind != _RATIONAL:
            values = tuple(part for value in values for part in (value, 1))
        found[tag] = values[0] if tag in _BYTES else values
    return order, found


def _form(tag: int, kind: int, number: int) -> str | None:
    """The struct form of a tag's values, or None if it is nothing to us. Raises ImageTooComplexError."""
    if tag in _NUMBERS:
        if kind not in _INTEGERS:
            raise damaged("TIFF")
        if tag in (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES):
            within(number, MAX_BLOCKS, "TIFF", "strips or tiles")
        return f"{min(number, _NUMBERS[tag])}{_INTEGERS[kind]}"  # what is too much is no value
    if tag in _RATIONALS and number == _RATIONALS[tag] and (kind == _RATIONAL or kind in _INTEGERS):
        return f"{2 * number}I" if kind == _RATIONAL else f"{number}{_INTEGERS[kind]}"
    if tag in _BYTES and kind in _BYTE_TYPES:
        return f"{number}s"
    return None


def write_directory(data: bytes, order: str, tags: Mapping[int, Values]) -> bytes:
    """A classic TIFF of `order` with these tags, in which everything of `data` stands where it stood."""
    start = len(data) + len(data) % 2
    entries, tail = [], b""
    tail_at = start + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind, form, number = _type(tag, values)
        packed = pack(order + form, *(values if isinstance(values, tuple) else (values,)))
        if len(packed) > 4:
            packed, tail = pack(order + "I", tail_at + len(tail)), tail + packed + bytes(len(packed) % 2)
        entries.append(pack(order + "HHI", tag, kind, number) + packed.ljust(4, b"\0"))
    head = (b"II" if order == "<" else b"MM") + pack(order + "HI", 42, start)
    return b"".join(
        (head, memoryview(data)[8:], bytes(len(data) % 2), pack(order + "H", len(tags)), *entries, bytes(4), tail)
    )


def _type(tag: int, values: Values) -> tuple[int, str, int]:
    """Code of the type in the file, form of struct, and number of values."""
    if isinstance(values, bytes):
        return 7 if tag == JPEG_TABLES else 1, f"{len(values)}s", len(values)
    if tag in _RATIONALS:
        return _RATIONAL, f"{len(values)}I", len(values) // 2
    small = all(0 <= value < 65_536 for value in values)
    return (3, f"{len(values)}H", len(values)) if small else (4, f"{len(values)}I", len(values))


def one(found: Mapping[int, Values], tag: int, default: int) -> int:
    """The first value of a tag."""
    values = found.get(tag, ())
    return values[0] if values else default


def many(found: Mapping[int, Values], tag: int) -> tuple[int, ...]:
    """The values of a tag, none if it is not there."""
    values = found.get(tag, ())
    return values if isinstance(values, tuple) else tuple(values)

"""AVIF and HEIC files put together box by box, around frames that an encoder made: what a box says is free."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image

#: Kinds of item, properties of the decoder, and brands.
_CODINGS = {"AVIF": (b"av01", b"av1C", b"avif"), "HEIF": (b"hvc1", b"hvcC", b"heic")}


def box(kind: bytes, *body: bytes) -> bytes:
    """A box around what it holds."""
    content = b"".join(body)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, version: int, flags: int, *body: bytes) -> bytes:
    """A box with a version."""
    return box(kind, struct.pack(">I", version << 24 | flags), *body)


@dataclass(frozen=True)
class Frame:
    """One coded frame: its item's kind, its decoder's configuration as a property, and its data."""

    kind: bytes
    configuration: bytes
    data: bytes


def frame(image: Image.Image, format: str = "AVIF", **options: object) -> Frame:
    """What Pillow's encoder makes of an image without transparency."""
    kind, configuration, _ = _CODINGS[format]
    file = BytesIO()
    image.save(file, format, **options)
    blob = file.getvalue()
    start = blob.index(configuration) - 4
    (length,) = struct.unpack_from(">I", blob, start)
    data = blob.index(b"mdat") + 4
    (size,) = struct.unpack_from(">I", blob, data - 8)
    return Frame(kind, blob[start : start + length], blob[data : data - 8 + size])


@dataclass
class Item:
    """One item. `properties` are boxes, `targets` the items it refers to by kind of reference."""

    kind: bytes
    data: bytes
    properties: list[bytes] = field(default_factory=list)
    targets: dict[bytes, list[int]] = field(default_factory=dict)


def shown(frame: Frame, width: int, height: int, *properties: bytes) -> Item:
    """An image item of a frame that claims a size."""
    return Item(frame.kind, frame.data, [ispe(width, height), frame.configuration, *properties])


def ispe(width: int, height: int) -> bytes:
    return full(b"ispe", 0, 0, struct.pack(">II", width, height))


def clap(width: int, height: int, x: tuple[int, int] = (0, 1), y: tuple[int, int] = (0, 1)) -> bytes:
    """A clean aperture, its centre moved by two fractions."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, *x, *y))


def grid(rows: int, columns: int, width: int, height: int, tiles: list[int]) -> Item:
    data = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    return Item(b"grid", data, [ispe(width, height)], {b"dimg": tiles})


def container(*items: Item, brand: bytes = b"avif", primary: int = 1, extra: bytes = b"") -> bytes:
    """A file of items, numbered from 1 on; `extra` boxes stand within the meta box."""
    properties: list[bytes] = []
    associations = b""
    for number, item in enumerate(items, 1):
        places = []
        for one in item.properties:
            if one not in properties:
                properties.append(one)
            essential = 0 if one[4:8] in (b"ispe", b"auxC") else 128
            places.append(properties.index(one) + 1 | essential)
        associations += struct.pack(">HB", number, len(places)) + struct.pack(f">{len(places)}B", *places)
    references = b"".join(
        box(kind, struct.pack(f">HH{len(to)}H", number, len(to), *to))
        for number, item in enumerate(items, 1)
        for kind, to in item.targets.items()
    )
    names = [
        full(b"infe", 2, 0, struct.pack(">HH4s", number, 0, item.kind), b"\0") for number, item in enumerate(items, 1)
    ]
    head = box(b"ftyp", brand, bytes(4), b"mif1miafavifheic")

    def meta(first: int) -> bytes:
        places, at = b"", first
        for number, item in enumerate(items, 1):
            places += struct.pack(">HHHII", number, 0, 1, at, len(item.data))
            at += len(item.data)
        return full(
            b"meta",
            0,
            0,
            full(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13)),
            full(b"pitm", 0, 0, struct.pack(">H", primary)),
            full(b"iloc", 0, 0, b"\x44\x00", struct.pack(">H", len(items)), places),
            full(b"iinf", 0, 0, struct.pack(">H", len(items)), *names),
            *([full(b"iref", 0, 0, references)] if references else []),
            box(b"iprp", box(b"ipco", *properties), full(b"ipma", 0, 0, struct.pack(">I", len(items)), associations)),
            extra,
        )

    first = len(head) + len(meta(0)) + 8
    return head + meta(first) + box(b"mdat", *(item.data for item in items))

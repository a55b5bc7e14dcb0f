"""TIFF files of any form, written by hand, so that what is in them is known without any reader."""

from __future__ import annotations

import io
import itertools
import lzma
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Samples = NDArray[Any]
Tags = Mapping[int, tuple[str, Sequence[int]]]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, LAB, ICC_LAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
COMPRESSIONS = {
    **{"none": 1, "old JPEG": 6, "LZW": 5, "JPEG": 7, "Deflate": 8, "PackBits": 32773, "old Deflate": 32946},
    **{"LZMA": 34925, "Zstandard": 50000, "WebP": 50001, "JPEG XL": 50002},
}
FORMATS = {"u": 1, "i": 2, "f": 3}
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_TYPES = {"B": 1, "H": 3, "I": 4, "Q": 16}


@dataclass(frozen=True)
class Layout:
    """How samples are stored. `tile` is (width, height), `rows` those of a strip; neither makes one strip."""

    order: str = "<"
    compression: str = "none"
    planar: int = 1
    tile: tuple[int, int] | None = None
    rows: int | None = None
    predictor: int = 1
    fill: int = 1


@dataclass(frozen=True)
class Kind:
    """What samples mean. `kind` is u, i or f; a palette is (entries, 3)."""

    colour: int
    bits: int = 8
    kind: str = "u"
    extra: tuple[int, ...] = ()
    palette: Samples | None = field(default=None, compare=False)


PLAIN = Layout()


def tiff(samples: Samples, kind: Kind, layout: Layout = PLAIN, tags: Tags = MappingProxyType({})) -> bytes:
    """A file of samples (height, width, samples of a pixel). `tags` are (type, values), instead of its own."""
    planes = [samples] if layout.planar == 1 else [samples[:, :, [index]] for index in range(samples.shape[2])]
    blocks = [_encoded(block, kind, layout) for plane in planes for block in _blocks(plane, layout)]
    return assemble(blocks, samples.shape, kind, layout, tags)


def assemble(
    blocks: Sequence[bytes],
    shape: tuple[int, ...],
    kind: Kind,
    layout: Layout = PLAIN,
    tags: Tags = MappingProxyType({}),
    *,
    big: bool = False,
) -> bytes:
    """A file of encoded strips or tiles. A tag without values is left out."""
    height, width, count = shape
    head, data, places = 16 if big else 8, bytearray(), []
    for block in blocks:
        places.append(head + len(data))
        data += block + bytes(len(block) % 2)
    entries: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [kind.bits] * count),
        259: ("H", [COMPRESSIONS[layout.compression]]),
        262: ("H", [kind.colour]),
        277: ("H", [count]),
        284: ("H", [layout.planar]),
        266: ("H", [layout.fill]),
        317: ("H", [layout.predictor]),
        338: ("H", kind.extra),
        339: ("H", [FORMATS[kind.kind]] * count),
    }
    if layout.tile:
        entries |= {322: ("I", layout.tile[:1]), 323: ("I", layout.tile[1:])}
        entries |= {324: ("I", places), 325: ("I", [len(block) for block in blocks])}
    else:
        entries |= {273: ("I", places), 279: ("I", [len(block) for block in blocks])}
        entries |= {278: ("I", [layout.rows or height])}
    if kind.palette is not None:
        entries[320] = ("H", kind.palette.T.ravel().tolist())
    entries = {tag: one for tag, one in sorted({**entries, **tags}.items()) if len(one[1])}
    return _with_directory(bytes(data), entries, layout.order, big=big)


def _with_directory(data: bytes, entries: Mapping[int, tuple[str, Sequence[int]]], order: str, *, big: bool) -> bytes:
    """BigTIFF is the same with wider numbers."""
    place, count, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    at = (16 if big else 8) + len(data)
    tail_at = at + struct.calcsize(order + count) + (12 + 8 * big) * len(entries) + inline
    directory, tail = struct.pack(order + count, len(entries)), b""
    for tag, (type_, values) in entries.items():
        packed = struct.pack(f"{order}{len(values)}{type_}", *values)
        if len(packed) > inline:
            packed, tail = struct.pack(order + place, tail_at + len(tail)), tail + packed + bytes(len(packed) % 2)
        directory += struct.pack(order + "HH" + place, tag, _TYPES[type_], len(values)) + packed.ljust(inline, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    return mark + head + data + directory + bytes(inline) + tail


def _blocks(plane: Samples, layout: Layout) -> Iterator[Samples]:
    """Strips, or tiles filled up at the edges."""
    height, width, _ = plane.shape
    if layout.tile is None:
        rows = layout.rows or height
        yield from (plane[top : top + rows] for top in range(0, height, rows))
        return
    wide, high = layout.tile
    for top, left in itertools.product(range(0, height, high), range(0, width, wide)):
        block = plane[top : top + high, left : left + wide]
        yield np.pad(block, ((0, high - block.shape[0]), (0, wide - block.shape[1]), (0, 0)), mode="edge")


def _encoded(block: Samples, kind: Kind, layout: Layout) -> bytes:
    if layout.predictor == 2:
        block = np.concatenate([block[:, :1], block[:, 1:] - block[:, :-1]], axis=1)
    raw = _floats_predicted(block) if layout.predictor == 3 else _packed(block, kind, layout.order)
    encoded = _compressed(raw, layout.compression, len(block))
    return encoded.translate(REVERSED) if layout.fill == 2 else encoded


def _packed(block: Samples, kind: Kind, order: str) -> bytes:
    """Rows of samples, each row up to whole bytes."""
    rows = block.reshape(len(block), -1)
    if kind.bits in (8, 16, 32, 64):
        return rows.astype(f"{order}{kind.kind}{kind.bits // 8}").tobytes()
    bits = rows.astype(np.uint64)[:, :, None] >> np.arange(kind.bits - 1, -1, -1, dtype=np.uint64) & 1
    return np.packbits(bits.astype(np.uint8).reshape(len(rows), -1), axis=1).tobytes()


def _floats_predicted(block: Samples) -> bytes:
    """Adobe's predictor of floating-point samples: their bytes apart, high ones first, then differences."""
    rows, width, count = block.shape
    size = block.dtype.itemsize
    apart = block.astype(f">f{size}").view(np.uint8).reshape(rows, width * count, size).transpose(0, 2, 1)
    flat = apart.reshape(rows, -1)
    return np.concatenate([flat[:, :count], flat[:, count:] - flat[:, :-count]], axis=1).tobytes()


def _compressed(raw: bytes, compression: str, rows: int) -> bytes:
    import imagecodecs  # large, and seldom needed

    if compression in ("Deflate", "old Deflate"):
        return zlib.compress(raw)
    if compression == "LZW":
        return bytes(imagecodecs.lzw_encode(raw))
    if compression == "PackBits":
        each = len(raw) // rows
        return b"".join(imagecodecs.packbits_encode(raw[at : at + each]) for at in range(0, len(raw), each))
    if compression == "LZMA":
        return lzma.compress(raw)
    if compression == "Zstandard":
        return bytes(imagecodecs.zstd_encode(raw))
    assert compression == "none"
    return raw


#: Height and width of the samples of the matrix: no multiples of anything.
HEIGHT, WIDTH = 33, 37


def samples_of(kind: Kind) -> Samples:
    """(HEIGHT, WIDTH, samples) that differ in every channel, up to the highest level."""
    count = {RGB: 3, CMYK: 4, YCBCR: 3, LAB: 3, ICC_LAB: 3}.get(kind.colour, 1) + len(kind.extra)
    down, across = np.mgrid[0:HEIGHT, 0:WIDTH]
    shades = [(across / WIDTH * 0.6 + down / HEIGHT * 0.4)]
    shades += [
        (across * (index + 1) * 3 + down * (5 - index) * 2 + 40 * index) % 200 / 199 for index in range(1, count)
    ]
    if 1 in kind.extra:  # colours that have been multiplied with it
        shades[count - len(kind.extra) + kind.extra.index(1)] = np.ones((HEIGHT, WIDTH))
    stacked = np.stack(shades, -1)
    if kind.kind == "f":
        return stacked.astype(f"f{kind.bits // 8}")
    top = 2 ** (kind.bits - (kind.kind == "i")) - 1
    if kind.kind == "i":
        return np.rint(stacked * 2 * top - top).astype(f"i{kind.bits // 8}")
    return (stacked * top).astype(np.uint8 if kind.bits <= 8 else np.uint16 if kind.bits <= 16 else np.uint32)


def shown(samples: Samples, kind: Kind) -> Samples:
    """int (HEIGHT, WIDTH, 3): what TIFF 6.0 says that samples look like; numbers without a natural range are stretched
    from the lowest to the highest."""
    top = 2**kind.bits - 1
    if kind.colour in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        grey = samples[:, :, 0].astype(np.float64)
        if kind.kind != "u" or kind.bits == 32:
            grey, top = grey - grey.min(), grey.max() - grey.min()
        levels = np.rint(grey * 255 / top).astype(int)
        return np.repeat((255 - levels if kind.colour == WHITE_IS_ZERO else levels)[:, :, None], 3, axis=2)
    if kind.colour == PALETTE:
        assert kind.palette is not None
        return kind.palette[samples[:, :, 0]] // (1 if kind.palette.max() < 256 else 256)
    levels = np.rint(samples.astype(np.float64) * 255 / top).astype(np.uint8)
    if kind.colour == RGB:
        return levels[:, :, :3].astype(int)
    mode, count = ("CMYK", 4) if kind.colour == CMYK else ("LAB", 3)
    image = Image.frombytes(mode, (WIDTH, HEIGHT), levels[:, :, :count].tobytes(), "raw", mode)
    return np.asarray(image.convert("RGB")).astype(int)


def palette(bits: int, *, entries_of_8_bits: bool = False) -> Samples:
    """(2^bits, 3): entries of 16 bits, or of 8 as some programs write them."""
    size = 1 << bits
    entries = np.stack([np.linspace(0, 255, size), np.linspace(255, 0, size), np.arange(size) * 37 % 256], 1).astype(
        int
    )
    return entries if entries_of_8_bits else entries * 257


def kinds() -> Iterator[Kind]:
    """Every kind of samples worth trying, whether any decoder knows it or not."""
    for colour in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32):
            yield Kind(colour, bits)
        for kind, bits in (("i", 8), ("i", 16), ("i", 32), ("f", 16), ("f", 32), ("f", 64)):
            yield Kind(colour, bits, kind)
        for bits, extra in itertools.product((8, 16), (0, 1, 2)):
            yield Kind(colour, bits, extra=(extra,))
    for bits, small in itertools.product((1, 2, 4, 8, 16), (False, True)):
        yield Kind(PALETTE, bits, palette=palette(bits, entries_of_8_bits=small))
    for extra in (0, 2):
        yield Kind(PALETTE, 8, extra=(extra,), palette=palette(8))
    for kind, bits in (
        ("u", 4),
        ("u", 8),
        ("u", 10),
        ("u", 12),
        ("u", 16),
        ("u", 32),
        ("i", 8),
        ("i", 16),
        ("f", 16),
        ("f", 32),
    ):
        yield Kind(RGB, bits, kind)
    for bits, first, more in itertools.product((8, 16), (0, 1, 2), range(3)):
        yield Kind(RGB, bits, extra=(first, *(0,) * more))
    for bits, extra_samples in itertools.product((8, 16), ((), (0,), (2,), (0, 0))):
        yield Kind(CMYK, bits, extra=extra_samples)
    yield from (Kind(LAB), Kind(LAB, 16), Kind(ICC_LAB), Kind(MASK, 1))


def layouts(kind: Kind) -> Iterator[Layout]:
    """Every way of storing them that this file can write."""
    for order, compression, planar, place, predictor, fill in itertools.product(
        "<>",
        (name for name in COMPRESSIONS if "JPEG" not in name and name != "WebP"),
        (1, 2),
        ("one", "strips", "tiles"),
        (1, 2, 3),
        (1, 2),
    ):
        if predictor == 2 and not (kind.bits in (8, 16, 32, 64) and (kind.kind, kind.bits) != ("f", 16)):
            continue
        if predictor == 3 and kind.kind != "f":
            continue
        rows, tile = (7 if place == "strips" else None), ((16, 16) if place == "tiles" else None)
        yield Layout(order, compression, planar, tile, rows, predictor, fill)


def noisy() -> bytes:
    """A damaged file of which libtiff complains on stderr by itself."""
    stored = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stored, "TIFF", compression="tiff_lzw")
    data = bytearray(stored.getvalue())
    data[200:260] = b"\xff" * 60
    return bytes(data)

"""AVIF and HEIC: frames are as large as they are, whatever boxes say, and lists are counted before they are read."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
import pytest
from PIL import Image

from clipsrv.errors import (
    ImageTooComplexError,
    ImageTooLargeError,
    InvalidImageError,
    TruncatedImageError,
    UnsupportedImageFormatError,
)
from clipsrv.images.decode import decode_image
from clipsrv.images.open import open_image
from clipsrv.images.structure import av1, boxes, heif, hevc
from clipsrv.images.structure.header import Count
from clipsrv.settings import ImageLimits
from tests.support.heif import Frame, Item, box, clap, container, frame, full, grid, ispe, shown
from tests.support.photos import encode, opened

SIDE = 64
BRANDS = {"AVIF": b"avif", "HEIF": b"heic"}
both = pytest.mark.parametrize("format", BRANDS)
ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"


@cache
def coded(format: str, side: int = SIDE) -> Frame:
    down, across = np.mgrid[0:side, 0:side]
    shades = np.stack([across * 255 // side, down * 255 // side, (across + down) * 127 // side], -1)
    return frame(Image.fromarray(shades.astype(np.uint8)), format)


def simple(format: str, *properties: bytes, extra: bytes = b"", claims: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    return container(shown(coded(format), *claims, *properties), brand=BRANDS[format], extra=extra)


def pixels(blob: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int_]]:
    return np.asarray(decode_image(blob)).astype(int)


# --- what is shown ---


@both
@pytest.mark.parametrize("brand", [b"mif1", None])
def test_the_coding_of_the_image_says_which_format_it_is(format: str, brand: bytes | None) -> None:
    blob = container(shown(coded(format), SIDE, SIDE), brand=brand or BRANDS[format])
    assert open_image(blob).header.format == format
    assert decode_image(blob).size == (SIDE, SIDE)


@pytest.mark.parametrize(
    "aperture",
    [
        clap(32, 24),
        clap(31, 23),
        clap(31, 23, (-7, 2), (5, 2)),
        clap(30, 20, (1, 3), (-1, 3)),
        clap(64, 10, (0, 1), (27, 1)),
        clap(40, 40, (20, 1), (20, 1)),
    ],
)
def test_a_clean_aperture_shows_the_same_part_in_both_containers(aperture: bytes) -> None:
    avif, heic = pixels(simple("AVIF", aperture)), pixels(simple("HEIF", aperture))
    assert avif.shape == heic.shape
    assert np.abs(avif - heic).mean() < 6


def test_an_aperture_is_cut_out_before_the_image_is_turned() -> None:
    turned = simple("AVIF", clap(32, 24), box(b"irot", b"\1"))
    assert decode_image(turned).size == (24, 32)
    assert decode_image(turned, apply_orientation=False).size == (32, 24)
    assert np.array_equal(pixels(turned), np.rot90(pixels(simple("AVIF", clap(32, 24)))))


@pytest.mark.parametrize(
    "aperture", [clap(32, 24, (0, 0)), clap(10, 10, (500, 1)), box(b"clap", struct.pack(">8I", 9, 0, 9, 1, 0, 1, 0, 1))]
)
def test_an_aperture_that_shows_nothing_is_not_applied(aperture: bytes) -> None:
    assert open_image(simple("AVIF", aperture)).header.crop is None


@both
def test_a_grid_is_shown_whole_and_costs_all_its_tiles(format: str) -> None:
    tiles = [shown(coded(format), SIDE, SIDE) for _ in range(4)]
    blob = container(grid(2, 2, 120, 100, [2, 3, 4, 5]), *tiles, brand=BRANDS[format])
    assert decode_image(blob).size == (120, 100)
    assert open_image(blob).cost == 4 * open_image(simple(format)).cost


def test_tiles_may_share_their_data() -> None:
    """As a writer of one colour does."""
    blob = container(grid(1, 2, 128, 64, [2, 3]), shown(coded("AVIF"), SIDE, SIDE), shown(coded("AVIF"), SIDE, SIDE))
    data = coded("AVIF").data
    first = blob.index(data)
    second = struct.pack(">HHHII", 3, 0, 1, first + len(data), len(data))
    assert second in blob
    shared = blob.replace(second, struct.pack(">HHHII", 3, 0, 1, first, len(data)))
    assert decode_image(shared).size == (128, 64)


def test_transparency_costs_a_frame_of_its_own() -> None:
    image = opened("rocket.jpg").resize((SIDE, SIDE))
    plain, with_alpha = encode(image, "AVIF"), encode(image.convert("RGBA").rotate(20), "AVIF")
    assert open_image(with_alpha).cost == 2 * open_image(plain).cost
    other = Item(b"av01", coded("AVIF").data, [ispe(SIDE, SIDE), full(b"auxC", 0, 0, b"a depth\0")], {b"auxl": [1]})
    assert open_image(container(shown(coded("AVIF"), SIDE, SIDE), other)).cost == open_image(plain).cost


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [opened("rocket.jpg").resize((80, SIDE)).rotate(10 * turn) for turn in range(4)]
    blob = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert blob[8:12] == b"avis"
    assert open_image(blob).header.size == (80, SIDE)
    assert decode_image(blob).size == (80, SIDE)


# --- what is claimed ---


@both
def test_a_frame_larger_than_its_image_counts_as_what_it_is(format: str) -> None:
    """The decoder would decode it all before anyone looks at its size."""
    large = coded(format, 512)
    blob = container(shown(large, SIDE, SIDE), brand=BRANDS[format])
    if format == "HEIF":  # whose decoder refuses it, once it has all pixels
        with pytest.raises(InvalidImageError):
            open_image(blob)
        return
    limits = ImageLimits(max_pixels=512 * 512 - 1)
    with pytest.raises(ImageTooLargeError):
        open_image(blob, limits)
    assert open_image(simple(format), limits)
    assert open_image(blob).cost >= 512 * 512


def test_a_size_may_also_stand_in_the_data_of_the_frame() -> None:
    """A HEIC's decoder goes by the last one it meets."""
    small, large = coded("HEIF"), coded("HEIF", 512)
    start = 8 + 23
    units = large.configuration[start:]
    parameters = b""
    at = 0
    while at < len(units):
        length = int.from_bytes(units[at + 3 : at + 5], "big")
        parameters += struct.pack(">I", length) + units[at + 5 : at + 5 + length]
        at += 5 + length
    hidden = Frame(small.kind, small.configuration, parameters + large.data)
    with pytest.raises(InvalidImageError):
        open_image(container(shown(hidden, SIDE, SIDE), brand=b"heic"))


def test_a_frame_of_another_size_than_its_sequence_counts_as_the_largest_it_can_be() -> None:
    """frame_size_override_flag of AV1: only the bits of the size are known then."""
    plain, own = sequence_and_frame(own_size=False), sequence_and_frame(own_size=True)
    for data, limit in ((plain, SIDE * SIDE), (own, 2**14 * 2**14)):
        blob = container(Item(b"av01", data, [ispe(SIDE, SIDE)]))
        with pytest.raises((ImageTooLargeError, ImageTooComplexError)):
            open_image(blob, ImageLimits(max_pixels=limit - 1, max_canvas_pixels=10**9))
    assert open_image(container(Item(b"av01", plain, [ispe(SIDE, SIDE)])))


def bits(*fields: tuple[int, int]) -> bytes:
    """(value, width) one after the other."""
    text = "".join(f"{value:0{width}b}" for value, width in fields if width)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def unit(kind: int, payload: bytes) -> bytes:
    return bytes([kind << 3 | 2, len(payload)]) + payload


def sequence_and_frame(
    *,
    own_size: bool,
    timing: bool = False,
    equal: bool = False,
    model: bool = True,
    delays: bool = False,
    numbered: bool = False,
    shown_frame: bool = True,
    choices: bool = True,
) -> bytes:
    """A sequence header that is not reduced, of 64 x 64 pixels in 14 bits, and a frame header."""
    fields = [(0, 3), (0, 1), (0, 1), (int(timing), 1)]
    if timing:
        fields += [(1, 32), (1, 32), *([(1, 1), (1, 1)] if equal else [(0, 1)])]
        fields += [(1, 1), (9, 5), (1, 32), (9, 5), (9, 5)] if model else [(0, 1)]
    fields += [(int(delays), 1), (0, 5), (0, 12), (8, 5), (0, 1)]
    if timing and model:
        fields += [(1, 1), (0, 21)]
    if delays:
        fields += [(1, 1), (3, 4)]
    fields += [(13, 4), (13, 4), (SIDE - 1, 14), (SIDE - 1, 14), (int(numbered), 1)]
    if numbered:
        fields += [(3, 4), (2, 3)]
    fields += [(0, 7), (1, 1), (0, 2)]
    fields += [(1, 1), (1, 1)] if choices else [(0, 1), (1, 1), (0, 1), (1, 1)]
    head = [(0, 1), (0, 2), (int(shown_frame), 1)]
    head += [(0, 10 if timing and model and not equal else 0)] if shown_frame else [(0, 1), (0, 1)]
    head += [(0, 1)] + ([(1, 1), (0, 1)] if choices else []) + [(0, 8 if numbered else 0), (int(own_size), 1)]
    return unit(1, bits(*fields) + bytes(4)) + unit(6, bits(*head) + bytes(8))


@pytest.mark.parametrize("own_size", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timing": True},
        {"timing": True, "equal": True},
        {"timing": True, "model": False},
        {"delays": True},
        {"numbered": True},
        {"shown_frame": False},
        {"choices": False},
    ],
    ids=str,
)
def test_headers_of_av1_are_read_up_to_the_size(own_size: bool, options: dict[str, bool]) -> None:
    found = av1.frame_size(sequence_and_frame(own_size=own_size, **options), Count(10, "AVIF", "units"))
    assert found == ((2**14, 2**14) if own_size else (SIDE, SIDE))


def test_units_of_av1_may_leave_out_their_length_and_have_a_second_byte() -> None:
    whole = sequence_and_frame(own_size=False)
    (first, _), (second, _) = units_of(whole)
    extended = bytes([whole[0] | 4, 0]) + whole[1:second]
    for data in (
        whole[:first] + bytes([whole[first] & ~2]) + whole[first + 2 : second],
        extended + whole[second:],
        whole[:1] + bytes([whole[1] | 128, 0]) + whole[2:],
        whole + unit(3, b"\x80"),  # shows a frame that is there
        unit(6, bytes(9)) + whole,
        unit(1, bits((0, 3), (1, 1), (1, 1), (0, 5), (5, 4), (5, 4), (SIDE - 1, 6), (SIDE - 1, 6))) + unit(6, bytes(9)),
    ):
        assert av1.frame_size(data, Count(10, "AVIF", "units")) == (SIDE, SIDE)
    assert av1.frame_size(whole[second:], Count(10, "AVIF", "units")) is None


def parameters(layers: int = 0, chroma: int = 1) -> bytes:
    """A sequence parameter set of HEVC for 640 x 480 pixels, as a unit."""
    fields = [(33, 7), (0, 6), (1, 3), (0, 4), (layers, 3), (1, 1), (0, 96)]
    for _ in range(layers):
        fields += [(1, 1), (1, 1)]
    if layers:
        fields += [(0, 2)] * (8 - layers)
    fields += [(0, 96)] * layers + [(1, 1)]
    fields += [(0b010, 3)] if chroma == 1 else [(0b00100, 5), (0, 1)]
    fields += [(641, 19), (481, 17)]
    coded_bits = bits(*fields)
    return coded_bits[:2] + coded_bits[2:].replace(b"\0\0\0", b"\0\0\3\0") + b"\x80"


@pytest.mark.parametrize("layers", [0, 1, 6])
@pytest.mark.parametrize("chroma", [1, 3])
def test_parameter_sets_of_hevc_are_read_up_to_the_size(layers: int, chroma: int) -> None:
    one = parameters(layers, chroma)
    data = struct.pack(">I", len(one)) + one
    assert hevc.frame_size(data, 4, Count(10, "HEIC", "units")) == (640, 480)
    for other in (
        bytes([one[0] | 1]) + one[1:],
        bytes([one[0], one[1] | 8]) + one[2:],
        bytes([32 << 1]) + one[1:],
        b"\x42",
    ):
        assert hevc.frame_size(struct.pack(">I", len(other)) + other, 4, Count(10, "HEIC", "units")) is None


def test_a_parameter_set_without_an_end_is_damage() -> None:
    one = parameters()[:14] + bytes(200)
    small = coded("HEIF")
    endless = Frame(small.kind, small.configuration, struct.pack(">I", len(one)) + one)
    with pytest.raises(InvalidImageError):
        open_image(container(shown(endless, SIDE, SIDE), brand=b"heic"))


@both
@pytest.mark.parametrize("rows", [1, 40])
def test_a_grid_has_no_tiles_that_it_does_not_need(format: str, rows: int) -> None:
    tiles = [2] * (40 * rows)
    blob = container(grid(rows, 40, SIDE, SIDE, tiles), shown(coded(format), SIDE, SIDE), brand=BRANDS[format])
    with pytest.raises(UnsupportedImageFormatError, match="tiles beyond its edge"):
        open_image(blob)


# --- what is counted ---


def list_of(kind: bytes, count: int) -> bytes:
    """A second list of its kind is not allowed: this one stands in the place of the first."""
    if kind == b"iinf":
        return full(b"iinf", 0, 0, struct.pack(">H", count))
    if kind == b"iloc":
        return full(b"iloc", 0, 0, b"\x44\0", struct.pack(">H", count), bytes(14 * count))
    if kind == b"ipma":
        return box(b"iprp", full(b"ipma", 0, 0, struct.pack(">I", count), bytes(3 * count)))
    references = box(b"dimg", struct.pack(f">HH{count}H", 1, count, *range(count)))
    return full(b"iref", 0, 0, references)


@both
@pytest.mark.parametrize("kind", [b"iinf", b"iloc", b"ipma", b"iref"])
def test_the_lists_of_items_are_counted(format: str, kind: bytes) -> None:
    head = box(b"ftyp", BRANDS[format], bytes(4), BRANDS[format])
    blob = head + full(b"meta", 0, 0, list_of(kind, 1001))
    with pytest.raises(ImageTooComplexError, match=r"has too many items: at most 1,000"):
        open_image(blob)


def test_what_else_a_container_lists_is_counted() -> None:
    many = {
        "boxes": box(b"free") * (boxes.MAX_BOXES + 1),
        "properties": box(b"iprp", box(b"ipco", box(b"free") * (boxes.MAX_PROPERTIES + 1))),
        "references": full(b"iref", 0, 0, box(b"dimg", struct.pack(">HH", 1, 0xFFFF), bytes(2 * 0xFFFF))),
        "pieces of items": full(b"iloc", 0, 0, b"\x44\0", struct.pack(">HHHH", 1, 1, 0, 5000), bytes(8 * 5000)),
    }
    each = struct.pack(">HB", 1, 255) + b"\1" * 255
    one = full(b"ipma", 0, 0, struct.pack(">I", 40), each * 40)
    many["properties of items"] = box(b"iprp", one, one)
    for what, inside in many.items():
        blob = box(b"ftyp", b"avif", bytes(4), b"avif") + full(b"meta", 0, 0, inside)
        with pytest.raises(ImageTooComplexError, match=f"^The AVIF has too many {what}: at most"):
            open_image(blob)


@pytest.mark.parametrize("table", [b"stsd", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"stss", b"stsz"])
def test_the_tables_of_a_sequence_are_counted(table: bytes) -> None:
    count = struct.pack(">I", boxes.MAX_SAMPLES + 1)
    rows = full(table, 0, 0, bytes(4) + count if table == b"stsz" else count, bytes(64))
    track = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", rows))))
    blob = box(b"ftyp", b"avis", bytes(4), b"avis") + box(b"moov", track)
    with pytest.raises(ImageTooComplexError, match="rows in a table of its frames"):
        open_image(blob)


def test_chunks_of_many_frames_are_counted_as_their_frames() -> None:
    chunks = full(b"stco", 0, 0, struct.pack(">I", 1000), bytes(4000))
    runs = full(b"stsc", 0, 0, struct.pack(">I", 1), struct.pack(">III", 1, 5000, 1))
    blob = box(b"ftyp", b"avis", bytes(4), b"avis") + box(b"moov", box(b"trak", runs + chunks))
    with pytest.raises(ImageTooComplexError, match="frames"):
        open_image(blob)


def test_units_and_frames_of_coded_data_are_counted() -> None:
    empty = Item(b"av01", b"\x12\0" * (heif.MAX_UNITS + 1), [ispe(SIDE, SIDE)])
    with pytest.raises(ImageTooComplexError, match="units of coded data"):
        open_image(container(empty))
    plain = coded("AVIF")
    at = next(at for at, kind in units_of(plain.data) if kind == 6)
    frames = Frame(plain.kind, plain.configuration, plain.data + plain.data[at:] * av1.MAX_FRAMES)
    with pytest.raises(ImageTooComplexError, match="frames in one image"):
        open_image(container(shown(frames, SIDE, SIDE)))


def units_of(data: bytes) -> list[tuple[int, int]]:
    """Where each unit of AV1 data begins, and its kind; their lengths take up to two bytes."""
    found, at = [], 0
    while at < len(data):
        length, wide = data[at + 1] & 127, 1
        if data[at + 1] > 127:
            length, wide = length | data[at + 2] << 7, 2
        found.append((at, data[at] >> 3 & 15))
        at += 1 + wide + length
    return found


def test_a_heic_of_several_pictures_in_one_item_is_refused() -> None:
    one = coded("HEIF")
    twice = Frame(one.kind, one.configuration, one.data * 2)
    with pytest.raises(UnsupportedImageFormatError, match="several pictures in one item"):
        open_image(container(shown(twice, SIDE, SIDE), brand=b"heic"))


# --- what cannot be ---


def test_other_codings_are_called_by_their_name() -> None:
    for kind in (b"unci", b"jpeg", b"j2k1"):
        with pytest.raises(
            UnsupportedImageFormatError, match=f"^This form of HEIC is not read: it holds {kind.decode()}"
        ):
            open_image(container(Item(kind, b"x", [ispe(SIDE, SIDE)]), brand=b"mif1"))
    with pytest.raises(UnsupportedImageFormatError, match="it holds something else"):
        open_image(container(Item(b"\0\1\2\3", b"x", [ispe(SIDE, SIDE)]), brand=b"mif1"))


def test_a_transparency_in_another_coding_is_called_unsupported() -> None:
    alpha = Item(b"j2k1", b"x", [ispe(SIDE, SIDE), full(b"auxC", 0, 0, ALPHA)], {b"auxl": [1]})
    with pytest.raises(UnsupportedImageFormatError, match="its tiles or its transparency"):
        open_image(container(shown(coded("AVIF"), SIDE, SIDE), alpha))


def test_a_sequence_without_a_still_image_is_called_by_its_name() -> None:
    blob = box(b"ftyp", b"msf1", bytes(4), b"msf1") + box(b"moov", box(b"trak"))
    with pytest.raises(UnsupportedImageFormatError, match="a sequence without a still image"):
        open_image(blob)


AVIF = coded("AVIF")
INFE = full(b"infe", 2, 0, b"\0\1\0\0av01\0")
GRID = grid(1, 2, 128, 64, [2, 3])


@pytest.mark.parametrize(
    "blob",
    [
        box(b"ftyp", b"avif", bytes(4)),
        box(b"ftyp", b"avif", bytes(4)) + struct.pack(">I4s", 4, b"meta"),
        container(shown(AVIF, SIDE, SIDE), primary=9),
        container(Item(b"av01", AVIF.data, [AVIF.configuration])),
        container(Item(b"av01", b"\x12\0", [ispe(SIDE, SIDE)])),
        container(Item(b"av01", b"", [ispe(SIDE, SIDE)])),
        container(Item(b"grid", b"\0\0\0\1" + bytes(4), [ispe(128, 64)])),
        container(GRID),
        container(GRID, shown(AVIF, 0, 0), shown(AVIF, 0, 0)),
        container(grid(2, 2, 128, 64, [2, 3]), shown(AVIF, SIDE, SIDE), shown(AVIF, SIDE, SIDE)),
        simple("AVIF", extra=full(b"pitm", 0, 0, b"\0\1")),
        simple("AVIF", extra=full(b"iref", 0, 0)) + full(b"meta", 0, 0),
        box(b"ftyp", b"avif", bytes(4)) + full(b"meta", 0, 0, full(b"iinf", 0, 0, b"\0\2", INFE, INFE)),
        box(b"ftyp", b"avif", bytes(4)) + full(b"meta", 0, 0, full(b"iloc", 0, 0, b"\x44\0\0\5\0")),
        box(b"ftyp", b"avis", bytes(4))
        + box(b"moov", box(b"trak", full(b"stsc", 0, 0, struct.pack(">4I", 1, 2, 1, 1)))),
        container(Item(b"av01", unit(1, b"\x18"), [ispe(SIDE, SIDE)])),
    ],
)
def test_a_container_that_makes_no_sense_is_damage(blob: bytes) -> None:
    with pytest.raises(InvalidImageError, match="begins like AVIF"):
        open_image(blob)


def test_items_that_read_the_same_bytes_again_and_again_are_damage() -> None:
    blob = container(*(shown(AVIF, SIDE, SIDE) for _ in range(3)), primary=1)
    data = AVIF.data
    first = blob.index(data)
    place = struct.pack(">HHHII", 1, 0, 1, first, len(data))
    assert place in blob
    head = box(b"ftyp", b"avif", bytes(4), b"avif")
    meta = full(
        b"meta",
        0,
        0,
        full(b"pitm", 0, 0, b"\0\1"),
        full(b"iinf", 0, 0, b"\0\1", full(b"infe", 2, 0, b"\0\1\0\0av01\0")),
        full(b"iloc", 0, 0, b"\x44\0", struct.pack(">HHHH", 1, 1, 0, 9), struct.pack(">II", 0, 200) * 9),
        box(b"iprp", box(b"ipco", ispe(SIDE, SIDE)), full(b"ipma", 0, 0, struct.pack(">IHBB", 1, 1, 1, 1))),
    )
    with pytest.raises(InvalidImageError):
        open_image(head + meta)


def test_data_made_of_other_items_is_called_unsupported() -> None:
    meta = full(
        b"meta",
        0,
        0,
        full(b"pitm", 0, 0, b"\0\1"),
        full(b"iinf", 0, 0, b"\0\1", full(b"infe", 2, 0, b"\0\1\0\0av01\0")),
        full(b"iloc", 1, 0, b"\x44\0", struct.pack(">HHHHHII", 1, 1, 2, 0, 1, 0, 9)),
        box(b"iprp", box(b"ipco", ispe(SIDE, SIDE)), full(b"ipma", 0, 0, struct.pack(">IHBB", 1, 1, 1, 1))),
    )
    with pytest.raises(UnsupportedImageFormatError, match="data made of other items"):
        open_image(box(b"ftyp", b"avif", bytes(4)) + meta)


@both
def test_a_file_that_ends_before_its_data_is_truncated(format: str) -> None:
    blob = simple(format)
    with pytest.raises(TruncatedImageError):
        open_image(blob[:-20])


def test_the_wider_numbers_of_a_container_are_read() -> None:
    """Items of 32 bits, two bytes for each property, data in the meta box itself."""
    data = AVIF.data
    meta = full(
        b"meta",
        0,
        0,
        full(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13)),
        full(b"pitm", 1, 0, struct.pack(">I", 7)),
        full(b"iloc", 2, 0, b"\x44\x44", struct.pack(">IIHHIHIII", 1, 7, 1, 0, 0, 1, 0, 0, len(data))),
        full(b"iinf", 1, 0, struct.pack(">I", 1), full(b"infe", 3, 0, struct.pack(">IH4s", 7, 0, b"av01"), b"\0")),
        full(b"iref", 1, 0, box(b"cdsc", struct.pack(">IHI", 8, 1, 7))),
        box(
            b"iprp",
            box(b"ipco", ispe(SIDE, SIDE), AVIF.configuration),
            full(b"ipma", 1, 1, struct.pack(">IIBHHH", 1, 7, 3, 1, 0x8002, 0)),
        ),
        struct.pack(">I4sQ", 1, b"idat", 16 + len(data)) + data,
    )
    blob = box(b"ftyp", b"avif", bytes(4), b"mif1avif") + meta
    assert decode_image(blob).size == (SIDE, SIDE)


def test_boxes_that_are_nothing_to_us_are_passed_over() -> None:
    blob = simple("AVIF", extra=box(b"free", b"x"))
    assert decode_image(blob + box(b"free")).size == (SIDE, SIDE)
    head = box(b"ftyp", b"avif", bytes(4)) + full(b"meta", 0, 0, box(b"iprp", box(b"free")))
    with pytest.raises(InvalidImageError):
        open_image(head)


def test_a_box_without_a_length_reaches_to_the_end() -> None:
    blob = simple("AVIF")
    at = blob.index(b"mdat") - 4
    assert decode_image(blob[:at] + bytes(4) + blob[at + 4 :]).size == (SIDE, SIDE)


def test_an_aperture_larger_than_any_image_is_damage() -> None:
    """libheif says that the image is as large."""
    with pytest.raises(InvalidImageError):
        decode_image(simple("HEIF", clap(70_000, 30_000)))


def test_an_animation_whose_clock_has_no_ticks_is_damage() -> None:
    frames = [opened("rocket.jpg").resize((80, SIDE)).rotate(turn) for turn in (0, 9)]
    blob = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    at = blob.index(b"mdhd") + 4
    ticks = at + (20 if blob[at] else 12)
    assert any(blob[ticks : ticks + 4])
    with pytest.raises(InvalidImageError):
        decode_image(blob[:ticks] + bytes(4) + blob[ticks + 4 :])
